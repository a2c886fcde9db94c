//! The aggregates on real backends: what was answered is there after a restart, and every row can be inspected. The CQL
//! backend runs on a server of its own, or the one at `LINNET_TEST_CQL` (`host:port`).
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "support/cql.rs"]
mod cql_store;

use std::path::Path;

use linnet_runtime::{Clock, Metrics};
use linnet_store::accounts::{self, Accounts, Imported, ProfileValue};
use linnet_store::apps::{self, App, AppKey, Apps};
use linnet_store::conversations::{self, Conversations, Entry};
use linnet_store::embedded::{Config, Embedded};
use linnet_store::groups::{
    self, Application, Change, Created, Edit, Event, GroupRecord, Groups, Member, NewGroup, Restriction, UserEdit,
};
use linnet_store::positions::{self, Placed, Position, Positions};
use linnet_store::queues::{self, Item, Parked, Queues, Source, WorkId};
use linnet_store::relations::{self, Relations};
use linnet_store::{Kind, Range, Result, Store, Table};
use linnet_types::{AppSettings, ConvId, ConversationKey, GroupId, GroupType, Role, SdkAppId, Seq, UnixMillis, UserId};
use proptest::prelude::*;
use serde_json::Value;

const APP: SdkAppId = SdkAppId(1_400_000_000);
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

type Describe = fn(Table, &[u8], &[u8], &[u8]) -> Result<Value>;

fn registry() -> Vec<(Vec<Table>, Describe)> {
    vec![
        (apps::tables(), apps::describe as Describe),
        (accounts::tables(), accounts::describe),
        (relations::tables(), relations::describe),
        (groups::tables(), groups::describe),
        (conversations::tables(), conversations::describe),
        (positions::tables(), positions::describe),
        (queues::tables(), queues::describe),
    ]
}

fn open(dir: &Path) -> Store {
    Embedded::open(Config::new(dir), Clock::system(), &Metrics::new()).unwrap()
}

fn user(name: &str) -> UserId {
    UserId::trusted(name)
}

async fn fill_group(store: &Store) {
    let groups = Groups::new(store.clone());
    let owner = Member { role: Role::Owner, ..Member::new(user("ann"), NOW, Seq(0)) };
    let new = NewGroup {
        record: GroupRecord::new(APP, ConvId(9), GroupId::trusted("@TGS#_c"), GroupType::Community, NOW),
        members: vec![owner, Member::new(user("bob"), NOW, Seq(0))],
        events: vec![Event { about: None, event: "created".to_owned(), body: "{}".into() }],
        at: NOW,
    };
    let Created::New(mut held) = groups.create(new).await.unwrap() else { panic!("the id is free") };
    let restriction =
        Restriction { until: NOW.plus_ms(9), since: NOW, operator: "ann".to_owned(), description: "spam".to_owned() };
    let cat = UserEdit::new(user("cat"))
        .with_mute(Edit::Put(restriction.clone()))
        .with_ban(Edit::Put(restriction))
        .with_application(Edit::Put(Application { at: NOW, inviter: Some(user("bob")), text: "hi".to_owned() }));
    groups.apply(&mut held, Change::at(NOW).user(cat)).await.unwrap();
}

async fn fill(store: &Store) {
    let app = App {
        app: APP,
        name: "demo".to_owned(),
        key: AppKey::new("key"),
        previous: None,
        admins: vec![user("administrator")],
        settings: AppSettings::default(),
        created: NOW,
        enabled: true,
    };
    assert!(Apps::new(store.clone()).create(&app).await.unwrap());
    let fields = [("Tag_Profile_IM_Level".to_owned(), ProfileValue::Number(7))];
    let imported = Accounts::new(store.clone()).import(APP, &user("ann"), &fields, NOW).await.unwrap();
    assert!(matches!(imported, Imported::Created(_)));
    Relations::new(store.clone()).block(APP, &user("ann"), &[user("eve")], NOW).await.unwrap();
    fill_group(store).await;
    let conversations = Conversations::new(store.clone());
    let next = || async { Ok(ConvId(5)) };
    conversations.open_pair(APP, &user("ann"), &user("bob"), NOW, next).await.unwrap();
    let entry = Entry {
        key: ConversationKey::C2c(user("bob")),
        conv: ConvId(5),
        touched: NOW,
        pinned: None,
        floor: Seq(0),
        deleted_at: Seq(0),
        adjust: 0,
    };
    conversations.put_entries(APP, &[(user("ann"), entry)]).await.unwrap();
    let position = Position { read_seq: Seq(3), ..Position::default() };
    let placed = Placed { user: user("ann"), conv: ConvId(5), position };
    Positions::new(store.clone()).merge(APP, &[placed]).await.unwrap();
    let queue = Queues::new(store.clone(), "webhook");
    let work = |no| {
        let event = "Group.CallbackAfterSendMsg".to_owned();
        Item::new(WorkId { app: APP, key: "9".to_owned(), at: NOW, source: Source::Log, no, event }, "{}")
    };
    queue.enqueue(&[work(1), work(2), work(3)]).await.unwrap();
    queue.ack(&[work(1).id]).await.unwrap();
    queue.bury(&work(2), NOW, "gave up").await.unwrap();
    queue.park(Parked { app: APP, since: NOW, until: NOW.plus_ms(5) }).await.unwrap();
}

async fn check(store: &Store) {
    let app = Apps::new(store.clone()).get(APP).await.unwrap().unwrap();
    assert_eq!(app.key.reveal(), "key");
    let ann = Accounts::new(store.clone()).get(APP, &user("ann")).await.unwrap().unwrap();
    assert_eq!(ann.profile["Tag_Profile_IM_Level"], ProfileValue::Number(7));
    assert!(Relations::new(store.clone()).blocked(APP, &user("ann"), &user("eve")).await.unwrap());
    let groups = Groups::new(store.clone());
    let mut held = groups.claim(APP, ConvId(9)).await.unwrap().unwrap();
    assert_eq!(held.record().member_count, 2);
    groups.resume(&mut held).await.unwrap();
    assert_eq!(groups.outbox(&held, 0, 10).await.unwrap().len(), 1);
    assert_eq!(groups.joined(APP, &user("ann")).await.unwrap()[0].role, Role::Owner);
    let cat = groups.user_states(&mut held, &[user("cat")]).await.unwrap().remove(0);
    assert!(cat.member.is_none() && cat.mute.is_some() && cat.ban.is_some() && cat.application.is_some());
    let pair = Conversations::new(store.clone()).pair(APP, &user("bob"), &user("ann")).await.unwrap().unwrap();
    assert_eq!(pair.conv, ConvId(5));
    let position = Positions::new(store.clone()).get(APP, &user("ann"), ConvId(5)).await.unwrap().unwrap();
    assert_eq!(position.read_seq, Seq(3));
    let queue = Queues::new(store.clone(), "webhook");
    let waiting: Vec<u64> = queue.of_key(APP, "9", 10).await.unwrap().into_iter().map(|item| item.id.no).collect();
    assert_eq!(waiting, [3]);
    assert_eq!(queue.dead(APP, None, 10).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_there_after_a_restart_and_every_row_can_be_read_by_people() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    fill(&store).await;
    drop(store);
    let store = open(dir.path());
    check(&store).await;
    read_by_people(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_there_for_another_node_on_cql_and_every_row_can_be_read_by_people() {
    let store = cql_store::store().await;
    fill(&store).await;
    check(&store).await;
    read_by_people(&store).await;
    let shown = linnet_store::inspect::inspect(&store, "group", &[APP.0.to_string()], 10).await.unwrap().unwrap();
    assert!(!shown.is_empty(), "found by the beginning of its key, in whatever order the backend has keys");
}

async fn read_by_people(store: &Store) {
    for (tables, describe) in registry() {
        for table in tables {
            let mut rows = 0;
            for partition in store.partitions(table, None, 1_000).await.unwrap() {
                if table.kind == Kind::Guarded {
                    let guard = store.guard(table, &partition).await.unwrap().expect("guarded rows have a guard");
                    let shown = groups::describe_guard(table, &guard).unwrap();
                    assert_eq!(shown.is_some(), table.name == "group");
                }
                for row in store.scan(table, &partition, Range::default()).await.unwrap() {
                    let shown = describe(table, &partition, &row.clustering, &row.value).unwrap();
                    assert!(shown.is_object(), "{}: {shown}", table.name);
                    rows += 1;
                }
            }
            assert!(rows > 0, "{} has rows in this test", table.name);
        }
    }
}

proptest! {
    #[test]
    fn no_stored_bytes_make_a_reader_panic(partition: Vec<u8>, clustering: Vec<u8>, value: Vec<u8>) {
        for (tables, describe) in registry() {
            for table in tables {
                let _ = describe(table, &partition, &clustering, &value);
            }
        }
    }
}
