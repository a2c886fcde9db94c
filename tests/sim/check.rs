//! What must hold at the end of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use linnet_client::proto::Message as Shown;
use linnet_cluster::{RouteKey, Rpc, Service};
use linnet_proto::group::groups_client::GroupsClient;
use linnet_proto::group::{InfoRequest, MembersRequest};
use linnet_proto::messages::HistoryRequest;
use linnet_proto::messages::messages_client::MessagesClient;
use linnet_proto::msg::{Message, MessageKind, Origin};
use linnet_types::{GroupId, SdkAppId, UserId};

use crate::person::{Fate, Person, Told};
use crate::struck::Struck;
use crate::traffic::{Group, Seen, Traffic};
use crate::world::{APP, World};

/// Time in which everybody must have everything after the last send.
const WITHIN: Duration = Duration::from_secs(5);

/// A log as it is stored, oldest first.
type Log = Vec<Message>;

/// Checks everything; gives what struck.
pub(crate) async fn holds(world: &mut World, traffic: &Traffic, seen: Seen) -> Struck {
    tokio::time::sleep(WITHIN).await;
    // What was shown by now counts; what follows is reading.
    let screens: Vec<BTreeMap<String, Vec<Shown>>> =
        traffic.people.iter().map(|person| person.screen.lock().shown.clone()).collect();
    for person in &traffic.people {
        assert_eq!(person.screen.lock().ended, None, "{}", person.name);
    }
    let reader = Reader { world };
    let mut logs = BTreeMap::new();
    for (one, other) in &traffic.pairs {
        let (one, other) = (&traffic.people[*one], &traffic.people[*other]);
        let log = reader.pair(&one.name, &other.name).await;
        for (from, to) in [(one, other), (other, one)] {
            logs.insert((from.name.clone(), format!("C2C:{}", to.name)), log.clone());
        }
    }
    for group in &traffic.groups {
        let log = reader.group(group).await;
        for person in &traffic.people {
            logs.insert((person.name.clone(), group.conv()), log.clone());
        }
    }
    let mut struck = Struck::default();
    logs_are_whole(&logs);
    for sends in &seen.sends {
        sends_are_there(sends, &logs);
        for told in sends {
            struck.count(
                match told.fate {
                    Fate::Stored { .. } => "sends stored",
                    Fate::Refused => "sends refused",
                    Fate::Unknown => "sends refused after an unknown try",
                },
                1,
            );
        }
    }
    struck.count("sends refused after an unknown try", 0);
    for (person, screen) in traffic.people.iter().zip(&screens) {
        for (conv, shown) in screen {
            shown_is_true(&person.name, conv, shown, &logs[&(person.name.clone(), conv.clone())]);
        }
    }
    for (one, other) in &traffic.pairs {
        for (reader, writer) in [(one, other), (other, one)] {
            let conv = format!("C2C:{}", traffic.people[*writer].name);
            let name = &traffic.people[*reader].name;
            let log = &logs[&(name.clone(), conv.clone())];
            let missing = missing(log, name, screens[*reader].get(&conv).map_or(&[][..], Vec::as_slice), 1);
            assert!(missing.is_empty(), "{name} misses {missing:?} of {conv}");
        }
    }
    for group in &traffic.groups {
        membership(&reader, traffic, group, &screens, &logs, &mut struck).await;
    }
    laws(world);
    let partitions = world.guards.clone().rise(&world.rows.store(), world.seed).await;
    struck.count("guards watched", partitions as u64);
    struck.add(&world.tally());
    struck
}

/// Reads what is stored, as an administrator.
struct Reader<'a> {
    world: &'a World,
}

impl Reader<'_> {
    fn messages(&self, key: RouteKey) -> MessagesClient<Rpc> {
        MessagesClient::new(self.world.probe.for_owner(Service::MessageStore, key).expect("an owner"))
    }

    fn groups(&self, group: &str) -> GroupsClient<Rpc> {
        let key = RouteKey::group(SdkAppId(APP), &GroupId::trusted(group));
        GroupsClient::new(self.world.probe.for_owner(Service::Group, key).expect("an owner"))
    }

    async fn pair(&self, one: &str, other: &str) -> Log {
        let key = RouteKey::pair(SdkAppId(APP), &UserId::trusted(one), &UserId::trusted(other));
        let ask = HistoryRequest { peer_a: one.into(), peer_b: other.into(), ..HistoryRequest::default() };
        self.whole(key, ask).await
    }

    async fn group(&self, group: &Group) -> Log {
        let ask = InfoRequest { app: APP, group_id: group.id.clone(), ..InfoRequest::default() };
        let info = self.groups(&group.id).info(ask).await.expect("the group is there").into_inner();
        let conv = info.group.expect("shown").conv;
        let key = RouteKey::conv(conv.into());
        self.whole(key, HistoryRequest { conv, ..HistoryRequest::default() }).await
    }

    async fn whole(&self, key: RouteKey, mut ask: HistoryRequest) -> Log {
        (ask.app, ask.ascending, ask.limit, ask.from_seq) = (APP, true, 100, 1);
        let mut log = Log::new();
        loop {
            let page = self.messages(key.clone()).history(ask.clone()).await.expect("history").into_inner();
            assert_eq!(page.placeholders, [], "an administrator sees everything");
            log.extend(page.messages);
            if page.complete {
                let head = log.last().map_or(0, |message| message.seq);
                assert_eq!(head, page.head, "the last message is where the log ends");
                return log;
            }
            ask.from_seq = page.covered_to + 1;
        }
    }

    async fn members(&self, group: &Group) -> BTreeSet<String> {
        let ask = MembersRequest {
            app: APP,
            group_id: group.id.clone(),
            limit: 100,
            origin: Some(Origin { operator: "administrator".into(), admin: true, ..Origin::default() }),
            ..MembersRequest::default()
        };
        let page = self.groups(&group.id).members(ask).await.expect("members").into_inner();
        page.members.into_iter().map(|member| member.user).collect()
    }
}

fn text(body: &[u8]) -> String {
    let body: serde_json::Value = serde_json::from_slice(body).expect("JSON");
    body[0]["MsgContent"]["Text"].as_str().unwrap_or_default().to_owned()
}

/// Positions are 1, 2, 3 …; times do not go back; what a sender wrote is there once.
fn logs_are_whole(logs: &BTreeMap<(String, String), Log>) {
    for ((_, conv), log) in logs {
        let seqs: Vec<u64> = log.iter().map(|message| message.seq).collect();
        assert_eq!(seqs, (1..=log.len() as u64).collect::<Vec<_>>(), "positions of {conv}");
        assert!(log.is_sorted_by_key(|message| message.time_ms), "times of {conv}");
        let chat: Vec<_> = log.iter().filter(|message| message.kind() != MessageKind::Tip).collect();
        let tokens: BTreeSet<_> = chat.iter().map(|message| (&message.from, message.random)).collect();
        assert_eq!(tokens.len(), chat.len(), "a message is twice in {conv}");
    }
}

/// What one sender was told is so.
fn sends_are_there(sends: &[Told], logs: &BTreeMap<(String, String), Log>) {
    let mut before = 0;
    for told in sends {
        let log = &logs[&(told.from.clone(), told.conv.clone())];
        let stored = log.iter().find(|message| message.from == told.from && message.random == told.random);
        match (&told.fate, stored) {
            (Fate::Stored { seq }, None) => panic!("acknowledged at {seq} and lost: {told:?}"),
            (Fate::Stored { seq }, Some(message)) => {
                assert_eq!(message.seq, *seq, "{told:?}");
                assert_eq!(text(&message.body), told.text);
            }
            (Fate::Refused, Some(message)) => panic!("refused, and stored at {}: {told:?}", message.seq),
            (Fate::Refused | Fate::Unknown, _) => {}
        }
        if let Some(message) = stored {
            assert!(message.seq > before, "order of {}: {told:?} at {} after {before}", told.from, message.seq);
            before = message.seq;
        }
    }
}

/// What a client showed is what is stored, each position once and in order.
fn shown_is_true(name: &str, conv: &str, shown: &[Shown], log: &Log) {
    let seqs: Vec<u64> = shown.iter().map(|message| message.seq).collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "{name} was shown {conv} in the order {seqs:?}");
    for message in shown {
        let stored = &log[message.seq as usize - 1];
        assert_eq!((&message.from, &message.body), (&stored.from, &stored.body), "{conv} {} of {name}", message.seq);
    }
}

/// Positions from `from` on that somebody else wrote and that were not shown.
fn missing(log: &Log, name: &str, shown: &[Shown], from: u64) -> Vec<u64> {
    let shown: BTreeSet<u64> = shown.iter().map(|message| message.seq).collect();
    let wanted = log.iter().filter(|message| message.seq >= from && message.from != name);
    wanted.map(|message| message.seq).filter(|seq| !shown.contains(seq)).collect()
}

/// Comings and goings of a user as the log tells them: (position, came).
fn moves(log: &Log, user: &str) -> Vec<(u64, bool)> {
    let mut moves = Vec::new();
    for message in log.iter().filter(|message| message.kind() == MessageKind::Tip) {
        let tip: serde_json::Value = serde_json::from_slice(&message.body).expect("JSON");
        let tip = &tip[0]["MsgContent"];
        let named = tip["userIDList"].as_array().is_some_and(|users| users.iter().any(|named| named == user));
        match tip["operationType"].as_u64() {
            Some(1) if named => moves.push((message.seq, true)),
            Some(3) if named => moves.push((message.seq, false)),
            _ => {}
        }
    }
    moves
}

/// Who was removed received nothing until he was back; who is a member has everything since he came.
async fn membership(
    reader: &Reader<'_>,
    traffic: &Traffic,
    group: &Group,
    screens: &[BTreeMap<String, Vec<Shown>>],
    logs: &BTreeMap<(String, String), Log>,
    struck: &mut Struck,
) {
    let conv = group.conv();
    let members = reader.members(group).await;
    for (n, person) in traffic.people.iter().enumerate() {
        let name = &person.name;
        let log = &logs[&(name.clone(), conv.clone())];
        let shown = screens[n].get(&conv).map_or(&[][..], Vec::as_slice);
        let moves = moves(log, name);
        let mut inside = (n == group.owner || group.members.contains(&n)).then_some(1);
        let first = inside.is_some();
        // A tip follows the change it tells of, also when the owner that made the change died before it came to the tip.
        let turns: Vec<bool> = std::iter::once(first).chain(moves.iter().map(|(_, came)| *came)).collect();
        let doubled = turns.windows(2).any(|pair| pair[0] == pair[1]);
        assert!(!doubled, "a tip about {name} in {conv} is lost or told twice: {moves:?}, in at first: {first}");
        assert_eq!(turns.last(), Some(&members.contains(name)), "{name} in {conv}: {moves:?}");
        let mut out = if first { None } else { Some(0) };
        for (at, came) in &moves {
            if *came {
                let between = out.map(|out| (out, *at));
                received_nothing(name, &conv, shown, between);
                (inside, out) = (Some(*at), None);
            } else {
                (inside, out) = (None, Some(*at));
            }
        }
        received_nothing(name, &conv, shown, out.map(|out| (out, u64::MAX)));
        let Some(since) = inside else { continue };
        let mut missing = missing(log, name, shown, since);
        if !moves.is_empty() && !missing.is_empty() {
            // A client that was refused history while outside shows what comes and asks no more.
            struck.count("members who read the log again", 1);
            missing = missing_after_reading(person, &conv, log, since, missing).await;
        }
        assert!(missing.is_empty(), "{name} misses {missing:?} of {conv}, {} long, moves {moves:?}", log.len());
    }
}

async fn missing_after_reading(person: &Person, conv: &str, log: &Log, since: u64, missing: Vec<u64>) -> Vec<u64> {
    let read = person.history(conv, since).await;
    shown_is_true(&person.name, conv, &read, log);
    let read: BTreeSet<u64> = read.iter().map(|message| message.seq).collect();
    missing.into_iter().filter(|seq| !read.contains(seq)).collect()
}

fn received_nothing(name: &str, conv: &str, shown: &[Shown], outside: Option<(u64, u64)>) {
    let Some((left, back)) = outside else { return };
    let received: Vec<u64> = shown.iter().map(|m| m.seq).filter(|seq| *seq > left && *seq < back).collect();
    assert!(received.is_empty(), "{name} left {conv} at {left}, came back at {back}, and was shown {received:?}");
}

/// Every node's books balance, the dead ones' too.
fn laws(world: &World) {
    for books in &world.books {
        let sum = |name: &str| books.metrics.sum(name);
        let group_ended: f64 =
            ["stored", "published_only", "shaped", "refused", "dropped_by_webhook", "duplicate", "unknown"]
                .iter()
                .map(|term| sum(&format!("linnet_group_sends_{term}_total")))
                .sum();
        let pending = sum("linnet_group_sends_pending");
        let arrived = sum("linnet_group_sends_arrived_total");
        assert_eq!(arrived, group_ended + pending, "groups of {}", books.name);
        let arrived = sum("linnet_message_store_arrived_total");
        let ended = sum("linnet_message_store_ended_total");
        let waiting = sum("linnet_message_store_pending");
        assert_eq!(arrived, ended + waiting, "pairs of {}", books.name);
        if !books.killed {
            assert_eq!((pending, waiting), (0.0, 0.0), "{} still works on sends", books.name);
        }
        let fates = ["written", "collapsed", "dropped", "connection_closed"]
            .iter()
            .map(|term| sum(&format!("linnet_gateway_deliveries_{term}_total")))
            .sum::<f64>();
        let arrived = sum("linnet_gateway_deliveries_receivers_at_arrival_total");
        assert_eq!(arrived, fates + sum("linnet_gateway_deliveries_pending"), "deliveries of {}", books.name);
        assert_eq!(sum("linnet_task_panics_total"), 0.0, "a task of {} panicked", books.name);
    }
}
