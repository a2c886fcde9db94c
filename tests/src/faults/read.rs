//! The logs as they are stored, read by clients and by a backend; the webhooks an app's server got.

use std::time::Duration;

use anyhow::{Context as _, Result};
use linnet_testkit::Hook;
use serde_json::{Value, json};

use super::api::Api;
use super::person::Person;
use super::record::{Conv, Entry, Hooked, Log, Reading};

/// Positions below a run's base that are compared with what the runs before left.
const BACK: u64 = 50;
/// Reading one log.
const PATIENCE: Duration = Duration::from_secs(30);

/// The log of a conversation, as a member reads it.
///
/// # Errors
/// When it cannot be read within 30 s.
pub async fn log(reader: &Person, conv: &Conv, base: u64) -> Result<Log> {
    let from = base.saturating_sub(BACK).max(1);
    let (entries, head) = reader.history(conv, from, PATIENCE).await?;
    let mut log = Log { base, head, ..Log::default() };
    entries.into_iter().for_each(|entry| log.add(entry));
    Ok(log)
}

/// What another member reads above `base`.
///
/// # Errors
/// When it cannot be read within 30 s.
pub async fn by_member(reader: &Person, conv: &Conv, base: u64) -> Result<Reading> {
    let (entries, _) = reader.history(conv, base + 1, PATIENCE).await?;
    Ok(Reading { by: reader.name.clone(), conv: conv.clone(), entries })
}

/// What a backend reads above `base`: the same positions of a group; of a pair, as many as `count`, the newest.
///
/// # Errors
/// When it is refused.
pub async fn by_backend(api: &Api, conv: &Conv, base: u64, count: usize) -> Result<Reading> {
    let mut entries = match conv {
        Conv::Group(id) => group(api, id, base).await?,
        Conv::Pair(a, b) => pair(api, a, b, count).await?,
    };
    entries.reverse();
    Ok(Reading { by: "the backend".to_owned(), conv: conv.clone(), entries })
}

fn text_of(message: &Value) -> String {
    message["MsgBody"][0]["MsgContent"]["Text"].as_str().unwrap_or_default().to_owned()
}

fn random_of(value: &Value) -> u32 {
    value.as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
}

/// Newest first.
async fn group(api: &Api, id: &str, base: u64) -> Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut newest = None;
    loop {
        let mut body = json!({ "GroupId": id, "ReqMsgNumber": 20 });
        if let Some(newest) = newest {
            body["ReqMsgSeq"] = json!(newest);
        }
        let page = api.ok("group_open_http_svc/group_msg_get_simple", body).await?;
        let list = page["RspMsgList"].as_array().context("a list")?;
        for message in list {
            let seq = message["MsgSeq"].as_u64().context("a MsgSeq")?;
            if seq <= base {
                return Ok(entries);
            }
            entries.push(Entry {
                seq,
                from: message["From_Account"].as_str().unwrap_or_default().to_owned(),
                random: random_of(&message["MsgRandom"]),
                text: text_of(message),
                time_ms: 0,
                tip: message["IsSystemMsg"] == 1,
            });
        }
        match entries.last() {
            Some(last) if !list.is_empty() && last.seq > base + 1 => newest = Some(last.seq - 1),
            _ => return Ok(entries),
        }
    }
}

/// Newest first.
async fn pair(api: &Api, a: &str, b: &str, count: usize) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut body =
        json!({ "Operator_Account": a, "Peer_Account": b, "MaxCnt": 100, "MinTime": 0, "MaxTime": 4_000_000_000_u32 });
    while entries.len() < count {
        let page = api.ok("openim/admin_getroammsg", body.clone()).await?;
        let list = page["MsgList"].as_array().context("a list")?;
        // Inside a page messages ascend.
        entries.extend(list.iter().rev().map(|message| Entry {
            seq: 0,
            from: message["From_Account"].as_str().unwrap_or_default().to_owned(),
            random: random_of(&message["MsgRandom"]),
            text: text_of(message),
            time_ms: 0,
            tip: false,
        }));
        if page["Complete"] == 1 || list.is_empty() {
            break;
        }
        body["MaxTime"] = page["LastMsgTime"].clone();
        body["LastMsgKey"] = page["LastMsgKey"].clone();
    }
    entries.truncate(count);
    Ok(entries)
}

/// An after-webhook of a message; other events give nothing.
#[must_use]
pub fn hooked(hook: &Hook) -> Option<Hooked> {
    let body = &hook.body;
    let from = body["From_Account"].as_str()?.to_owned();
    let (conv, random, seq) = match hook.command() {
        "C2C.CallbackAfterSendMsg" => (Conv::pair(&from, body["To_Account"].as_str()?), &body["MsgRandom"], 0),
        "Group.CallbackAfterSendMsg" => {
            (Conv::Group(body["GroupId"].as_str()?.to_owned()), &body["Random"], body["MsgSeq"].as_u64().unwrap_or(0))
        }
        _ => return None,
    };
    let entry = Entry { seq, from, random: random_of(random), text: text_of(body), time_ms: 0, tip: false };
    Some(Hooked { id: hook.query.get("RequestID").cloned().unwrap_or_default(), conv, entry })
}
