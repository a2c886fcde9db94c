use linnet_store::logs::{Revision, Revoke};
use linnet_types::UnixMillis;
use proptest::prelude::*;

use super::*;

fn message() -> impl Strategy<Value = Message> {
    let text = "[ -~]{0,20}";
    let fields = (text, any::<u32>(), any::<u32>(), any::<bool>(), 0..4_i32, 0..4_i32, any::<bool>(), text);
    fields.prop_map(|(from, random, msg_seq, msg_seq_filled, priority, visibility, no_unread, data)| Message {
        from,
        random,
        msg_seq,
        msg_seq_filled,
        priority,
        visibility,
        no_unread,
        cloud_custom_data: data,
        kind: MessageKind::Chat.into(),
        visible_to: vec!["bob".into()],
        body: Bytes::from_static(br#"[{"MsgType":"TIMTextElem","MsgContent":{"Text":"x"}}]"#),
        content_hash: random ^ 7,
        ..Message::default()
    })
}

/// The row as the log gives it back.
fn stored(draft: &Draft, at: &Appended) -> Stored {
    let entry = draft.entry();
    let head = MessageHead {
        sender: entry.sender.as_str().to_owned(),
        random: entry.random,
        msg_seq: entry.msg_seq,
        msg_seq_filled: entry.msg_seq_filled,
        content_hash: entry.content_hash,
        time_ms: at.time.0,
        flags: entry.flags,
        ord: at.ord,
        countable: entry.countable,
        size: 0,
        visibility: entry.visibility,
        kind: entry.kind.into(),
        priority: entry.priority,
    };
    Stored { seq: at.seq, head, body: entry.body, revision: None }
}

const AT: Appended = Appended { seq: Seq(5), ord: 3, time: UnixMillis(1_760_000_000_123) };

proptest! {
    #[test]
    fn what_is_read_back_is_what_was_shown_when_it_was_stored(message in message(), failed in 0..2_u32) {
        let draft = Draft { failed, ..Draft::c2c(message, &UserId::trusted("bob")) };
        prop_assert_eq!(Row::read(stored(&draft, &AT)), draft.row(&AT));
    }

    #[test]
    fn a_recalled_message_keeps_who_may_see_that_it_was_there(message in message()) {
        let draft = Draft::c2c(message, &UserId::trusted("bob"));
        let revoke = Revoke { by: "alice".into(), reason: "typo".into(), time_ms: 9 };
        let revision = Revision { version: 1, revoke: Some(revoke), ..Revision::default() };
        let gone = Stored { body: Bytes::new(), revision: Some(revision), ..stored(&draft, &AT) };
        let (row, before) = (Row::read(gone), draft.row(&AT));
        prop_assert!(row.message.revoked && row.message.revoker == "alice" && row.message.body == "[]");
        prop_assert_eq!(row.message.visibility, before.message.visibility);
        prop_assert_eq!((row.message.msg_seq, row.message.random), (before.message.msg_seq, before.message.random));
        prop_assert_eq!((row.countable, row.message.priority), (before.countable, before.message.priority));
    }

    #[test]
    fn junk_in_a_body_is_read_as_a_message_without_content(junk in proptest::collection::vec(any::<u8>(), 0..200)) {
        let draft = Draft::c2c(Message { from: "alice".into(), ..Message::default() }, &UserId::trusted("bob"));
        let row = Row::read(Stored { body: junk.into(), ..stored(&draft, &AT) });
        prop_assert_eq!((row.message.seq, row.message.ord), (5, 3));
    }

    #[test]
    fn recovery_finds_the_token_a_message_was_admitted_under(message in message()) {
        let draft = Draft::c2c(message.clone(), &UserId::trusted("bob"));
        let found = token(ConvId(1), &stored(&draft, &AT).head);
        prop_assert_eq!(found, Token {
            conv: ConvId(1),
            from: UserId::trusted(message.from.as_str()),
            msg_seq: (!message.msg_seq_filled).then_some(message.msg_seq),
            random: message.random,
            hash: message.content_hash,
        });
    }
}
