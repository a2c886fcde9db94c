//! `spec/rest-groups.md` §3.5: the newest first, down from `ReqMsgSeq`. Positions whose message is gone are shown as
//! placeholders; recalled ones only when asked for.

use linnet_proto::group::AuthorizeRequest;
use linnet_proto::messages::{HistoryReply, HistoryRequest};
use linnet_proto::msg::{Message, MessageKind, Placeholder};
use linnet_types::{GroupType, Refusal, code};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{BAD, no_topic};
use crate::call::Call;
use crate::commands::message;
use crate::reply::Reply;

const MOST: usize = 20;
/// Pages read to fill one reply when recalled messages are left out.
const READS: usize = 5;

/// `IsPlaceMsg`.
const NORMAL: u8 = 0;
const GONE: u8 = 1;
const RECALLED: u8 = 2;

/// `IsFinished`.
const CUT: u8 = 0;
const ALL: u8 = 1;
const CUT_AND_GONE: u8 = 2;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fields {
    group_id: String,
    is_finished: u8,
    rsp_msg_list: Vec<Item>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    #[serde(rename = "From_Account")]
    from_account: String,
    is_place_msg: u8,
    #[serde(skip_serializing_if = "is_zero")]
    is_system_msg: u8,
    msg_body: Box<RawValue>,
    msg_priority: u32,
    msg_random: u32,
    msg_seq: u64,
    msg_time_stamp: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    cloud_custom_data: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form serde asks for")]
fn is_zero(n: &u8) -> bool {
    *n == 0
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = &call.body;
    let (app, group_id) = (call.app_id(), body.at("GroupId").group()?);
    no_topic(body)?;
    let asked: u32 = body.at("ReqMsgNumber").number(BAD)?.need(BAD)?;
    if asked == 0 {
        return Err(Refusal::new(BAD, "ReqMsgNumber must be at least 1"));
    }
    let newest = body.at("ReqMsgSeq").number(BAD)?.or(0);
    let with_recalled = body.at("WithRecalledMsg").switch(BAD)?;
    let grant = AuthorizeRequest { app, group_id: group_id.clone(), user: String::new(), admin: true };
    let grant = call.ask(grant).await?;
    if GroupType::parse(&grant.r#type).is_some_and(GroupType::is_live) {
        return Err(Refusal::new(code::GROUP_NO_RIGHT, "live rooms have no history"));
    }
    let asked = usize::try_from(asked).unwrap_or(usize::MAX);
    let mut page = Page { want: asked.min(MOST), with_recalled, items: Vec::new(), complete: false };
    let limit = u32::try_from(page.want).expect("at most 20");
    let (conv, retention_days) = (grant.conv, grant.retention_days);
    let mut request = HistoryRequest { app, conv, to_seq: newest, limit, retention_days, ..HistoryRequest::default() };
    for _ in 0..READS {
        let reply = call.ask(request.clone()).await?;
        let lower = reply.covered_from.saturating_sub(1);
        page.take(reply);
        if page.complete || page.is_full() || lower == 0 {
            page.complete |= lower == 0;
            break;
        }
        request.to_seq = lower;
    }
    Reply::of(&Fields { group_id, is_finished: page.finished(asked), rsp_msg_list: page.items })
}

struct Page {
    want: usize,
    with_recalled: bool,
    items: Vec<Item>,
    /// The log has nothing older.
    complete: bool,
}

impl Page {
    fn is_full(&self) -> bool {
        self.items.len() >= self.want
    }

    /// Adds a page of the log, from its newest position down.
    fn take(&mut self, reply: HistoryReply) {
        let gone = reply.placeholders.iter().filter(|run| run.why != "hidden");
        let room = self.want;
        let mut items: Vec<_> = gone.flat_map(|run| placeholders(run, room)).collect();
        let shown = reply.messages.into_iter().filter(|message| self.with_recalled || !message.revoked);
        items.extend(shown.map(item));
        items.sort_by_key(|item| std::cmp::Reverse(item.msg_seq));
        let left = self.want - self.items.len();
        self.complete = reply.complete && items.len() <= left;
        items.truncate(left);
        self.items.append(&mut items);
    }

    fn finished(&self, asked: usize) -> u8 {
        let all = self.complete || (self.is_full() && asked <= MOST);
        match all {
            true => ALL,
            false if self.items.iter().all(|item| item.is_place_msg == GONE) => CUT_AND_GONE,
            false => CUT,
        }
    }
}

/// The newest `most` positions of a run.
fn placeholders(run: &Placeholder, most: usize) -> impl Iterator<Item = Item> + use<> {
    (run.from_seq.max(1)..=run.to_seq).rev().take(most).map(|msg_seq| Item {
        is_place_msg: GONE,
        msg_seq,
        ..item(Message::default())
    })
}

fn item(message: Message) -> Item {
    let none = RawValue::from_string("[]".to_owned()).expect("valid JSON");
    Item {
        is_place_msg: if message.revoked { RECALLED } else { NORMAL },
        is_system_msg: (message.kind() == MessageKind::Tip).into(),
        msg_body: if message.revoked { none } else { message::elements(&message.body) },
        msg_priority: message::priority_number(&message),
        msg_random: message.random,
        msg_seq: message.seq,
        msg_time_stamp: message.time_ms / 1000,
        from_account: message.from,
        cloud_custom_data: if message.revoked { String::new() } else { message.cloud_custom_data },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(seq: u64, revoked: bool) -> Message {
        Message { seq, revoked, from: "a".into(), body: "[1]".into(), ..Message::default() }
    }

    fn page(want: usize, with_recalled: bool) -> Page {
        Page { want, with_recalled, items: Vec::new(), complete: false }
    }

    fn seqs(page: &Page) -> Vec<(u64, u8)> {
        page.items.iter().map(|item| (item.msg_seq, item.is_place_msg)).collect()
    }

    #[test]
    fn recalled_messages_are_left_out_or_emptied() {
        let reply = || HistoryReply { messages: vec![message(3, true), message(2, false)], ..Default::default() };
        let mut without = page(5, false);
        without.take(reply());
        assert_eq!(seqs(&without), [(2, NORMAL)]);
        let mut with = page(5, true);
        with.take(reply());
        assert_eq!(seqs(&with), [(3, RECALLED), (2, NORMAL)]);
        assert_eq!(with.items[0].msg_body.get(), "[]");
    }

    #[test]
    fn what_is_gone_has_its_place_and_a_long_run_is_not_spelled_out() {
        let gone = Placeholder { from_seq: 1, to_seq: 1_000_000_000, why: "expired".into() };
        let messages = vec![message(1_000_000_001, false)];
        let mut page = page(3, false);
        page.take(HistoryReply { messages, placeholders: vec![gone], complete: true, ..Default::default() });
        assert_eq!(seqs(&page), [(1_000_000_001, NORMAL), (1_000_000_000, GONE), (999_999_999, GONE)]);
        assert!(!page.complete, "there are older places");
        assert_eq!((page.finished(3), page.finished(21)), (ALL, CUT));
    }

    #[test]
    fn a_cut_page_of_gone_messages_says_so() {
        let mut page = page(20, false);
        let gone = Placeholder { from_seq: 1, to_seq: 100, why: "expired".into() };
        page.take(HistoryReply { placeholders: vec![gone], ..Default::default() });
        assert_eq!(page.finished(50), CUT_AND_GONE);
    }
}
