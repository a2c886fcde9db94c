use super::*;

fn message() -> Message {
    Message {
        seq: 9,
        from: "alice".into(),
        random: 22,
        msg_seq: 11,
        time_ms: 1_760_000_000_123,
        body: Bytes::from_static(
            br#"[{"MsgType":"TIMCustomElem","MsgContent":{"z":5.0,"a":12345678901234567890123}}]"#,
        ),
        origin_platform: "Web".into(),
        origin_ip: "192.0.2.1".into(),
        ..Message::default()
    }
}

fn text(bytes: Bytes) -> String {
    String::from_utf8(bytes.to_vec()).expect("JSON is UTF-8")
}

#[test]
fn c2c_after_has_sorted_keys_and_elements_byte_for_byte() {
    let body = text(c2c_after(&message(), "bob", 0, "send msg succeed", Some(3)));
    assert_eq!(
        body,
        concat!(
            r#"{"ErrorInfo":"send msg succeed","EventTime":1760000000123,"From_Account":"alice","MsgBody":"#,
            r#"[{"MsgType":"TIMCustomElem","MsgContent":{"z":5.0,"a":12345678901234567890123}}],"#,
            r#""MsgKey":"11_22_1760000000","MsgRandom":22,"MsgSeq":11,"MsgTime":1760000000,"OnlineOnlyFlag":0,"#,
            r#""SendMsgResult":0,"To_Account":"bob","UnreadMsgNum":3}"#
        )
    );
}

#[test]
fn a_failed_send_has_its_code_and_no_unread_count() {
    let body = text(c2c_after(&message(), "bob", 20007, "blocked", None));
    assert!(body.contains(r#""SendMsgResult":20007"#) && body.contains(r#""UnreadMsgNum":-1"#), "{body}");
}

#[test]
fn group_after_names_group_operator_and_mentions() {
    let message = Message { mentions: vec![AT_ALL.into(), "bob".into()], ..message() };
    let body = text(group_after(&message, "g", "Public"));
    assert!(body.contains(r#""GroupAtInfo":[{"GroupAtAllFlag":1},{"GroupAtAllFlag":0,"GroupAt_Account":"bob"}]"#));
    assert!(body.contains(r#""MsgSeq":9"#) && body.contains(r#""Operator_Account":"alice""#), "{body}");
    assert!(body.contains(r#""MsgPriority":"Normal""#) && body.contains(r#""Type":"Public""#), "{body}");
}

#[test]
fn an_unreadable_body_does_not_stop_the_event() {
    let body = text(group_after(&Message { body: Bytes::from_static(b"[{"), ..message() }, "g", "Public"));
    assert!(body.contains(r#""MsgBody":[]"#), "{body}");
}

#[test]
fn events_of_a_message_are_told_apart_by_position_and_command() {
    let event = stored(7, 5, C2C_AFTER, &message()).event(Bytes::new());
    assert_eq!((event.key.as_str(), event.id.as_str()), ("c5", "c5-9-C2C.CallbackAfterSendMsg"));
    assert_eq!((event.platform.as_str(), event.client_ip.as_str()), ("Web", "192.0.2.1"));
}
