mod faults;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use linnet_runtime::{Clock, Rng};
use linnet_types::{ConvId, GroupId, GroupType, Role, SdkAppId, Seq, UnixMillis, UserId};

use super::*;
use crate::rows::{Applied, Error, Guard, GuardedBatch, PlainBatch, Range, Row, Rows, Table};
use crate::sim::{Faults, SimRows};

const APP: SdkAppId = SdkAppId(1_400_000_000);
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn user(name: &str) -> UserId {
    UserId::trusted(name)
}

fn group(name: &str) -> GroupId {
    GroupId::trusted(name)
}

fn sim(seed: u64) -> SimRows {
    SimRows::new(Rng::seeded(seed), Clock::simulated(NOW), Faults::none())
}

fn member(name: &str) -> Member {
    Member::new(user(name), NOW, Seq(7))
}

fn new_group(conv: u64, id: &str, kind: GroupType, members: &[&str]) -> NewGroup {
    let members = members.iter().enumerate().map(|(n, name)| {
        let role = if n == 0 { Role::Owner } else { Role::Member };
        Member { role, ..member(name) }
    });
    NewGroup {
        record: GroupRecord::new(APP, ConvId(conv), group(id), kind, NOW),
        members: members.collect(),
        events: vec![Event { about: None, event: "created".to_owned(), body: Bytes::from_static(b"{}") }],
        at: NOW,
    }
}

async fn create(groups: &Groups, new: NewGroup) -> GroupGuard {
    match groups.create(new).await.unwrap() {
        Created::New(held) => held,
        Created::Taken(name) => panic!("the id is taken by {name:?}"),
    }
}

fn add(name: &str) -> Change {
    Change::at(NOW).user(UserEdit::put(member(name))).event(Some(user(name)), "joined", name.to_owned())
}

fn kick(name: &str) -> Change {
    Change::at(NOW).user(UserEdit::remove(user(name))).event(Some(user(name)), "left", name.to_owned())
}

async fn names(groups: &Groups, held: &GroupGuard) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut at = None;
    loop {
        let (page, next) = groups.members(held, at.as_ref(), 7).await.unwrap();
        for member in page {
            assert!(names.insert(member.user.to_string()), "{} came twice", member.user);
        }
        match next {
            // As text, the way callers carry it.
            Some(cursor) => at = Some(cursor.to_string().parse().unwrap()),
            None => return names,
        }
    }
}

async fn joined(groups: &Groups, name: &str) -> Vec<(u64, Role)> {
    let joined = groups.joined(APP, &user(name)).await.unwrap();
    joined.into_iter().map(|joined| (joined.conv.0, joined.role)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_created_group_has_members_roles_an_event_and_its_places_in_the_lists() {
    let groups = Groups::new(sim(1).store());
    let held = create(&groups, new_group(5, "g", GroupType::Public, &["ann", "bob", "cat"])).await;
    assert_eq!(held.record().member_count, 3);
    assert_eq!(held.record().owner, Some(user("ann")));
    assert_eq!(held.record().count_by_role(), (1, 0, 2));
    assert_eq!(names(&groups, &held).await, ["ann", "bob", "cat"].map(str::to_owned).into());
    assert_eq!(joined(&groups, "ann").await, [(5, Role::Owner)]);
    assert_eq!(joined(&groups, "bob").await, [(5, Role::Member)]);
    let listed = groups.groups_of_app(APP, None, ConvId(0), 10).await.unwrap();
    assert_eq!(listed.iter().map(|group| group.conv.0).collect::<Vec<_>>(), [5]);
    assert_eq!(groups.count_of_app(APP, Some(GroupType::Work)).await.unwrap(), 0);
    assert_eq!(groups.outbox(&held, 0, 10).await.unwrap()[0].event, "created");
    let name = groups.find(APP, &group("g")).await.unwrap().unwrap();
    assert_eq!((name.conv.0, name.generation), (5, 1));
    assert_eq!(groups.read(APP, ConvId(5)).await.unwrap().unwrap(), *held.record());
}

#[tokio::test(start_paused = true)]
async fn of_concurrent_creations_of_one_id_one_succeeds() {
    for seed in 0..50 {
        let sim = sim(seed);
        sim.set_faults(Faults { latency: std::time::Duration::from_millis(4), ..Faults::none() });
        let groups = Groups::new(sim.store());
        let (a, b) = tokio::join!(
            groups.create(new_group(5, "g", GroupType::Public, &["ann"])),
            groups.create(new_group(6, "g", GroupType::Public, &["bob"])),
        );
        let created = |result: &Result<Created>| match result.as_ref().unwrap() {
            Created::New(held) => Some(held.conv()),
            Created::Taken(_) => None,
        };
        let winners: Vec<ConvId> = [created(&a), created(&b)].into_iter().flatten().collect();
        assert_eq!(winners.len(), 1, "seed {seed}");
        assert_eq!(groups.find(APP, &group("g")).await.unwrap().unwrap().conv, winners[0], "seed {seed}");
        let listed = groups.groups_of_app(APP, None, ConvId(0), 10).await.unwrap();
        assert_eq!(listed.len(), 1, "seed {seed}");
        let everyone = [joined(&groups, "ann").await, joined(&groups, "bob").await].concat();
        assert_eq!(everyone, [(winners[0].0, Role::Owner)], "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_add_does_not_undo_a_kick() {
    for kind in [GroupType::Public, GroupType::Community] {
        let groups = Groups::new(sim(2).store());
        let mut old = create(&groups, new_group(5, "g", kind, &["ann", "bob"])).await;
        // The earlier holder knows the partition, as one who checked that bob is a member does.
        assert!(groups.member(&mut old, &user("bob")).await.unwrap().is_some());
        let mut new = groups.claim(APP, ConvId(5)).await.unwrap().unwrap();
        assert!(new.epoch() > old.epoch());
        groups.apply(&mut new, kick("bob")).await.unwrap();
        let late = groups.apply(&mut old, add("bob")).await;
        assert!(matches!(late, Err(Error::Stale { .. })), "{kind:?}: {late:?}");
        assert!(groups.member(&mut new, &user("bob")).await.unwrap().is_none());
        assert_eq!(new.record().member_count, 1);
        assert_eq!(joined(&groups, "bob").await, []);
        let again = groups.apply(&mut old, add("cat")).await;
        assert!(matches!(again, Err(Error::Stale { .. })), "a lost guard stays lost: {again:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_earlier_holder_cannot_write_where_nobody_wrote_before() {
    let groups = Groups::new(sim(3).store());
    let mut old = create(&groups, new_group(5, "g", GroupType::Community, &["ann"])).await;
    let mut new = groups.claim(APP, ConvId(5)).await.unwrap().unwrap();
    let name =
        (0..).map(|n| format!("u{n}")).find(|name| new.slots[usize::from(new.slot_of(&user(name)))].stored.is_none());
    let name = name.unwrap();
    // Looking is enough: what the holder saw stays true until he changes it.
    assert!(groups.member(&mut new, &user(&name)).await.unwrap().is_none());
    assert!(matches!(groups.apply(&mut old, add(&name)).await, Err(Error::Stale { .. })));
    assert!(groups.member(&mut new, &user(&name)).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_reused_id_is_another_conversation() {
    let groups = Groups::new(sim(4).store());
    let mut held = create(&groups, new_group(5, "g", GroupType::Public, &["ann", "bob"])).await;
    let taken = groups.create(new_group(6, "g", GroupType::Public, &["eve"])).await.unwrap();
    assert!(matches!(taken, Created::Taken(name) if name.conv == ConvId(5)));
    let event = Event { about: None, event: "destroyed".to_owned(), body: Bytes::new() };
    groups.destroy(&mut held, NOW, vec![event]).await.unwrap();
    assert_eq!(groups.find(APP, &group("g")).await.unwrap(), None);
    assert!(groups.apply(&mut held, add("cat")).await.is_err(), "a dismissed group takes nobody in");
    let next = create(&groups, new_group(7, "g", GroupType::Work, &["bob"])).await;
    assert_eq!(next.record().generation, 2);
    groups.resume(&mut held).await.unwrap();
    assert_eq!(held.record().member_count, 0);
    assert_eq!(joined(&groups, "ann").await, []);
    assert_eq!(joined(&groups, "bob").await, [(7, Role::Owner)], "the clean-up leaves the new group alone");
    assert_eq!(groups.find(APP, &group("g")).await.unwrap().unwrap().conv, ConvId(7));
    let told: Vec<String> = groups.outbox(&held, 0, 10).await.unwrap().into_iter().map(|event| event.event).collect();
    assert_eq!(told, ["created", "destroyed"]);
}

#[tokio::test(start_paused = true)]
async fn events_survive_their_holder_and_go_when_acknowledged() {
    for kind in [GroupType::Public, GroupType::Community] {
        let groups = Groups::new(sim(5).store());
        let mut held = create(&groups, new_group(5, "g", kind, &["ann"])).await;
        for n in 0..20 {
            groups.apply(&mut held, add(&format!("u{n}"))).await.unwrap();
        }
        drop(held);
        let mut held = groups.claim(APP, ConvId(5)).await.unwrap().unwrap();
        groups.apply(&mut held, kick("u3")).await.unwrap();
        let events = groups.outbox(&held, 0, 100).await.unwrap();
        assert_eq!(events.len(), 22);
        assert!(events.windows(2).all(|pair| pair[0].no < pair[1].no), "numbers rise across holders");
        assert_eq!(events[21].event, "left");
        groups.ack_outbox(&mut held, events[10].no).await.unwrap();
        assert_eq!(groups.outbox(&held, 0, 100).await.unwrap(), events[11..]);
        assert_eq!(groups.outbox(&held, events[12].no, 2).await.unwrap(), events[13..15]);
        groups.ack_outbox(&mut held, events[21].no).await.unwrap();
        assert_eq!(groups.outbox(&held, 0, 100).await.unwrap(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_change_leaves_no_event() {
    let groups = Groups::new(sim(6).store());
    let mut old = create(&groups, new_group(5, "g", GroupType::Public, &["ann"])).await;
    let new = groups.claim(APP, ConvId(5)).await.unwrap().unwrap();
    assert!(groups.apply(&mut old, add("bob")).await.is_err());
    assert_eq!(groups.outbox(&new, 0, 10).await.unwrap().len(), 1, "only the creation");
}

/// `SimRows` takes no batch that a CQL server would refuse.
#[tokio::test(start_paused = true)]
async fn the_widest_rows_of_many_accounts_go_in_batches_that_servers_take() {
    for kind in [GroupType::Public, GroupType::Community] {
        let groups = Groups::new(sim(7).store());
        let names: Vec<String> = (0..100).map(|n| format!("{n:032}")).collect();
        let custom = |keys, bytes| (0..keys).map(|n| (format!("{n:016}"), "x".repeat(bytes))).collect();
        let mut new = new_group(5, "g", kind, &["ann"]);
        new.record.custom = custom(20, 512);
        let full = |name: &String| Member { name_card: "c".repeat(50), custom: custom(5, 64), ..member(name) };
        new.members.extend(names.iter().map(full));
        let mut held = create(&groups, new).await;
        assert_eq!(held.record().member_count, 101);
        let why = Restriction {
            until: NOW.plus_ms(9),
            since: NOW,
            operator: "ann".to_owned(),
            description: "d".repeat(1000),
        };
        let mut change = Change::at(NOW);
        for name in &names {
            let edit = UserEdit::remove(user(name)).with_mute(Edit::Put(why.clone())).with_ban(Edit::Put(why.clone()));
            change = change.user(edit).event(Some(user(name)), "left", vec![b'e'; 1000]);
        }
        groups.apply(&mut held, change).await.unwrap();
        assert_eq!((held.record().member_count, groups.bans(&held).await.unwrap().len()), (1, 100));
        assert_eq!(groups.outbox(&held, 0, 1000).await.unwrap().len(), 101);
    }
}

#[tokio::test(start_paused = true)]
async fn mutes_and_bans_outlive_membership() {
    let groups = Groups::new(sim(7).store());
    let mut held = create(&groups, new_group(5, "g", GroupType::Public, &["ann", "bob"])).await;
    let until =
        |ms| Restriction { until: NOW.plus_ms(ms), since: NOW, operator: "ann".to_owned(), description: String::new() };
    let mute = UserEdit::new(user("bob")).with_mute(Edit::Put(until(60_000)));
    groups.apply(&mut held, Change::at(NOW).user(mute)).await.unwrap();
    let ban = UserEdit::remove(user("bob")).with_ban(Edit::Put(until(120_000)));
    let done = groups.apply(&mut held, Change::at(NOW).user(ban)).await.unwrap();
    assert_eq!(done.removed, [user("bob")]);
    let state = groups.user_states(&mut held, &[user("bob")]).await.unwrap().remove(0);
    assert_eq!(state.member, None);
    assert_eq!(state.mute, Some(until(60_000)));
    assert_eq!(groups.bans(&held).await.unwrap(), [(user("bob"), until(120_000))]);
    assert_eq!(groups.sweep_restrictions(&mut held, NOW.plus_ms(60_000)).await.unwrap(), 1, "the mute is over");
    assert_eq!((groups.mutes(&held).await.unwrap().len(), groups.bans(&held).await.unwrap().len()), (0, 1));
    let unban = UserEdit::new(user("bob")).with_ban(Edit::Remove);
    groups.apply(&mut held, Change::at(NOW).user(unban)).await.unwrap();
    assert_eq!(groups.bans(&held).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn an_application_is_settled_by_joining() {
    let groups = Groups::new(sim(8).store());
    let mut held = create(&groups, new_group(5, "g", GroupType::Public, &["ann"])).await;
    let application = Application { at: NOW, inviter: None, text: "let me in".to_owned() };
    let apply = UserEdit::new(user("bob")).with_application(Edit::Put(application.clone()));
    groups.apply(&mut held, Change::at(NOW).user(apply)).await.unwrap();
    assert_eq!(groups.applications(&held).await.unwrap(), [(user("bob"), application)]);
    groups.apply(&mut held, add("bob")).await.unwrap();
    assert_eq!(groups.applications(&held).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn roles_end_with_membership() {
    for kind in [GroupType::Public, GroupType::Community] {
        let groups = Groups::new(sim(9).store());
        let mut held = create(&groups, new_group(5, "g", kind, &["ann", "bob", "cat"])).await;
        let mut record = held.record().clone();
        record.set_role(&user("bob"), Role::Admin);
        record.set_role(&user("cat"), Role::Admin);
        groups.apply(&mut held, Change::at(NOW).record(record)).await.unwrap();
        assert_eq!(joined(&groups, "bob").await, [(5, Role::Admin)], "{kind:?}");
        assert_eq!(held.record().count_by_role(), (1, 2, 0));
        let managers = groups.managers(&mut held).await.unwrap();
        assert_eq!(
            managers.iter().map(|member| member.role).collect::<Vec<_>>(),
            [Role::Owner, Role::Admin, Role::Admin]
        );
        groups.apply(&mut held, kick("bob")).await.unwrap();
        groups.apply(&mut held, add("bob")).await.unwrap();
        let mut held = groups.claim(APP, ConvId(5)).await.unwrap().unwrap();
        assert_eq!(groups.member(&mut held, &user("bob")).await.unwrap().unwrap().role, Role::Member);
        assert_eq!(joined(&groups, "bob").await, [(5, Role::Member)]);
        let mut owner = groups.member(&mut held, &user("cat")).await.unwrap().unwrap();
        owner.role = Role::Owner;
        groups.apply(&mut held, Change::at(NOW).user(UserEdit::put(owner))).await.unwrap();
        assert_eq!(held.record().owner, Some(user("cat")));
        assert_eq!(joined(&groups, "cat").await, [(5, Role::Owner)]);
        assert_eq!(joined(&groups, "ann").await, [(5, Role::Member)], "there is one owner");
    }
}

#[tokio::test(start_paused = true)]
async fn the_info_seq_counts_changes_of_the_profile_only() {
    let groups = Groups::new(sim(10).store());
    let mut held = create(&groups, new_group(5, "g", GroupType::Community, &["ann"])).await;
    let before = held.record().info_seq;
    groups.apply(&mut held, add("bob")).await.unwrap();
    assert_eq!(held.record().info_seq, before);
    let record = GroupRecord { name: "rooks".to_owned(), member_count: 99, ..held.record().clone() };
    let later = NOW.plus_ms(5);
    groups.apply(&mut held, Change { at: later, record: Some(record), ..kick("bob") }).await.unwrap();
    assert_eq!((held.record().info_seq, held.record().last_info), (before + 1, later));
    assert_eq!(held.record().member_count, 1, "counted, not believed");
    let held = groups.claim(APP, ConvId(5)).await.unwrap().unwrap();
    assert_eq!((held.record().name.as_str(), held.record().info_seq), ("rooks", before + 1));
}

#[tokio::test(start_paused = true)]
async fn a_community_is_counted_and_listed_over_all_its_partitions() {
    let groups = Groups::new(sim(11).store());
    let mut held = create(&groups, new_group(5, "@TGS#_c", GroupType::Community, &["ann"])).await;
    let mut change = Change::at(NOW);
    let mut expected: BTreeSet<String> = ["ann".to_owned()].into();
    for n in 0..300 {
        let name = format!("user{n}");
        change = change.user(UserEdit::put(member(&name)));
        expected.insert(name);
    }
    let done = groups.apply(&mut held, change).await.unwrap();
    assert_eq!(done.added.len(), 300);
    assert_eq!(names(&groups, &held).await, expected);
    let held = groups.claim(APP, ConvId(5)).await.unwrap().unwrap();
    assert_eq!(held.record().member_count, 301);
    assert!("zz.x".parse::<MemberCursor>().is_err() && "x".parse::<MemberCursor>().is_err());
    let beyond: MemberCursor = "ffff.x".parse().unwrap();
    assert_eq!(groups.members(&held, Some(&beyond), 5).await.unwrap(), (vec![], None));
}

#[tokio::test(start_paused = true)]
async fn sequences_of_a_live_room_are_handed_out_once() {
    let groups = Groups::new(sim(12).store());
    let mut held = create(&groups, new_group(5, "live", GroupType::AVChatRoom, &[])).await;
    assert_eq!(groups.reserve_live_seqs(&mut held, 10_000).await.unwrap(), 1..10_001);
    let mut next = groups.claim(APP, ConvId(5)).await.unwrap().unwrap();
    assert_eq!(groups.reserve_live_seqs(&mut next, 10_000).await.unwrap(), 10_001..20_001);
    assert!(groups.reserve_live_seqs(&mut held, 10_000).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn open_groups_are_found_until_they_are_closed() {
    let groups = Groups::new(sim(13).store());
    let open = async || {
        let mut open = Vec::new();
        for slot in 0..OPEN_SLOTS {
            open.extend(groups.open(slot).await.unwrap().into_iter().map(|open| (open.conv.0, open.epoch.0)));
        }
        open
    };
    let held = create(&groups, new_group(5, "g", GroupType::Public, &["ann"])).await;
    groups.close(held).await.unwrap();
    assert_eq!(open().await, [(5, 1)], "an event is still to be told");
    let mut held = groups.claim(APP, ConvId(5)).await.unwrap().unwrap();
    groups.resume(&mut held).await.unwrap();
    groups.ack_outbox(&mut held, u64::MAX).await.unwrap();
    groups.close(held).await.unwrap();
    assert_eq!(open().await, []);
}

/// A store whose derived tables cannot be written for a while.
struct NoReverse(crate::rows::Store, AtomicBool);

#[async_trait]
impl Rows for NoReverse {
    async fn guard(&self, table: Table, partition: &[u8]) -> Result<Option<Guard>> {
        self.0.guard(table, partition).await
    }
    async fn get(&self, table: Table, partition: &[u8], clustering: &[u8]) -> Result<Option<Bytes>> {
        self.0.get(table, partition, clustering).await
    }
    async fn scan(&self, table: Table, partition: &[u8], range: Range) -> Result<Vec<Row>> {
        self.0.scan(table, partition, range).await
    }
    async fn write(&self, batch: GuardedBatch) -> Result<Applied> {
        self.0.write(batch).await
    }
    async fn put(&self, batch: PlainBatch) -> Result<()> {
        if batch.table.name == "joined" && self.1.load(Ordering::SeqCst) {
            return Err(Error::Unavailable { table: batch.table.name, why: "test".to_owned() });
        }
        self.0.put(batch).await
    }
    async fn partitions(&self, table: Table, after: Option<&[u8]>, limit: usize) -> Result<Vec<Bytes>> {
        self.0.partitions(table, after, limit).await
    }
}

#[tokio::test(start_paused = true)]
async fn derived_rows_that_were_missed_come_with_the_next_holder() {
    for kind in [GroupType::Public, GroupType::Community] {
        let broken = Arc::new(NoReverse(sim(14).store(), AtomicBool::new(false)));
        let groups = Groups::new(broken.clone());
        let mut held = create(&groups, new_group(5, "g", kind, &["ann", "bob"])).await;
        broken.1.store(true, Ordering::SeqCst);
        groups.apply(&mut held, add("cat")).await.unwrap();
        groups.apply(&mut held, kick("bob")).await.unwrap();
        assert_eq!((joined(&groups, "cat").await, joined(&groups, "bob").await.len()), (vec![], 1));
        broken.1.store(false, Ordering::SeqCst);
        let mut held = groups.claim(APP, ConvId(5)).await.unwrap().unwrap();
        groups.resume(&mut held).await.unwrap();
        assert_eq!(joined(&groups, "cat").await, [(5, Role::Member)]);
        assert_eq!(joined(&groups, "bob").await, []);
        groups.ack_outbox(&mut held, u64::MAX).await.unwrap();
        groups.close(held).await.unwrap();
        let mut intents = 0;
        for slot in 0..slots_of(kind) {
            let range = crate::keys::prefix(layout::tag_key(layout::tag::INTENT));
            let rows = groups.store.scan(layout::GROUP, &layout::partition(APP, ConvId(5), slot), range).await.unwrap();
            intents += rows.len();
        }
        assert_eq!(intents, 0, "done intents are swept");
    }
}
