//! Who lives and who is on the rings, as heartbeats tell it: every rule, in paused time.

mod converge;
mod servers;
mod world;

use std::sync::atomic::Ordering;
use std::time::Duration;

use linnet_cluster::Service;
use world::{CLUSTER, Process, World, id, sleep, throughout, within};

#[tokio::test(start_paused = true)]
async fn a_new_node_knows_everybody_when_it_is_ready_and_attracts_after_ten_seconds() {
    let world = World::new(1);
    let old = world.settled(["a", "b", "c"]).await;
    let begun = tokio::time::Instant::now();
    let new = world.start(CLUSTER, "d", &[Service::Group], 1);
    new.beats.ready().await;
    println!("ready after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_millis(1500));
    assert_eq!((new.live(), new.ring()), (names("abcd"), names("abc")));
    assert_eq!(old[0].live(), names("abcd"), "and they know it");
    throughout(30.0, "it does not serve yet", || {
        old.iter().chain([&new]).all(|process| process.ring() == names("abc"))
            && old[0].members.snapshot().serving(Service::Group).count() == 3
    })
    .await;
    new.beats.serve();
    sleep(0.1).await;
    assert_eq!(old[0].members.snapshot().serving(Service::Group).count(), 4, "reachable, on no ring");
    throughout(9.7, "young", || old.iter().chain([&new]).all(|process| process.ring() == names("abc"))).await;
    within(1.5, "on every ring", || old.iter().chain([&new]).all(|process| process.ring() == names("abcd"))).await;
}

#[tokio::test(start_paused = true)]
async fn while_all_are_young_all_count_and_nobody_is_moved_when_the_first_comes_of_age() {
    let world = World::new(2);
    let mut all = Vec::new();
    for name in ["a", "b", "c"] {
        all.push(world.group(name, 1));
        sleep(0.7).await;
    }
    within(2.0, "all on the rings", || all.iter().all(|process| process.ring() == names("abc"))).await;
    let versions: Vec<_> = all.iter().map(Process::version).collect();
    // Later than the others, it sees their rings too.
    let late = world.start(CLUSTER, "x", &[Service::Account], 1);
    late.beats.ready().await;
    throughout(20.0, "the same rings", || all.iter().all(|process| process.ring() == names("abc"))).await;
    assert_eq!(late.ring(), names("abc"));
    for (process, version) in all.iter().zip(versions) {
        assert_eq!(process.version(), version + 1, "nothing changed but that the late node came");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_clock_was_set_back_starts_above_its_last_life() {
    let world = World::new(31);
    let [a, b] = world.settled(["a", "b"]).await;
    let c = world.group("c", 1_000_000);
    within(2.0, "known", || a.live() == names("abc") && b.live() == names("abc")).await;
    c.kill().await;
    assert_eq!(world.next_life("c", 5).await, 1_000_001);
    let again = world.group("c", 1_000_001);
    within(2.0, "taken for itself at once", || a.view()["c"].incarnation == 1_000_001).await;
    again.beats.stop().await;
    sleep(3600.0).await;
    assert_eq!(world.next_life("c", 5).await, 1_000_002, "remembered when it is long gone");
    assert_eq!(world.next_life("never seen", 5).await, 5);
}

#[tokio::test(start_paused = true)]
async fn everybody_knows_how_far_his_clock_is_from_most() {
    let world = World::new(32);
    let [a, b] = world.settled(["a", "b"]).await;
    let fast = world.ahead(Duration::from_secs(300)).group("c", 1);
    within(2.0, "the others are right", || a.members.ahead_ms() == 0 && b.members.ahead_ms() == 0).await;
    within(2.0, "one is not", || fast.members.ahead_ms() == -300_000).await;
    assert_eq!(fast.value("clock_behind_ms"), -300_000.0);
}

#[tokio::test(start_paused = true)]
async fn services_are_judged_apart() {
    let world = World::new(3);
    let _old = world.settled(["a", "b"]).await;
    // The first of its service: it counts at once, though it is young; for groups it waits.
    let both = world.start(CLUSTER, "c", &[Service::Group, Service::Account], 1);
    both.beats.serve();
    both.beats.ready().await;
    let accounts = || both.members.snapshot().ring(Service::Account).nodes().to_vec();
    assert_eq!((accounts(), both.ring()), (vec![id("c")], names("ab")));
    within(11.0, "settled", || both.ring() == names("abc")).await;
    assert_eq!(accounts(), [id("c")]);
}

#[tokio::test(start_paused = true)]
async fn a_node_is_dead_eight_seconds_after_it_was_last_heard() {
    let world = World::new(4);
    let [a, b, c] = world.settled(["a", "b", "c"]).await;
    c.kill().await;
    throughout(6.9, "it may only be slow", || a.ring() == names("abc") && b.ring() == names("abc")).await;
    let took = within(1.5, "dead", || a.live() == names("ab") && b.live() == names("ab")).await;
    println!("dead after {:.2} s", 6.9 + took);
    assert_eq!((a.value("deaths_total"), a.value("live")), (1.0, 2.0));
}

#[tokio::test(start_paused = true)]
async fn of_two_nodes_one_may_die() {
    let world = World::new(5);
    let [a, b] = world.settled(["a", "b"]).await;
    b.kill().await;
    within(8.4, "one of two is not most", || a.live() == names("a")).await;
}

#[tokio::test(start_paused = true)]
async fn when_most_fall_silent_at_once_the_rings_freeze_for_thirty_seconds() {
    let world = World::new(6);
    let [a, b, c, d, e] = world.settled(["a", "b", "c", "d", "e"]).await;
    for process in [c, d, e] {
        process.kill().await;
    }
    throughout(28.9, "frozen", || a.ring() == names("abcde") && b.ring() == names("abcde")).await;
    assert_eq!(a.value("frozen"), 1.0);
    let took = within(1.5, "dead at last", || a.ring() == names("ab") && b.ring() == names("ab")).await;
    println!("dead after {:.2} s", 28.9 + took);
    sleep(1.1).await;
    assert_eq!(a.value("frozen"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_out_of_a_freeze_was_never_away() {
    let world = World::new(7);
    let all = world.settled(["a", "b", "c", "d", "e"]).await;
    let versions: Vec<_> = all.iter().map(Process::version).collect();
    // Their part of the bus is gone for 20 s; those left see most of the nodes fall silent.
    all[2..].iter().for_each(|process| process.faulty.down());
    sleep(20.0).await;
    for process in &all[2..] {
        process.faulty.up();
        sleep(1.5).await;
    }
    throughout(30.0, "the same rings", || all.iter().all(|process| process.ring() == names("abcde"))).await;
    assert_eq!(all.iter().map(Process::version).collect::<Vec<_>>(), versions);
}

#[tokio::test(start_paused = true)]
async fn nodes_that_die_one_after_the_other_are_not_the_bus() {
    let world = World::new(8);
    let [a, b, c, d, e] = world.settled(["a", "b", "c", "d", "e"]).await;
    for process in [c, d, e] {
        process.kill().await;
        sleep(3.0).await;
    }
    within(8.0, "three deaths", || a.ring() == names("ab") && b.ring() == names("ab")).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_without_connection_keeps_its_view_and_counts_anew_afterwards() {
    let world = World::new(9);
    let [a, b, c, d] = world.settled(["a", "b", "c", "d"]).await;
    let version = d.version();
    d.faulty.down();
    within(9.2, "dead to the others", || a.ring() == names("abc") && b.ring() == names("abc")).await;
    c.kill().await;
    throughout(60.0, "its last view", || d.version() == version).await;
    assert_eq!(d.value("frozen"), 1.0);
    d.faulty.up();
    throughout(7.5, "the dead have eight seconds from now", || d.ring() == names("abcd")).await;
    within(1.2, "one view", || [&a, &b, &d].iter().all(|process| process.ring() == names("abd"))).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_hear_itself_judges_nobody() {
    let world = World::new(10);
    let [a, b] = world.settled(["a", "b"]).await;
    let version = b.version();
    b.deafen();
    throughout(60.0, "deaf", || b.version() == version && a.ring() == names("ab")).await;
    a.kill().await;
    b.faulty.heal();
    throughout(7.9, "counted anew", || b.version() == version).await;
    // Its own beat has to come back first.
    within(2.0, "dead", || b.ring() == names("b")).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_slept_judges_nobody_for_what_it_did_not_hear() {
    let world = World::new(11);
    let all = world.settled(["a", "b", "c"]).await;
    let version = all[0].version();
    tokio::time::advance(Duration::from_secs(20)).await;
    throughout(5.0, "all there", || all.iter().all(|process| process.ring() == names("abc"))).await;
    assert_eq!(all[0].version(), version);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_is_off_the_rings_at_once_and_reachable_until_it_stops() {
    let world = World::new(12);
    let [a, b, c] = world.settled(["a", "b", "c"]).await;
    let leaving = c.beats.leave();
    leaving.await;
    for process in [&a, &b, &c] {
        assert_eq!((process.ring(), process.live()), (names("ab"), names("abc")));
        assert_eq!(process.members.snapshot().serving(Service::Group).count(), 3);
    }
    throughout(40.0, "it goes on living", || a.live() == names("abc") && a.ring() == names("ab")).await;
    c.beats.stop().await;
    assert_eq!((a.live(), b.live()), (names("ab"), names("ab")), "nobody waits for its death");
    assert_eq!(a.value("deaths_total"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn the_last_one_to_leave_stays_on_its_ring() {
    let world = World::new(13);
    let [a, b] = world.settled(["a", "b"]).await;
    a.beats.leave().await;
    b.beats.leave().await;
    assert_eq!((a.ring(), b.ring()), (names("ab"), names("ab")), "an empty ring helps nobody");
    let new = world.group("c", 1);
    new.beats.ready().await;
    within(0.5, "a young one is better", || [&a, &b, &new].iter().all(|process| process.ring() == names("c"))).await;
}

#[tokio::test(start_paused = true)]
async fn who_is_back_within_eight_seconds_keeps_its_place_for_everybody() {
    let world = World::new(14);
    let [a, b, c] = world.settled(["a", "b", "c"]).await;
    c.kill().await;
    sleep(4.0).await;
    let back = world.start(CLUSTER, "c", &[Service::Group], 2);
    // Who was not there before must not see it as a newcomer.
    let late = world.start(CLUSTER, "x", &[Service::Account], 1);
    let all = || [&a, &b].iter().all(|process| process.ring() == names("abc"));
    tokio::join!(
        async {
            back.beats.ready().await;
            back.beats.serve();
        },
        throughout(3.0, "on the rings while it starts", all),
        late.beats.ready(),
    );
    assert_eq!((back.ring(), late.ring()), (names("abc"), names("abc")));
    assert_eq!(a.address("c").as_deref(), Some("c:2"), "at its new address");
    throughout(20.0, "and afterwards", || all() && back.ring() == names("abc") && late.ring() == names("abc")).await;
}

#[tokio::test(start_paused = true)]
async fn who_is_back_but_not_serving_in_time_loses_its_place() {
    let world = World::new(15);
    let [a, _b, c] = world.settled(["a", "b", "c"]).await;
    c.kill().await;
    sleep(2.0).await;
    let back = world.start(CLUSTER, "c", &[Service::Group], 2);
    within(9.0, "off the ring", || a.ring() == names("ab")).await;
    assert_eq!(a.live(), names("abc"));
    drop(back);
}

#[tokio::test(start_paused = true)]
async fn who_is_back_after_its_death_is_a_newcomer() {
    let world = World::new(16);
    let [a, _b, c] = world.settled(["a", "b", "c"]).await;
    c.kill().await;
    sleep(12.0).await;
    let back = world.group("c", 2);
    back.beats.ready().await;
    throughout(9.7, "young again", || a.ring() == names("ab") && a.live() == names("abc")).await;
    within(1.5, "settled", || a.ring() == names("abc") && back.ring() == names("abc")).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_graceful_restart_a_node_is_a_newcomer() {
    let world = World::new(17);
    let [a, _b, c] = world.settled(["a", "b", "c"]).await;
    c.beats.leave().await;
    c.beats.stop().await;
    c.kill().await;
    let back = world.group("c", 2);
    back.beats.ready().await;
    throughout(9.0, "young", || a.ring() == names("ab")).await;
    within(2.0, "settled", || a.ring() == names("abc")).await;
}

#[tokio::test(start_paused = true)]
async fn nodes_of_another_cluster_are_ignored() {
    let world = World::new(18);
    let [a] = world.settled(["a"]).await;
    let other = world.start("other", "b", &[Service::Group], 1);
    other.beats.serve();
    sleep(20.0).await;
    assert_eq!((a.live(), other.live()), (names("a"), names("b")));
    assert!(a.value("beats_foreign_total") > 15.0);
}

#[tokio::test(start_paused = true)]
async fn two_processes_with_one_id_are_noticed_and_the_newer_stands() {
    let world = World::new(19);
    let [a, older] = world.settled(["a", "b"]).await;
    let newer = world.group("b", 7);
    sleep(20.0).await;
    for process in [&a, &older, &newer] {
        assert_eq!(process.address("b").as_deref(), Some("b:7"), "the newer one has the id");
    }
    assert!(*older.beats.superseded().borrow() && !*newer.beats.superseded().borrow());
    for process in [&a, &older, &newer] {
        assert!(process.value("conflicts_total") >= 1.0, "everybody notices");
    }
    newer.kill().await;
    within(10.0, "the older one is back", || a.address("b").as_deref() == Some("b:1")).await;
    within(1.0, "and knows it", || !*older.beats.superseded().borrow()).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_makes_no_progress_is_given_up_by_the_others_only() {
    let world = World::new(20);
    let [a, b, stuck] = world.settled(["a", "b", "c"]).await;
    stuck.progress.store(false, Ordering::Relaxed);
    within(9.2, "given up", || a.ring() == names("ab") && b.ring() == names("ab")).await;
    throughout(30.0, "it still sees them", || stuck.live() == names("abc")).await;
    assert!(stuck.value("beats_skipped_total") > 30.0);
    stuck.progress.store(true, Ordering::Relaxed);
    within(1.1, "back", || a.ring() == names("abc")).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_starts_without_the_bus_waits_for_it() {
    let world = World::new(21);
    let _others = world.settled(["a", "b"]).await;
    let new = world.start(CLUSTER, "c", &[Service::Group], 1);
    new.faulty.down();
    new.beats.serve();
    sleep(30.0).await;
    assert!(new.ring().is_empty(), "a ring of its own making would be a guess");
    new.faulty.up();
    new.beats.ready().await;
    assert_eq!(new.ring(), names("ab"));
}

fn names(letters: &str) -> Vec<String> {
    letters.chars().map(String::from).collect()
}
