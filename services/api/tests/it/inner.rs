//! Inner calls that fail: tried again while there is time, passed on, or shown as the family's internal error.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use linnet_proto::msg::SendReply;
use linnet_proto::{group, messages};
use linnet_runtime::status::to_status;
use linnet_types::{Refusal, code};
use tonic::Status;

use crate::golden::{commands, requests};
use crate::rig::Rig;

const SEND: &str = "group_open_http_svc/send_group_msg";
const SEND_BODY: &str =
    r#"{"GroupId":"g1","Random":1,"MsgBody":[{"MsgType":"TIMTextElem","MsgContent":{"Text":"hi"}}]}"#;
const CREATE: &str = "group_open_http_svc/create_group";
const CREATE_BODY: &str = r#"{"Type":"Public","Name":"n"}"#;

/// Answers `first` so many times, then success.
fn send_fails(rig: &Rig, times: u32, first: impl Fn() -> Status + Clone + Send + Sync + 'static) -> Arc<AtomicU32> {
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    rig.fakes.on_status("Groups/Send", move |_: group::SendRequest| {
        let failed = count.fetch_add(1, Ordering::Relaxed) < times;
        std::future::ready(if failed { Err(first()) } else { Ok(SendReply { seq: 5, ..Default::default() }) })
    });
    asked
}

fn busy() -> Status {
    to_status(&Refusal::retry(code::BUSY, "moving", 200))
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_moves_is_asked_again() {
    let rig = Rig::new();
    let asked = send_fails(&rig, 3, busy);
    let reply = rig.call(SEND, SEND_BODY).await;
    assert_eq!((reply["ErrorCode"].as_u64(), reply["MsgSeq"].as_u64()), (Some(0), Some(5)));
    assert_eq!(asked.load(Ordering::Relaxed), 4);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_stays_busy_is_the_familys_internal_error_within_the_deadline() {
    let rig = Rig::new();
    let asked = send_fails(&rig, u32::MAX, busy);
    let begun = tokio::time::Instant::now();
    assert_eq!(rig.code(SEND, SEND_BODY).await, u64::from(code::GROUP_INTERNAL));
    assert!(begun.elapsed() <= Duration::from_secs(3), "{:?}", begun.elapsed());
    assert!((5..40).contains(&asked.load(Ordering::Relaxed)));
}

#[tokio::test(start_paused = true)]
async fn a_send_whose_outcome_is_unknown_is_repeated_because_it_has_a_token() {
    let rig = Rig::new();
    let asked = send_fails(&rig, 1, || Status::unavailable("cut off"));
    assert_eq!(rig.code(SEND, SEND_BODY).await, 0);
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_done_twice_is_not() {
    let rig = Rig::new();
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    rig.fakes.on_status("Groups/Create", move |_: group::CreateRequest| {
        count.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Err::<group::CreateReply, _>(Status::unavailable("cut off")))
    });
    assert_eq!(rig.code(CREATE, CREATE_BODY).await, u64::from(code::GROUP_INTERNAL));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    let count = Arc::clone(&asked);
    rig.fakes.on_status("Groups/Create", move |_: group::CreateRequest| {
        let first = count.fetch_add(1, Ordering::Relaxed) == 1;
        let made = group::CreateReply { group_id: "g".into(), r#type: "Public".into() };
        std::future::ready(if first { Err(busy()) } else { Ok(made) })
    });
    assert_eq!(rig.code(CREATE, CREATE_BODY).await, 0, "a refusal says it was not done");
}

#[tokio::test(start_paused = true)]
async fn faults_are_internal_errors_of_each_family_and_are_not_repeated() {
    let fault = || Status::internal("a bug, with a secret");
    let rig = Rig::new();
    rig.fakes
        .on_status("Groups/Info", move |_: group::InfoRequest| std::future::ready(Err::<group::InfoReply, _>(fault())));
    rig.fakes.on_status("Messages/ReadC2c", move |_: messages::ReadC2cRequest| {
        std::future::ready(Err::<messages::ReadC2cReply, _>(fault()))
    });
    let unread = r#"{"GroupId":"g1","Member_Account":"bob","UnreadMsgNum":1}"#;
    let reply = rig.call("group_open_http_svc/set_unread_msg_num", unread).await;
    assert_eq!(reply["ErrorCode"], code::GROUP_INTERNAL);
    assert!(!reply.to_string().contains("secret"));
    let read = r#"{"Report_Account":"alice","Peer_Account":"bob"}"#;
    assert_eq!(rig.code("openim/admin_set_msg_read", read).await, u64::from(code::OPENIM_INTERNAL));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_never_answers_does_not_hold_the_caller() {
    let rig = Rig::new();
    rig.fakes.on_status("Groups/Send", |_: group::SendRequest| std::future::pending::<Result<SendReply, Status>>());
    let begun = tokio::time::Instant::now();
    assert_eq!(rig.code(SEND, SEND_BODY).await, u64::from(code::GROUP_INTERNAL));
    assert!(begun.elapsed() <= Duration::from_millis(3_100), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_batch_reports_each_receiver() {
    let rig = Rig::new();
    rig.fakes.on_status("Messages/SendC2c", |ask: messages::SendC2cRequest| {
        let refused = to_status(&Refusal::new(code::C2C_BLOCKED, "blocked"));
        std::future::ready(if ask.to == "bob" { Err(refused) } else { Ok(SendReply::default()) })
    });
    let body = r#"{"To_Account":["bob","carol","nobody"],"MsgRandom":1,"MsgBody":[{"MsgType":"TIMTextElem","MsgContent":{"Text":"hi"}}]}"#;
    let request = axum::extract::Request::post(crate::rig::url("openim/batchsendmsg")).body(body.into());
    let (_, reply) = rig.send(request.expect("a request")).await;
    let reply: serde_json::Value = serde_json::from_str(&reply).expect("JSON");
    assert_eq!((reply["ActionStatus"].as_str(), reply["ErrorCode"].as_u64()), (Some("SomeError"), Some(0)));
    let want = serde_json::json!([
        {"To_Account": "bob", "ErrorCode": 20007},
        {"To_Account": "nobody", "ErrorCode": 70107},
    ]);
    assert_eq!(reply["ErrorList"], want);
}

/// With every service refusing as a test of one app says `BUSY`, no command answers with a code of the client protocol.
#[tokio::test(start_paused = true)]
async fn the_client_protocols_codes_never_reach_a_backend() {
    for command in commands() {
        let rig = Rig::new();
        rig.fakes.refuse_all(|| Refusal::new(code::BUSY, "no"));
        let reply = rig.call(command, requests(command)[0].clone()).await;
        let text = reply.to_string();
        assert!(!text.contains("20000"), "{command}: {text}");
    }
}
