//! The request line: `/v4/SERVICE/COMMAND?sdkappid=…&identifier=…&usersig=…`, read strictly where an answer depends on it.

use std::borrow::Cow;

use http::Uri;
use linnet_types::{Refusal, code};

/// Longest path and query together; a UserSig is at most 2,048 characters.
const MAX_BYTES: usize = 8 * 1024;

/// What the request line names. Values are decoded, otherwise unchecked; a repeated name counts the first time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    /// `SERVICE/COMMAND`; empty when the path has another shape.
    pub(crate) command: String,
    pub(crate) sdkappid: Option<String>,
    pub(crate) identifier: Option<String>,
    pub(crate) usersig: Option<String>,
}

impl Target {
    /// Reads `uri`.
    ///
    /// # Errors
    /// [`code::BAD_URL`] when it is too long, or has an escape that is not one or does not decode to UTF-8.
    pub(crate) fn parse(uri: &Uri) -> Result<Self, Refusal> {
        let query = uri.query().unwrap_or_default();
        if uri.path().len() + query.len() > MAX_BYTES {
            return Err(bad());
        }
        let path = decode(uri.path(), false)?;
        let parts = path.strip_prefix("/v4/").and_then(|rest| rest.split_once('/'));
        let command = match parts {
            Some((service, command)) if !service.is_empty() && !command.is_empty() => format!("{service}/{command}"),
            _ => String::new(),
        };
        let mut target = Self { command, ..Self::default() };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value, true)?;
            let slot = match decode(name, true)?.as_ref() {
                "sdkappid" => &mut target.sdkappid,
                "identifier" => &mut target.identifier,
                "usersig" => &mut target.usersig,
                _ => continue,
            };
            slot.get_or_insert_with(|| value.into_owned());
        }
        Ok(target)
    }
}

fn bad() -> Refusal {
    Refusal::new(code::BAD_URL, "the URL cannot be parsed")
}

fn decode(text: &str, plus_is_space: bool) -> Result<Cow<'_, str>, Refusal> {
    if !text.bytes().any(|b| b == b'%' || (plus_is_space && b == b'+')) {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16)).ok_or_else(bad);
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high * 16 + low).expect("two hex digits")
            }
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(out).map(Cow::Owned).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Target, Refusal> {
        Target::parse(&text.parse().expect("a URI"))
    }

    #[test]
    fn reads_the_documented_form_in_any_order() {
        let target =
            parse("/v4/openim/sendmsg?usersig=eJ*-_x%2A&random=1&identifier=a%20b&contenttype=json&sdkappid=14");
        let want = Target {
            command: "openim/sendmsg".into(),
            sdkappid: Some("14".into()),
            identifier: Some("a b".into()),
            usersig: Some("eJ*-_x*".into()),
        };
        assert_eq!(target, Ok(want));
    }

    #[test]
    fn names_are_case_sensitive_and_count_once() {
        let target = parse("/v4/a/b?SdkAppid=1&sdkappid=2&sdkappid=3&&x").expect("valid");
        assert_eq!(target.sdkappid.as_deref(), Some("2"));
    }

    #[test]
    fn other_paths_name_no_command() {
        for path in ["/v4/", "/v4/openim", "/v4/openim/", "/v4//x", "/v3/openim/sendmsg", "/"] {
            assert_eq!(parse(path).expect("a URL").command, "", "{path}");
        }
        assert_eq!(parse("/v4/a/b/c").expect("a URL").command, "a/b/c");
    }

    #[test]
    fn broken_escapes_are_refused() {
        let long = format!("/v4/a/b?usersig={}", "x".repeat(9000));
        for bad in ["/v4/a/b?x=%", "/v4/a/b?x=%4", "/v4/a/b?x=%zz", "/v4/a/b?x=%ff", "/v4/%ff/b", &long] {
            assert_eq!(parse(bad).expect_err(bad).code, code::BAD_URL, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "[ -~]{0,100}") {
            if let Ok(uri) = format!("/v4/a/b?{text}").parse::<Uri>() {
                let _ = Target::parse(&uri);
            }
        }
    }
}
