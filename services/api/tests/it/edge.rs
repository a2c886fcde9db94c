//! The edge: envelope, order of checks, rates, throttle, callers who leave.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use linnet_admission::apps::App;
use linnet_api::Config;
use linnet_proto::account;
use linnet_types::{AppSettings, SdkAppId, code};

use crate::rig::{APP, NOW_S, OTHER_APP, Rig, app, sig, sig_at, url, url_as};

const CHECK: &str = "im_open_login_svc/account_check";
const CHECK_ALICE: &str = r#"{"CheckItem":[{"UserID":"alice"}]}"#;

fn post(uri: &str, body: impl Into<Body>) -> Request {
    Request::post(uri).body(body.into()).expect("a request")
}

#[tokio::test(start_paused = true)]
async fn refusals_of_the_head_have_their_codes_and_ask_no_service() {
    let rig = Rig::new();
    rig.apps.put(App { enabled: false, ..app(SdkAppId(3), AppSettings::default()) });
    rig.apps.put(App { key: String::new(), ..app(SdkAppId(4), AppSettings::default()) });
    let (good, user) = (sig(APP, "administrator"), sig(APP, "alice"));
    let expired = sig_at(APP, "administrator", NOW_S - 604_800);
    let future = sig_at(APP, "administrator", NOW_S + 901);
    let bad_mac = sig(OTHER_APP, "administrator");
    let table = [
        ("/v4/openim/sendmsg?sdkappid=1600000001&usersig=%zz".to_owned(), code::BAD_URL),
        ("/v4/openim/nope".to_owned(), code::UNKNOWN_COMMAND),
        ("/v4/openim".to_owned(), code::UNKNOWN_COMMAND),
        ("/v4/".to_owned(), code::UNKNOWN_COMMAND),
        ("/v4/OpenIM/sendmsg".to_owned(), code::UNKNOWN_COMMAND),
        ("/v4/openim/sendmsg/more".to_owned(), code::UNKNOWN_COMMAND),
        (format!("/v4/{CHECK}"), code::NO_SDKAPPID),
        (format!("/v4/{CHECK}?sdkappid="), code::NO_SDKAPPID),
        (format!("/v4/{CHECK}?sdkappid=x"), code::BAD_SDKAPPID),
        (format!("/v4/{CHECK}?sdkappid=0"), code::BAD_SDKAPPID),
        (format!("/v4/{CHECK}?sdkappid=-1"), code::BAD_SDKAPPID),
        (format!("/v4/{CHECK}?sdkappid=99999999999"), code::BAD_SDKAPPID),
        (format!("/v4/{CHECK}?sdkappid=12"), code::APP_UNKNOWN),
        (format!("/v4/{CHECK}?sdkappid=3"), code::APP_DISABLED),
        (format!("/v4/{CHECK}?sdkappid={APP}&usersig={good}"), code::NO_IDENTIFIER),
        (format!("/v4/{CHECK}?sdkappid={APP}&identifier=&usersig={good}"), code::NO_IDENTIFIER),
        (format!("/v4/{CHECK}?sdkappid={APP}&identifier=administrator"), code::SIG_EMPTY),
        (format!("/v4/{CHECK}?sdkappid={APP}&identifier=administrator&usersig=eJ"), code::SIG_UNDECODABLE),
        (format!("/v4/{CHECK}?sdkappid={APP}&identifier=alice&usersig={good}"), code::SIG_WRONG_USER),
        (format!("/v4/{CHECK}?sdkappid={OTHER_APP}&identifier=administrator&usersig={good}"), code::SIG_WRONG_APP),
        (format!("/v4/{CHECK}?sdkappid={APP}&identifier=administrator&usersig={bad_mac}"), code::SIG_WRONG_APP),
        (format!("/v4/{CHECK}?sdkappid={APP}&identifier=administrator&usersig={expired}"), code::SIG_EXPIRED),
        (format!("/v4/{CHECK}?sdkappid={APP}&identifier=administrator&usersig={future}"), code::SIG_UNDECODABLE),
        (format!("/v4/{CHECK}?sdkappid={APP}&identifier=alice&usersig={user}"), code::NOT_ADMIN),
    ];
    for (uri, want) in table {
        // Whatever the body is: the head is judged first.
        for body in ["", "{", CHECK_ALICE] {
            assert_eq!(rig.code_of(post(&uri, body)).await, u64::from(want), "{uri}");
        }
        assert!(rig.fakes.take_calls().is_empty(), "{uri}");
    }
    let no_key = sig(SdkAppId(4), "administrator");
    let uri = format!("/v4/{CHECK}?sdkappid=4&identifier=administrator&usersig={no_key}");
    assert_eq!(rig.code_of(post(&uri, "{}")).await, u64::from(code::SIG_NO_KEY));
}

#[tokio::test(start_paused = true)]
async fn another_key_is_told_from_a_good_one() {
    let rig = Rig::new();
    rig.apps.put(App { key: "another".into(), ..app(APP, AppSettings::default()) });
    assert_eq!(rig.code(CHECK, CHECK_ALICE).await, u64::from(code::SIG_WRONG_KEY));
    let until = linnet_types::UnixMillis::from_secs(NOW_S + 60);
    let previous = Some((crate::rig::KEY.to_owned(), until));
    rig.apps.put(App { key: "another".into(), previous, ..app(APP, AppSettings::default()) });
    assert_eq!(rig.code(CHECK, CHECK_ALICE).await, 0, "the key before is good until it ends");
    rig.clock.jump(Duration::from_secs(60));
    assert_eq!(rig.code(CHECK, CHECK_ALICE).await, u64::from(code::SIG_WRONG_KEY));
}

#[tokio::test(start_paused = true)]
async fn no_command_is_open_to_a_user() {
    let rig = Rig::new();
    for entry in linnet_api::catalogue() {
        let uri = url_as(entry.name, "alice");
        for body in ["{}", ""] {
            assert_eq!(rig.code_of(post(&uri, body)).await, u64::from(code::NOT_ADMIN), "{}", entry.name);
        }
    }
    assert!(rig.fakes.take_calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn method_and_content_type_do_not_matter() {
    let rig = Rig::new();
    let get = Request::get(url(CHECK)).body(Body::from(CHECK_ALICE)).expect("a request");
    assert_eq!(rig.code_of(get).await, 0);
    let empty = Request::get(url(CHECK)).body(Body::empty()).expect("a request");
    assert_eq!(rig.code_of(empty).await, u64::from(code::NOT_JSON));
    for kind in ["application/x-www-form-urlencoded", "text/plain", "application/json; charset=gbk"] {
        let request = Request::post(url(CHECK)).header("content-type", kind).body(Body::from(CHECK_ALICE));
        assert_eq!(rig.code_of(request.expect("a request")).await, 0, "{kind}");
    }
    for method in ["PUT", "DELETE", "PATCH", "HEAD", "TRACE"] {
        let request = Request::builder().method(method).uri(url(CHECK)).body(Body::from(CHECK_ALICE));
        let (parts, _) = rig.send(request.expect("a request")).await;
        assert_eq!(parts.status, 200, "{method}");
    }
    let put = Request::put(url(CHECK)).body(Body::from(CHECK_ALICE)).expect("a request");
    assert_eq!(rig.code_of(put).await, u64::from(code::UNKNOWN_COMMAND));
}

#[tokio::test(start_paused = true)]
async fn a_browser_may_ask_first() {
    let rig = Rig::new();
    let request = Request::options("/v4/openim/sendmsg").body(Body::empty()).expect("a request");
    let (parts, body) = rig.send(request).await;
    assert_eq!((parts.status.as_u16(), body.as_str()), (204, ""));
    assert_eq!(parts.headers["access-control-allow-origin"], "*");
    assert!(parts.headers["access-control-allow-methods"].to_str().expect("text").contains("POST"));
}

#[tokio::test(start_paused = true)]
async fn a_constant_random_is_no_nonce_and_each_reply_has_an_id_of_its_own() {
    let rig = Rig::new();
    let (one, two) = (rig.call(CHECK, CHECK_ALICE).await, rig.call(CHECK, CHECK_ALICE).await);
    assert_eq!((one["ErrorCode"].as_u64(), two["ErrorCode"].as_u64()), (Some(0), Some(0)));
    assert_ne!(one["RequestId"], two["RequestId"]);
}

#[tokio::test(start_paused = true)]
async fn commands_and_apps_have_rates() {
    let settings = AppSettings { command_rates: format!("{CHECK}=3"), app_rate: 5, ..AppSettings::default() };
    let rig = Rig::with(settings, Config::default());
    let mut codes = Vec::new();
    for _ in 0..8 {
        codes.push(rig.code(CHECK, CHECK_ALICE).await);
    }
    assert_eq!(codes, [0, 0, 0, 0, 0, 0, 60007, 60007]);
    assert_eq!(rig.code("openim/querystate", r#"{"To_Account":["bob"]}"#).await, 0);
    assert_eq!(rig.code("openim/querystate", r#"{"To_Account":["bob"]}"#).await, 0);
    assert_eq!(rig.code("openim/querystate", r#"{"To_Account":["bob"]}"#).await, 60011);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(rig.code(CHECK, CHECK_ALICE).await, 0);
}

#[tokio::test(start_paused = true)]
async fn get_appid_group_list_has_the_documented_rate() {
    let rig = Rig::new();
    let list = "group_open_http_svc/get_appid_group_list";
    assert_eq!([rig.code(list, "{}").await, rig.code(list, "{}").await, rig.code(list, "{}").await], [0, 0, 60007]);
}

#[tokio::test(start_paused = true)]
async fn guessing_sigs_is_slowed_down_for_that_caller_only() {
    let rig = Rig::new();
    let from = |ip: &str, uri: &str| {
        let mut request = post(uri, CHECK_ALICE);
        let address: SocketAddr = format!("{ip}:9").parse().expect("an address");
        request.extensions_mut().insert(ConnectInfo(address));
        request
    };
    let bad = format!("/v4/{CHECK}?sdkappid={APP}&identifier=administrator&usersig=eJx");
    for _ in 0..20 {
        assert_eq!(rig.code_of(from("10.0.0.1", &bad)).await, u64::from(code::SIG_UNDECODABLE));
    }
    let good = url(CHECK);
    assert_eq!(rig.code_of(from("10.0.0.1", &good)).await, u64::from(code::SIG_RETRY));
    assert_eq!(rig.code_of(from("10.0.0.2", &good)).await, 0);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(rig.code_of(from("10.0.0.1", &good)).await, 0);
}

#[tokio::test(start_paused = true)]
async fn who_holds_a_genuine_sig_is_not_taken_for_a_guesser() {
    let rig = Rig::new();
    let expired = sig_at(APP, "administrator", NOW_S - 604_800);
    let expired = format!("/v4/{CHECK}?sdkappid={APP}&identifier=administrator&usersig={expired}");
    for _ in 0..40 {
        assert_eq!(rig.code_of(post(&url_as(CHECK, "alice"), "{}")).await, u64::from(code::NOT_ADMIN));
        assert_eq!(rig.code_of(post(&expired, "{}")).await, u64::from(code::SIG_EXPIRED));
    }
    assert_eq!(rig.code(CHECK, CHECK_ALICE).await, 0);
}

#[tokio::test(start_paused = true)]
async fn the_address_of_the_caller_reaches_the_services() {
    for (trust, want) in [(false, "10.0.0.1"), (true, "203.0.113.9")] {
        let rig = Rig::with(AppSettings::default(), Config { trust_forwarded: trust, ..Config::default() });
        let mut request = post(&url("group_open_http_svc/destroy_group"), r#"{"GroupId":"g1"}"#);
        request.headers_mut().insert("x-forwarded-for", "1.2.3.4, 203.0.113.9".parse().expect("a value"));
        request.extensions_mut().insert(ConnectInfo::<SocketAddr>("10.0.0.1:9".parse().expect("an address")));
        assert_eq!(rig.code_of(request).await, 0);
        let calls = rig.fakes.take_calls();
        assert!(calls.iter().any(|call| call.contains(&format!("client_ip: \"{want}\""))), "{calls:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_kicked_administrator_needs_a_new_sig() {
    let rig = Rig::new();
    assert_eq!(rig.code(CHECK, CHECK_ALICE).await, 0);
    rig.fakes.on("Accounts/Lookup", |ask: account::LookupRequest| {
        let one = |user| account::Account { user, exists: true, kick_time_s: NOW_S, ..Default::default() };
        Ok(account::LookupReply { accounts: ask.users.into_iter().map(one).collect() })
    });
    let kick = r#"{"UserID":"administrator"}"#;
    assert_eq!(rig.code("im_open_login_svc/kick", kick).await, 0, "what is believed is two seconds old at most");
    assert_eq!(
        rig.code(CHECK, CHECK_ALICE).await,
        u64::from(code::SIG_REVOKED),
        "a kick through this node counts at once"
    );
    let later = sig_at(APP, "administrator", NOW_S + 1);
    let uri = format!("/v4/{CHECK}?sdkappid={APP}&identifier=administrator&usersig={later}");
    assert_eq!(rig.code_of(post(&uri, CHECK_ALICE)).await, 0);
}

#[tokio::test(start_paused = true)]
async fn more_calls_than_the_limit_are_shed() {
    let rig = Rig::with(AppSettings::default(), Config { max_inflight: 1, ..Config::default() });
    let (pending, slow) = futures::channel::oneshot::channel::<()>();
    let waiting = Body::from_stream(futures::stream::once(async {
        let _ = slow.await;
        Ok::<_, std::io::Error>(CHECK_ALICE)
    }));
    let first = rig.code_of(post(&url(CHECK), waiting));
    let second = async {
        let code = rig.code(CHECK, CHECK_ALICE).await;
        drop(pending);
        code
    };
    assert_eq!(futures::join!(first, second), (0, u64::from(code::OVERLOADED)));
    assert_eq!(rig.code(CHECK, CHECK_ALICE).await, 0, "and room is given back");
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_hangs_up_ends_nothing_that_began() {
    let rig = Rig::new();
    let (done, finished) = tokio::sync::watch::channel(false);
    rig.fakes.on_status("Groups/Info", move |_: linnet_proto::group::InfoRequest| async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let group = linnet_proto::group::Group { r#type: "Public".into(), ..Default::default() };
        let own = Some(linnet_proto::group::Member::default());
        Ok(linnet_proto::group::InfoReply { group: Some(group), self_: own })
    });
    rig.fakes.on("Messages/SetUnread", move |_: linnet_proto::messages::SetUnreadRequest| {
        let _ = done.send(true);
        Ok(linnet_proto::messages::SetUnreadReply {})
    });
    let body = r#"{"GroupId":"g1","Member_Account":"bob","UnreadMsgNum":1}"#;
    let call = rig.call("group_open_http_svc/set_unread_msg_num", body);
    assert!(tokio::time::timeout(Duration::from_millis(100), call).await.is_err(), "the caller leaves");
    let mut finished = finished;
    tokio::time::timeout(Duration::from_secs(2), finished.wait_for(|done| *done)).await.expect("done").expect("told");
}

#[tokio::test(start_paused = true)]
async fn commands_are_counted_by_name() {
    let rig = Rig::new();
    rig.code(CHECK, CHECK_ALICE).await;
    rig.code(CHECK, "[]").await;
    rig.code_of(post("/v4/x/y", "{}")).await;
    let count =
        |command: &str| rig.metrics.value(&format!("linnet_api_command_seconds_count{{command=\"{command}\"}}"));
    assert_eq!((count(CHECK), count("none")), (Some(2.0), Some(1.0)));
    let refused = format!("linnet_api_refused_total{{command=\"{CHECK}\"}}");
    assert_eq!(rig.metrics.value(&refused), Some(1.0));
}
