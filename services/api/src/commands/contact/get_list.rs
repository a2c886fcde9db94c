//! `spec/rest-messages.md` §4.1. A cursor is the second of the last conversation shown and how many of that second were
//! shown; it holds while the list moves, because what moves becomes newer.

use linnet_proto::messages::{Conversation, SyncRequest};
use linnet_types::{ConversationKey, Refusal, code};
use serde::Serialize;

use super::{C2C, GROUP};
use crate::call::Call;
use crate::commands::accounts;
use crate::reply::Reply;

const PAGE: usize = 100;
/// Most pages of the inner list that are read, and conversations of one.
const READS: usize = 8;
const READ: u32 = 500;

/// Bits of `AssistFlags`.
const PINNED: u32 = 1;
const EMPTY: u32 = 2;
const PAGE_PINNED: u32 = 4;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fields {
    session_item: Vec<Item>,
    complete_flag: u8,
    time_stamp: u64,
    start_index: u64,
    top_time_stamp: u64,
    top_start_index: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    r#type: u32,
    #[serde(rename = "To_Account", skip_serializing_if = "Option::is_none")]
    to_account: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_id: Option<String>,
    msg_time: u64,
    top_flag: u8,
}

/// Shown up to `time_s`, and `index` of that second; nothing yet at 0, 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cursor {
    time_s: u64,
    index: u64,
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let (body, bad) = (&call.body, code::CONTACT_BAD_PARAM);
    let user = body.at("From_Account").user(code::ACCOUNT_TYPE, code::CONTACT_ACCOUNT_UNKNOWN)?.need(bad)?;
    let number = |name| body.at(name).number::<u64>(bad)?.need(bad);
    let cursor = Cursor { time_s: number("TimeStamp")?, index: number("StartIndex")? };
    let top = Cursor { time_s: number("TopTimeStamp")?, index: number("TopStartIndex")? };
    let flags: u32 = body.at("AssistFlags").number(bad)?.need(bad)?;
    accounts::must_exist(call, &user, code::CONTACT_ACCOUNT_UNKNOWN).await?;
    let mut list = conversations(call, user).await?;
    list.retain(|one| !one.deleted && (flags & EMPTY != 0 || one.last.is_some()));
    let (mut pinned, mut usual): (Vec<_>, Vec<_>) =
        list.into_iter().partition(|one| flags & PINNED != 0 && one.pinned_ms > 0);
    if flags & PAGE_PINNED == 0 && cursor != Cursor::default() {
        pinned.clear();
    }
    let pinned_at = |one: &Conversation| one.pinned_ms / 1000;
    let changed_at = |one: &Conversation| one.time_ms / 1000;
    let (pinned, top, no_more_pinned) = page(&mut pinned, top, pinned_at);
    let (usual, cursor, no_more) = page(&mut usual, cursor, changed_at);
    let items = pinned.iter().map(|one| item(one, 1)).chain(usual.iter().map(|one| item(one, 0)));
    Reply::of(&Fields {
        session_item: items.collect::<Result<_, _>>()?,
        complete_flag: (no_more && no_more_pinned).into(),
        time_stamp: cursor.time_s,
        start_index: cursor.index,
        top_time_stamp: top.time_s,
        top_start_index: top.index,
    })
}

async fn conversations(call: &Call<'_>, user: String) -> Result<Vec<Conversation>, Refusal> {
    let mut request = SyncRequest { app: call.app_id(), user, limit: READ, ..SyncRequest::default() };
    let mut list = Vec::new();
    for _ in 0..READS {
        let reply = call.ask(request.clone()).await?;
        list.extend(reply.conversations);
        if !reply.more || reply.cursor.is_empty() {
            break;
        }
        request.cursor = reply.cursor;
    }
    Ok(list)
}

/// One page after `cursor` of `list` by descending time, where it ends, and whether it was the last.
fn page(
    list: &mut Vec<Conversation>,
    cursor: Cursor,
    time_s: impl Fn(&Conversation) -> u64,
) -> (Vec<Conversation>, Cursor, bool) {
    list.sort_by(|a, b| time_s(b).cmp(&time_s(a)).then_with(|| a.key.cmp(&b.key)));
    let mut of_second = 0;
    let mut next = cursor;
    let mut shown = Vec::new();
    let mut complete = true;
    for one in list.drain(..) {
        let time = time_s(&one);
        if cursor != Cursor::default() && time >= cursor.time_s {
            of_second += u64::from(time == cursor.time_s);
            if time > cursor.time_s || of_second <= cursor.index {
                continue;
            }
        }
        if shown.len() == PAGE {
            complete = false;
            break;
        }
        next = if time == next.time_s {
            Cursor { index: next.index + 1, ..next }
        } else {
            Cursor { time_s: time, index: 1 }
        };
        shown.push(one);
    }
    (shown, next, complete)
}

fn item(one: &Conversation, top_flag: u8) -> Result<Item, Refusal> {
    let msg_time = one.time_ms / 1000;
    let bad = |_| Refusal::new(code::CONTACT_INTERNAL, "internal error");
    Ok(match one.key.parse().map_err(bad)? {
        ConversationKey::C2c(peer) => {
            Item { r#type: C2C, to_account: Some(peer.into()), group_id: None, msg_time, top_flag }
        }
        ConversationKey::Group(group) => {
            Item { r#type: GROUP, to_account: None, group_id: Some(group.into()), msg_time, top_flag }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(times: &[u64]) -> Vec<Conversation> {
        let one = |(n, time_s): (usize, &u64)| Conversation {
            key: format!("C2C:u{n:03}"),
            time_ms: time_s * 1000,
            ..Conversation::default()
        };
        times.iter().enumerate().map(one).collect()
    }

    #[test]
    fn pages_of_one_second_show_each_once() {
        let times: Vec<u64> = (0..250).map(|n| 1000 + n / 120).collect();
        let (mut cursor, mut seen) = (Cursor::default(), Vec::new());
        loop {
            let (shown, next, complete) = page(&mut list(&times), cursor, |one| one.time_ms / 1000);
            seen.extend(shown.into_iter().map(|one| one.key));
            cursor = next;
            if complete {
                break;
            }
        }
        assert_eq!(seen.len(), 250);
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 250);
    }

    #[test]
    fn an_empty_list_is_complete_and_keeps_the_cursor() {
        let cursor = Cursor { time_s: 7, index: 1 };
        let (shown, next, complete) = page(&mut Vec::new(), cursor, |one| one.time_ms);
        assert_eq!((shown.len(), next, complete), (0, cursor, true));
    }
}
