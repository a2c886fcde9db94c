//! The reply envelope: one JSON object, outcome first, then the command's own fields.

use bytes::Bytes;
use linnet_runtime::RequestId;
use linnet_types::{Refusal, code};
use serde::Serialize;

use crate::catalogue::Family;

/// Largest reply of any command (`spec/rest-groups.md` §0).
pub(crate) const MAX_BYTES: usize = 1024 * 1024;

/// What a command answers: an outcome and fields of its own.
#[derive(Debug)]
pub(crate) struct Reply {
    status: &'static str,
    code: u32,
    info: String,
    /// The fields with their braces, `{}` when there are none.
    fields: String,
}

impl Reply {
    /// Success without fields.
    pub(crate) fn empty() -> Self {
        Self { status: "OK", code: code::OK, info: String::new(), fields: "{}".to_owned() }
    }

    /// Success with the fields of `fields`, a struct.
    pub(crate) fn of(fields: &impl Serialize) -> Result<Self, Refusal> {
        let bad = |_| Refusal::new(code::REPLY_TOO_LARGE, "the reply cannot be encoded");
        Ok(Self { fields: serde_json::to_string(fields).map_err(bad)?, ..Self::empty() })
    }

    /// A refusal.
    pub(crate) fn refused(refusal: &Refusal) -> Self {
        Self { status: "FAIL", code: refusal.code, info: refusal.info.clone(), ..Self::empty() }
    }

    /// The same fields, but part of the work failed (`spec/rest-messages.md` §3.2).
    pub(crate) fn partly(self) -> Self {
        Self { status: "SomeError", ..self }
    }

    /// The same fields, but all of the work failed with `refusal`.
    pub(crate) fn failed(self, refusal: &Refusal) -> Self {
        Self { fields: self.fields, ..Self::refused(refusal) }
    }

    /// The public code.
    pub(crate) fn code(&self) -> u32 {
        self.code
    }

    /// The body of the HTTP answer. One over [`MAX_BYTES`] becomes the family's refusal.
    pub(crate) fn encode(&self, request: RequestId, family: Option<Family>) -> Bytes {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Outcome<'a> {
            action_status: &'a str,
            error_info: &'a str,
            error_code: u32,
            #[serde(skip_serializing_if = "Option::is_none")]
            error_display: Option<&'a str>,
            request_id: String,
        }
        if self.fields.len() > MAX_BYTES {
            let code = family.map_or(code::REPLY_TOO_LARGE, Family::reply_large);
            return Self::refused(&Refusal::new(code, "the reply is over 1 MB")).encode(request, family);
        }
        let outcome = Outcome {
            action_status: self.status,
            error_info: &self.info,
            error_code: self.code,
            error_display: family.filter(|family| family.has_display()).map(|_| ""),
            request_id: request.to_string(),
        };
        let mut json = serde_json::to_string(&outcome).expect("a flat struct of text and numbers");
        if let Some(fields) = self.fields.strip_prefix('{').filter(|rest| *rest != "}") {
            json.pop();
            json.push(',');
            json.push_str(fields);
        }
        json.into()
    }
}

#[cfg(test)]
mod tests {
    use linnet_runtime::Rng;

    use super::*;

    fn text(reply: &Reply, family: Option<Family>) -> String {
        let body = reply.encode(RequestId::new(&Rng::seeded(1)), family);
        String::from_utf8(body.to_vec()).expect("UTF-8")
    }

    #[derive(Serialize)]
    struct One<'a> {
        text: &'a str,
    }

    #[test]
    fn fields_follow_the_outcome() {
        let reply = text(&Reply::of(&One { text: "\u{1}\"" }).expect("encodes"), None);
        assert!(reply.starts_with(r#"{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"RequestId":""#), "{reply}");
        assert!(reply.ends_with(r#"","text":"\u0001\""}"#), "{reply}");
    }

    #[test]
    fn profile_replies_have_a_text_for_end_users() {
        let with = text(&Reply::empty(), Some(Family::Profile));
        assert!(with.contains(r#""ErrorDisplay":"""#), "{with}");
        assert!(!text(&Reply::empty(), Some(Family::Group)).contains("ErrorDisplay"));
    }

    #[test]
    fn a_reply_over_the_limit_is_refused_with_the_code_of_its_family() {
        let long = "x".repeat(MAX_BYTES);
        let reply = Reply::of(&One { text: &long }).expect("encodes");
        assert!(text(&reply, Some(Family::Group)).contains("10018"));
        assert!(text(&reply, Some(Family::OpenIm)).contains("60013"));
    }
}
