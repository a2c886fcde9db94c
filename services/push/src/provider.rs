//! Who delivers: an app's own HTTP provider; vendors' own services come behind the same trait.

use std::time::Duration;

use async_trait::async_trait;
use linnet_admission::apps::App;
use linnet_outbound::{Answered, Outbound, Post, Reason, body_signature, sign};
use linnet_proto::push::{Batch, Device, Notification};
use linnet_types::UnixMillis;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use url::Url;

/// Longest answer read.
const ANSWER_BYTES: usize = 256 * 1024;

/// Delivers batches for one kind of provider.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// Hands over a batch once. A repeat carries the same `request_id`.
    ///
    /// # Errors
    /// [`Fault`]: the batch is tried again until its notifications are too old.
    async fn send(&self, app: &App, batch: &Batch, now: UnixMillis) -> Result<Taken, Fault>;
}

/// A provider took a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Tokens that will never work again.
    pub invalid_tokens: Vec<String>,
}

/// Why a provider did not take a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The label in metrics and dead letters.
    pub reason: Reason,
    /// When it wants to be asked again.
    pub retry_after: Option<Duration>,
}

impl From<Reason> for Fault {
    fn from(reason: Reason) -> Self {
        Self { reason, retry_after: None }
    }
}

/// The app's own server (`docs/push.md`).
pub(crate) struct Http {
    outbound: Outbound,
    allow_private: bool,
}

impl Http {
    /// `allow_private`: every app may name private addresses (one machine, for trying out).
    pub(crate) fn new(allow_private: bool) -> Result<Self, reqwest::Error> {
        Ok(Self { outbound: Outbound::new()?, allow_private })
    }
}

#[async_trait]
impl Provider for Http {
    async fn send(&self, app: &App, batch: &Batch, now: UnixMillis) -> Result<Taken, Fault> {
        let settings = &app.settings;
        let body = body(app.id.0, batch, now);
        let signed = !settings.push_key.is_empty();
        let post = Post {
            url: url(app, &batch.request_id, now).ok_or(Reason::Dns)?,
            signature: signed.then(|| body_signature(&settings.push_key, now.secs(), &body)),
            body,
            private: self.allow_private || settings.push_allow_private,
            timeout: Duration::from_millis(settings.push_timeout_ms.into()),
            answer_bytes: ANSWER_BYTES,
        };
        let mut answered = Answered::default();
        let sent = self.outbound.post(post, &mut answered).await;
        let retry_after = answered.retry_after_s.map(Duration::from_secs);
        sent.map_err(|reason| Fault { reason, retry_after })?;
        read(&answered.body)
    }
}

fn url(app: &App, request_id: &str, now: UnixMillis) -> Option<Url> {
    let mut url = Url::parse(&app.settings.push_url).ok()?;
    {
        let mut query = url.query_pairs_mut();
        query.append_pair("SdkAppid", &app.id.0.to_string());
        if !app.settings.push_key.is_empty() {
            query.append_pair("RequestTime", &now.secs().to_string());
            query.append_pair("Sign", &sign(&app.settings.push_key, now.secs()));
        }
        query.append_pair("RequestID", request_id);
    }
    Some(url)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    error_code: i64,
    #[serde(default)]
    invalid_tokens: Option<Vec<String>>,
}

fn read(body: &[u8]) -> Result<Taken, Fault> {
    let answer: Answer = serde_json::from_slice(body).map_err(|_| Reason::BadBody)?;
    if answer.error_code != 0 {
        return Err(Reason::HttpStatus.into());
    }
    Ok(Taken { invalid_tokens: answer.invalid_tokens.unwrap_or_default() })
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Body<'a> {
    request_id: &'a str,
    sdk_app_id: u32,
    time: u64,
    notifications: Vec<Shown<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown<'a> {
    notification_id: &'a str,
    kind: &'a str,
    conversation_type: &'a str,
    #[serde(rename = "From_Account")]
    from_account: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    sender_nick: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    group_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    group_name: &'a str,
    count: u32,
    from_seq: u64,
    seq: u64,
    msg_time: u64,
    msg_random: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    msg_key: &'a str,
    title: &'a str,
    desc: &'a str,
    ext: &'a str,
    expire_time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    offline_push_info: Option<Box<RawValue>>,
    receivers: Vec<To<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct To<'a> {
    #[serde(rename = "To_Account")]
    to_account: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    badge: Option<u32>,
    devices: Vec<Where<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Where<'a> {
    instance: &'a str,
    platform: &'a str,
    vendor: &'a str,
    push_platform: u8,
    token: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    business_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    language: &'a str,
}

/// The body of a request.
fn body(app: u32, batch: &Batch, now: UnixMillis) -> String {
    let body = Body {
        request_id: &batch.request_id,
        sdk_app_id: app,
        time: now.secs(),
        notifications: batch.notifications.iter().map(shown).collect(),
    };
    serde_json::to_string(&body).expect("plain data becomes JSON")
}

fn shown(notification: &Notification) -> Shown<'_> {
    let info = std::str::from_utf8(&notification.offline_push).ok().filter(|text| !text.is_empty());
    Shown {
        notification_id: &notification.id,
        kind: &notification.kind,
        conversation_type: &notification.conv_type,
        from_account: &notification.from,
        sender_nick: &notification.nick,
        group_id: &notification.group_id,
        group_name: &notification.group_name,
        count: notification.count,
        from_seq: notification.from_seq,
        seq: notification.seq,
        msg_time: UnixMillis(notification.time_ms).secs(),
        msg_random: notification.random,
        msg_key: &notification.msg_key,
        title: &notification.title,
        desc: &notification.text,
        ext: &notification.ext,
        expire_time: UnixMillis(notification.expire_ms).secs(),
        offline_push_info: info.and_then(|text| RawValue::from_string(text.to_owned()).ok()),
        receivers: notification
            .receivers
            .iter()
            .map(|to| To { to_account: &to.user, badge: to.badge, devices: to.devices.iter().map(place).collect() })
            .collect(),
    }
}

fn place(device: &Device) -> Where<'_> {
    Where {
        instance: &device.instance,
        platform: &device.platform,
        vendor: &device.vendor,
        push_platform: number(&device.vendor),
        token: &device.token,
        business_id: &device.business_id,
        language: &device.language,
    }
}

/// The number of a vendor (`spec/webhooks.md` §8); 0 = none of those.
fn number(vendor: &str) -> u8 {
    match vendor {
        "apns" => 1,
        "xiaomi" => 2,
        "huawei" => 3,
        "fcm" => 4,
        "meizu" => 5,
        "oppo" => 6,
        "vivo" => 7,
        "honor" => 8,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use linnet_proto::push::Receiver;
    use linnet_types::{AppSettings, SdkAppId};
    use serde_json::{Value, json};

    use super::*;

    fn batch() -> Batch {
        let device = Device { instance: "i".into(), vendor: "fcm".into(), token: "t".into(), ..Device::default() };
        let receiver = Receiver { user: "bob".into(), badge: Some(3), devices: vec![device] };
        let notification = Notification {
            id: "n".into(),
            conv_type: "C2C".into(),
            from: "alice".into(),
            kind: "message".into(),
            count: 1,
            seq: 7,
            time_ms: 1_700_000_000_500,
            text: "hi".into(),
            offline_push: r#"{"Ext":"{}","Big":12345678901234567890}"#.into(),
            receivers: vec![receiver],
            ..Notification::default()
        };
        Batch { request_id: "r".into(), notifications: vec![notification] }
    }

    #[test]
    fn a_body_carries_the_settings_as_they_came() {
        let text = body(5, &batch(), UnixMillis(1_700_000_001_000));
        assert!(text.contains(r#""OfflinePushInfo":{"Ext":"{}","Big":12345678901234567890}"#), "{text}");
        let value: Value = serde_json::from_str(&text).expect("JSON");
        let shown = &value["Notifications"][0];
        assert_eq!((&value["RequestId"], &value["SdkAppId"]), (&json!("r"), &json!(5)));
        assert_eq!((&shown["Desc"], &shown["MsgTime"]), (&json!("hi"), &json!(1_700_000_000)));
        let receivers = json!([{ "To_Account": "bob", "Badge": 3, "Devices": [
            { "Instance": "i", "Platform": "", "Vendor": "fcm", "PushPlatform": 4, "Token": "t" }] }]);
        assert_eq!(shown["Receivers"], receivers);
        assert!(shown.get("GroupId").is_none());
    }

    #[test]
    fn an_answer_without_a_code_is_none() {
        let taken = |tokens: &[&str]| Ok(Taken { invalid_tokens: tokens.iter().map(|t| (*t).to_owned()).collect() });
        assert_eq!(read(br#"{"ErrorCode":0}"#), taken(&[]));
        assert_eq!(read(br#"{"ActionStatus":"OK","ErrorCode":0,"InvalidTokens":["a"]}"#), taken(&["a"]));
        assert_eq!(read(b"{}"), Err(Reason::BadBody.into()));
        assert_eq!(read(br#"{"ErrorCode":7}"#), Err(Reason::HttpStatus.into()));
    }

    #[test]
    fn a_url_is_signed_only_with_a_key() {
        let settings = AppSettings { push_url: "https://push.example/x?a=1".into(), ..AppSettings::default() };
        let mut app =
            App { id: SdkAppId(5), key: String::new(), previous: None, admins: Vec::new(), settings, enabled: true };
        let plain = url(&app, "r", UnixMillis(5_000)).expect("a url").to_string();
        assert_eq!(plain, "https://push.example/x?a=1&SdkAppid=5&RequestID=r");
        app.settings.push_key = "k".into();
        let signed = url(&app, "r", UnixMillis(5_000)).expect("a url").to_string();
        assert!(signed.contains(&format!("RequestTime=5&Sign={}", sign("k", 5))), "{signed}");
    }
}
