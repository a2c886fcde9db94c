//! One webhook request: URL, signature, body (`spec/webhooks.md` §1.1-1.3).

use std::collections::BTreeMap;

use linnet_outbound::{name_of, sign};
use linnet_proto::callback::Event;
use linnet_types::AppSettings;
use serde_json::value::{RawValue, to_raw_value};
use url::Url;

/// The body: the event's own fields and `CallbackCommand`, keys sorted, values as they are.
///
/// # Errors
/// When the event's body is not a JSON object; a fault of ours.
pub(crate) fn body(event: &Event) -> Result<String, serde_json::Error> {
    let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(&event.body)?;
    fields.insert("CallbackCommand".to_owned(), to_raw_value(&event.command)?);
    serde_json::to_string(&fields)
}

/// The URL to post to, signed for `now_s` when the app wants it; a query that the app configured is kept.
///
/// # Errors
/// When the configured URL is none.
pub(crate) fn url(settings: &AppSettings, event: &Event, now_s: u64) -> Result<Url, url::ParseError> {
    let mut url = Url::parse(&settings.webhook_url)?;
    {
        let mut query = url.query_pairs_mut();
        query.append_pair("SdkAppid", &event.app.to_string());
        query.append_pair("CallbackCommand", &event.command);
        query.append_pair("contenttype", "json");
        if !event.client_ip.is_empty() {
            query.append_pair("ClientIP", &event.client_ip);
        }
        if !event.platform.is_empty() {
            query.append_pair("OptPlatform", &event.platform);
        }
        if settings.webhook_auth {
            query.append_pair("RequestTime", &now_s.to_string());
            query.append_pair("Sign", &sign(&settings.webhook_token, now_s));
        }
        query.append_pair("RequestID", &request_id(event));
    }
    Ok(url)
}

/// The same on every attempt of one event, so that an app's server can tell a repeat: a name made of its position.
pub(crate) fn request_id(event: &Event) -> String {
    name_of(&format!("{}/{}/{}", event.app, event.command, event.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            app: 1_400_000_001,
            command: "Group.CallbackAfterSendMsg".into(),
            id: "5/7".into(),
            body: r#"{"Type":"Public","MsgBody":[{"MsgContent":{"n":5.0}}],"AtRobots_Account":[]}"#.into(),
            client_ip: "::1".into(),
            platform: "RESTAPI".into(),
            ..Event::default()
        }
    }

    #[test]
    fn keys_are_sorted_and_values_kept() {
        let want = r#"{"AtRobots_Account":[],"CallbackCommand":"Group.CallbackAfterSendMsg","MsgBody":[{"MsgContent":{"n":5.0}}],"Type":"Public"}"#;
        assert_eq!(body(&event()).expect("an object"), want);
    }

    #[test]
    fn the_query_is_added_to_what_the_app_configured() {
        let mut settings = AppSettings { webhook_url: "http://localhost:9/hook?a=1".into(), ..AppSettings::default() };
        let plain = url(&settings, &event(), 5).expect("a url").to_string();
        assert!(plain.starts_with("http://localhost:9/hook?a=1&SdkAppid=1400000001&CallbackCommand=Group.CallbackAfterSendMsg&contenttype=json&ClientIP=%3A%3A1&OptPlatform=RESTAPI&RequestID="), "{plain}");
        assert!(!plain.contains("Sign"));
        settings.webhook_auth = true;
        settings.webhook_token = "t".into();
        let first = url(&settings, &event(), 5).expect("a url").to_string();
        let later = url(&settings, &event(), 6).expect("a url").to_string();
        assert!(first.contains("RequestTime=5&Sign=") && first != later, "signed for each attempt");
    }
}
