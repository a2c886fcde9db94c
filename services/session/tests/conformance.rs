//! What every directory must do. Run on each implementation: `suite!` per line at the end.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use linnet_local::servers;
use linnet_runtime::{Clock, Health, Metrics, Rng, Tasks};
use linnet_session::directory::{
    Change, Config, DEAD_AFTER_MS, Directory, End, Kit, Memory, PUSH_ONLINE_MS, Policy, Redis, Session, State, View,
};
use linnet_types::{GroupId, NodeId, Platform, SdkAppId, UnixMillis, UserId};

const APP: SdkAppId = SdkAppId(1);
const NOW: u64 = 1_700_000_000_000;
const EACH: Policy = Policy { mode: 4, web_instances: 1 };

fn alice() -> UserId {
    UserId::trusted("alice")
}

/// A directory of its own on a real server.
async fn redis() -> Redis {
    let server = servers::redis().await.unwrap();
    let config = Config {
        backend: "redis".to_owned(),
        urls: server.addresses().iter().map(|address| format!("redis://{address}")).collect(),
        ..Config::default()
    };
    let (metrics, rng) = (Metrics::new(), Rng::system());
    let cluster = format!("conformance-{}", rng.token(8));
    let tasks = Tasks::new(&metrics);
    let kit = Kit { clock: Clock::system(), rng, tasks, metrics, check: Health::new().check("directory") };
    Redis::open(&config, &cluster, kit).await.unwrap().with_callers_time()
}

fn view_at(now: u64) -> View {
    let gateways = ["g1", "g2"].map(|gateway| (NodeId::trusted(gateway), 1));
    View { now: UnixMillis(now), gateways: gateways.into() }
}

fn session(platform: Platform, connection: &str, at: u64) -> Session {
    let (gateway, _) = connection.split_once('/').unwrap();
    Session {
        app: APP,
        user: alice(),
        platform,
        instance: format!("i-{connection}"),
        gateway: NodeId::trusted(gateway),
        incarnation: 1,
        connection: connection.to_owned(),
        signed_in: UnixMillis(NOW + at),
        ip: "192.0.2.1".to_owned(),
    }
}

fn connections(sessions: &[Session]) -> Vec<&str> {
    sessions.iter().map(|session| session.connection.as_str()).collect()
}

async fn sign_in(
    directory: &dyn Directory,
    platform: Platform,
    connection: &str,
    at: u64,
    policy: Policy,
) -> Vec<String> {
    let outcome = directory.sign_in(session(platform, connection, at), policy, &view_at(NOW + at)).await.unwrap();
    outcome.kicked.into_iter().map(|session| session.connection).collect()
}

async fn places(directory: &dyn Directory, at: u64) -> (Vec<String>, u64) {
    let placed = directory.places(APP, &[alice()], &view_at(NOW + at)).await.unwrap().remove(0);
    (placed.gateways.into_iter().map(String::from).collect(), placed.rev)
}

async fn states(directory: &dyn Directory, at: u64) -> Vec<(Platform, State)> {
    directory.states(APP, &[alice()], &view_at(NOW + at)).await.unwrap().remove(0)
}

async fn one_session_per_platform_and_the_newest_wins(directory: Arc<dyn Directory>) {
    let directory = &*directory;
    assert!(sign_in(directory, Platform::Android, "g1/1", 1, EACH).await.is_empty());
    assert!(sign_in(directory, Platform::IPad, "g1/2", 2, EACH).await.is_empty());
    assert!(sign_in(directory, Platform::Web, "g1/3", 3, EACH).await.is_empty());
    assert_eq!(sign_in(directory, Platform::Android, "g2/1", 4, EACH).await, ["g1/1"]);
    let list = directory.list(APP, &alice(), &view_at(NOW + 5)).await.unwrap();
    assert_eq!(connections(&list), ["g1/2", "g1/3", "g2/1"]);
    assert_eq!(directory.total().await.unwrap(), 3);
}

async fn modes_decide_who_goes(directory: Arc<dyn Directory>) {
    let directory = &*directory;
    let mode = |mode| Policy { mode, web_instances: 2 };
    sign_in(directory, Platform::Android, "g1/1", 1, mode(3)).await;
    sign_in(directory, Platform::Windows, "g1/2", 2, mode(3)).await;
    sign_in(directory, Platform::Web, "g1/3", 3, mode(3)).await;
    assert!(sign_in(directory, Platform::Web, "g1/4", 4, mode(3)).await.is_empty(), "two Web sessions are allowed");
    assert_eq!(sign_in(directory, Platform::Web, "g1/5", 5, mode(3)).await, ["g1/3"]);
    assert_eq!(sign_in(directory, Platform::IPhone, "g1/6", 6, mode(3)).await, ["g1/1"], "one phone");
    assert_eq!(sign_in(directory, Platform::Mac, "g1/7", 7, mode(2)).await, ["g1/2", "g1/6"], "phone or desktop");
    let mut all = sign_in(directory, Platform::Linux, "g1/8", 8, mode(1)).await;
    all.sort();
    assert_eq!(all, ["g1/4", "g1/5", "g1/7"], "one device");
}

async fn the_same_instance_replaces_its_connection(directory: Arc<dyn Directory>) {
    let first = session(Platform::Web, "g1/1", 1);
    directory.sign_in(first.clone(), EACH, &view_at(NOW + 1)).await.unwrap();
    let again = Session { instance: first.instance.clone(), ..session(Platform::Web, "g2/1", 2) };
    let outcome = directory.sign_in(again.clone(), EACH, &view_at(NOW + 2)).await.unwrap();
    assert_eq!((connections(&outcome.replaced), outcome.kicked), (vec!["g1/1"], Vec::new()));
    let repeated = directory.sign_in(again, EACH, &view_at(NOW + 3)).await.unwrap();
    assert!(repeated.repeated && repeated.replaced.is_empty() && repeated.change.is_none());
    let ended = directory.end(APP, &alice(), "g1/1", End::Lost, &view_at(NOW + 4)).await.unwrap();
    assert_eq!(ended, None, "the end of a replaced connection is no news");
}

async fn places_change_with_a_rising_rev(directory: Arc<dyn Directory>) {
    let at = |at| view_at(NOW + at);
    let change = |outcome: Option<Change>| outcome.map(|change| (change.placed.gateways.len(), change.placed.rev));
    let one = directory.sign_in(session(Platform::Android, "g1/1", 1), EACH, &at(1)).await.unwrap().change;
    let two = directory.sign_in(session(Platform::Web, "g1/2", 1), EACH, &at(1)).await.unwrap().change;
    let three = directory.sign_in(session(Platform::Mac, "g2/1", 1), EACH, &at(1)).await.unwrap().change;
    let (one, three) = (change(one).unwrap(), change(three).unwrap());
    assert_eq!((one.0, two, three.0), (1, None, 2), "no news when the gateway is the same");
    assert!(one.1 < three.1);
    assert_eq!(places(&*directory, 2).await, (vec!["g1".to_owned(), "g2".to_owned()], three.1));
    let end = directory.end(APP, &alice(), "g2/1", End::Out, &at(3)).await.unwrap().unwrap();
    let gone = change(end.change).unwrap();
    assert!(gone.0 == 1 && gone.1 > three.1);
    let nobody = directory.places(APP, &[UserId::trusted("nobody")], &at(3)).await.unwrap();
    assert_eq!(nobody, [linnet_session::directory::Placed::default()]);
}

async fn a_lost_phone_is_push_online_for_seven_days(directory: Arc<dyn Directory>) {
    let directory = &*directory;
    sign_in(directory, Platform::Android, "g1/1", 1, EACH).await;
    sign_in(directory, Platform::Web, "g1/2", 1, EACH).await;
    assert_eq!(states(directory, 2).await, [(Platform::Android, State::Online), (Platform::Web, State::Online)]);
    directory.end(APP, &alice(), "g1/1", End::Lost, &view_at(NOW + 10)).await.unwrap();
    directory.end(APP, &alice(), "g1/2", End::Lost, &view_at(NOW + 10)).await.unwrap();
    assert_eq!(states(directory, 11).await, [(Platform::Android, State::PushOnline)]);
    assert_eq!(states(directory, 10 + PUSH_ONLINE_MS).await, []);
    sign_in(directory, Platform::Android, "g1/3", 20, EACH).await;
    directory.end(APP, &alice(), "g1/3", End::Out, &view_at(NOW + 30)).await.unwrap();
    assert_eq!(states(directory, 31).await, [], "who signs out wants no push");
}

async fn a_kick_ends_everything_of_before(directory: Arc<dyn Directory>) {
    let directory = &*directory;
    sign_in(directory, Platform::Android, "g1/1", 1, EACH).await;
    sign_in(directory, Platform::Web, "g2/1", 1, EACH).await;
    let (closed, change) = directory.kick(APP, &alice(), &view_at(NOW + 5)).await.unwrap();
    assert_eq!(connections(&closed), ["g1/1", "g2/1"]);
    assert!(change.unwrap().placed.gateways.is_empty());
    assert_eq!(states(directory, 6).await, []);
    let kept = vec![(session(Platform::Android, "g1/1", 1), EACH), (session(Platform::Mac, "g1/9", 4), EACH)];
    let refreshed = directory.refresh(kept, &view_at(NOW + 7)).await.unwrap();
    assert_eq!(refreshed.stale, ["g1/1", "g1/9"], "a gateway that missed the kick is told");
    assert!(sign_in(directory, Platform::Android, "g1/10", 8, EACH).await.is_empty());
    assert_eq!(places(directory, 9).await.0, ["g1"]);
}

async fn refresh_keeps_alive_and_finds_lost_kicks(directory: Arc<dyn Directory>) {
    let directory = &*directory;
    sign_in(directory, Platform::Web, "g1/1", 1, EACH).await;
    sign_in(directory, Platform::Web, "g2/1", 2, EACH).await;
    let both = vec![(session(Platform::Web, "g1/1", 1), EACH), (session(Platform::Web, "g2/1", 2), EACH)];
    let refreshed = directory.refresh(both, &view_at(NOW + 30_000)).await.unwrap();
    assert_eq!(refreshed.stale, ["g1/1"]);
    assert_eq!(places(directory, DEAD_AFTER_MS + 10_000).await.0, ["g2"], "refreshed at 30 s");
    assert_eq!(places(directory, DEAD_AFTER_MS + 31_000).await.0, Vec::<String>::new());
}

async fn what_was_lost_is_rebuilt_and_the_newest_wins(directory: Arc<dyn Directory>) {
    let older = vec![(session(Platform::Web, "g1/1", 1), EACH)];
    let newer = vec![(session(Platform::Web, "g2/1", 2), EACH)];
    let one = directory.refresh(older.clone(), &view_at(NOW + 10)).await.unwrap();
    assert_eq!((one.stale.len(), one.changes.len()), (0, 1));
    let two = directory.refresh(newer, &view_at(NOW + 11)).await.unwrap();
    assert_eq!((connections(&two.kicked), two.stale.len()), (vec!["g1/1"], 0));
    let three = directory.refresh(older, &view_at(NOW + 12)).await.unwrap();
    assert_eq!(three.stale, ["g1/1"]);
    assert_eq!(places(&*directory, 13).await.0, ["g2"]);
}

async fn entries_of_dead_gateways_do_not_count(directory: Arc<dyn Directory>) {
    let directory = &*directory;
    sign_in(directory, Platform::IPhone, "g1/1", 1, EACH).await;
    sign_in(directory, Platform::Web, "g2/1", 1, EACH).await;
    let mut left = view_at(NOW + 2);
    left.gateways.remove(&NodeId::trusted("g1"));
    let both = [NodeId::trusted("g1"), NodeId::trusted("g2")];
    assert_eq!(directory.places(APP, &[alice()], &left).await.unwrap()[0].gateways, both, "it may only be cut off");
    let lost = directory.states(APP, &[alice()], &left).await.unwrap().remove(0);
    assert_eq!(lost, [(Platform::IPhone, State::PushOnline), (Platform::Web, State::Online)]);
    let outcome = directory.sign_in(session(Platform::IPhone, "g2/2", 3), EACH, &left).await.unwrap();
    assert!(outcome.kicked.is_empty(), "nobody is told that he pushed out a dead session");
    let mut reborn = view_at(NOW + 4);
    reborn.gateways.insert(NodeId::trusted("g2"), 2);
    assert!(directory.places(APP, &[alice()], &reborn).await.unwrap()[0].gateways.is_empty(), "an earlier life");
}

async fn silent_sessions_expire_once(directory: Arc<dyn Directory>) {
    sign_in(&*directory, Platform::Android, "g1/1", 0, EACH).await;
    let mut ended = Vec::new();
    for second in 0..300 {
        let expired = directory.expire(&view_at(NOW + second * 1000)).await.unwrap();
        if !expired.sessions.is_empty() {
            assert!(second * 1000 > DEAD_AFTER_MS, "alive until then");
            assert_eq!(expired.changes.len(), 1);
            ended.extend(expired.sessions);
        }
    }
    assert_eq!(connections(&ended), ["g1/1"]);
    assert_eq!(directory.total().await.unwrap(), 0);
    assert_eq!(states(&*directory, 300_000).await, [(Platform::Android, State::PushOnline)]);
}

async fn web_users_are_in_one_room(directory: Arc<dyn Directory>) {
    let two = Policy { mode: 4, web_instances: 2 };
    sign_in(&*directory, Platform::Web, "g1/1", 1, two).await;
    sign_in(&*directory, Platform::Web, "g2/1", 2, two).await;
    sign_in(&*directory, Platform::Android, "g1/2", 3, two).await;
    let enter = |connection: &'static str, room: Option<&'static str>| {
        let directory = Arc::clone(&directory);
        async move {
            let room = room.map(GroupId::trusted);
            let left = directory.enter_room(APP, &alice(), connection, room, &view_at(NOW + 10)).await.unwrap();
            left.into_iter().map(|place| format!("{} {}", place.group, place.connection)).collect::<Vec<_>>()
        }
    };
    assert!(enter("g1/1", Some("a")).await.is_empty());
    assert!(enter("g2/1", Some("a")).await.is_empty(), "the same room on two devices");
    assert!(enter("g1/2", Some("b")).await.is_empty(), "a phone is in as many rooms as it likes");
    assert_eq!(enter("g2/1", Some("b")).await, ["a g1/1", "a g2/1"]);
    assert!(enter("g2/1", None).await.is_empty());
    assert!(enter("g1/1", Some("c")).await.is_empty(), "none was left");
    directory.end(APP, &alice(), "g1/1", End::Lost, &view_at(NOW + 11)).await.unwrap();
    assert!(enter("g2/1", Some("d")).await.is_empty(), "a closed connection is in no room");
}

macro_rules! suite {
    ($module:ident, $directory:expr; $($case:ident)*) => {
        mod $module {
            $(#[tokio::test]
            async fn $case() {
                super::$case(std::sync::Arc::new($directory)).await;
            })*
        }
    };
}

macro_rules! suites {
    ($($module:ident = $directory:expr;)*) => {
        $(suite! {
            $module, $directory;
            one_session_per_platform_and_the_newest_wins
            modes_decide_who_goes
            the_same_instance_replaces_its_connection
            places_change_with_a_rising_rev
            a_lost_phone_is_push_online_for_seven_days
            a_kick_ends_everything_of_before
            refresh_keeps_alive_and_finds_lost_kicks
            what_was_lost_is_rebuilt_and_the_newest_wins
            entries_of_dead_gateways_do_not_count
            silent_sessions_expire_once
            web_users_are_in_one_room
        })*
    };
}

suites! {
    memory = super::Memory::default();
    redis = super::redis().await;
}
