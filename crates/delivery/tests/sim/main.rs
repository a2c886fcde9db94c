//! Owners and gateways over a bus that loses, delays and reorders, in simulated time. A failure prints its seed; run it
//! again with `SEED=<seed>`.
#![expect(clippy::unwrap_used, reason = "tests")]

mod gateway;
mod owner;
mod world;

use std::time::Duration;

use linnet_bus::FaultPlan;
use linnet_cluster::NetFaults;
use linnet_runtime::Rng;
use world::{Sizes, Struck, World};

const WITHIN: Duration = Duration::from_secs(5);

fn seeds(count: u64) -> std::ops::Range<u64> {
    match std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..count,
    }
}

fn lossy() -> FaultPlan {
    FaultPlan { drop_percent: 10, delay_percent: 10, reorder_percent: 10, max_delay: Duration::from_millis(100) }
}

fn slow_net() -> NetFaults {
    NetFaults {
        lose_request_percent: 2,
        lose_reply_percent: 2,
        delay_percent: 20,
        max_delay: Duration::from_millis(20),
    }
}

/// Runs `scenario` for one seed on a runtime of its own whose clock is simulated.
fn simulate<F, R>(scenario: F) -> R
where
    F: Future<Output = R>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(scenario)
}

/// Senders stop, and within 5 s every receiver has every batch, live and in order: nothing is read from the log.
#[test]
fn with_a_tenth_lost_everybody_has_everything_within_5_s() {
    let mut struck = Struck::default();
    for seed in seeds(12) {
        simulate(async {
            let rng = Rng::seeded(seed);
            let world = World::start(&rng, Sizes { small: 4, large: 4, users: 8 }).await;
            world.faults(lossy(), slow_net());
            for _ in 0..60 {
                for conv in world.convs() {
                    if rng.chance(50) {
                        world.send(conv);
                    }
                }
                tokio::time::sleep(Duration::from_millis(rng.below(40))).await;
            }
            tokio::time::sleep(WITHIN).await;
            world.check(seed, "steady");
            let (live, fetched) = world.totals();
            assert!(live > 1000, "seed {seed}: only {live} delivered");
            assert_eq!(fetched, 0, "seed {seed}: read from the log although owners keep what was lost");
            assert_eq!(world.check_link_law(seed), 0, "seed {seed}");
            struck.add(&world);
        });
    }
    struck.check();
}

/// Owners change, users change their gateway, members are kicked and come back: a kicked user receives nothing after the
/// kick, everybody else has what the log has. 10,000 schedules: 40 conversations under 250 seeds, each with its own.
#[test]
fn a_kicked_user_receives_nothing_after_the_kick() {
    let mut struck = Struck::default();
    let (mut live, mut fetched, mut unheard) = (0, 0, 0);
    for seed in seeds(250) {
        simulate(async {
            let rng = Rng::seeded(seed);
            let world = World::start(&rng, Sizes { small: 20, large: 20, users: 6 }).await;
            world.faults(lossy(), slow_net());
            for _ in 0..rng.below(15) + 10 {
                for conv in world.convs() {
                    match rng.below(100) {
                        0..40 => world.send(conv),
                        40..50 => world.kick(conv),
                        50..60 => world.join(conv),
                        60..63 => world.store_unpublished(conv),
                        63..65 => world.grow(conv),
                        _ => {}
                    }
                }
                match rng.below(100) {
                    0..8 => world.change_owners(&rng),
                    8..20 => world.publish_late(),
                    20..40 => world.move_user(&rng),
                    _ => {}
                }
                tokio::time::sleep(Duration::from_millis(rng.below(400))).await;
            }
            world.touch_unpublished();
            tokio::time::sleep(WITHIN).await;
            world.check(seed, "schedules");
            tokio::time::sleep(Duration::from_secs(20)).await;
            unheard += world.check_link_law(seed);
            let totals = world.totals();
            (live, fetched) = (live + totals.0, fetched + totals.1);
            struck.add(&world);
        });
    }
    println!("{live} delivered live, {fetched} read from the log, {unheard} batches sent unheard of");
    struck.check();
    assert!(struck.take_overs > 0 && struck.kicks > 0 && struck.moves > 0 && struck.late > 0, "{struck:?}");
    assert!(unheard * 1000 < live, "{unheard} batches are not accounted for");
    assert!(live > fetched, "delivery carries more than the log: {live} against {fetched}");
}

/// A new owner, while everything it says first is lost: gateways hear of it by its repeats, and nothing is missing.
#[test]
fn a_new_tenure_is_heard_of_although_its_announcement_is_lost() {
    for seed in seeds(10) {
        simulate(async {
            let rng = Rng::seeded(seed);
            let world = World::start(&rng, Sizes { small: 2, large: 2, users: 4 }).await;
            world.convs().for_each(|conv| world.send(conv));
            tokio::time::sleep(Duration::from_secs(1)).await;
            world.convs().for_each(|conv| world.store_unpublished(conv));
            world.faults(FaultPlan::dropping(100), NetFaults::default());
            world.change_owners(&rng);
            world.touch_unpublished();
            tokio::time::sleep(Duration::from_millis(400)).await;
            world.heal();
            tokio::time::sleep(WITHIN).await;
            world.check(seed, "take-over");
            assert!(world.totals().1 > 0, "seed {seed}: what was never published can only come from the log");
        });
    }
}

/// While a group crosses the limit its batches go both ways, and each message is handed on once.
#[test]
fn a_growing_group_misses_nothing_and_nothing_comes_twice() {
    let mut struck = Struck::default();
    for seed in seeds(12) {
        simulate(async {
            let rng = Rng::seeded(seed);
            let world = World::start(&rng, Sizes { small: 6, large: 0, users: 8 }).await;
            world.faults(lossy(), slow_net());
            for round in 0..120 {
                for conv in world.convs() {
                    match rng.below(100) {
                        0..50 => world.send(conv),
                        50..55 if round > 10 => world.grow(conv),
                        _ => {}
                    }
                }
                if round == 100 {
                    tokio::time::sleep(Duration::from_secs(30)).await;
                    world.crossed();
                }
                tokio::time::sleep(Duration::from_millis(rng.below(40))).await;
            }
            tokio::time::sleep(WITHIN).await;
            world.check(seed, "crossing");
            assert_eq!(world.doubles(), 0, "seed {seed}");
            struck.add(&world);
        });
    }
    struck.check();
}

/// The bus is away longer than anything is kept or repeated, and comes back: within 5 s everybody has everything, and the
/// kicked are out.
#[test]
fn after_an_outage_of_the_bus_everybody_has_everything_within_5_s() {
    for seed in seeds(20) {
        simulate(async {
            let rng = Rng::seeded(seed);
            let world = World::start(&rng, Sizes { small: 6, large: 6, users: 6 }).await;
            world.faults(lossy(), slow_net());
            let traffic = async |rounds: u64| {
                for _ in 0..rounds {
                    for conv in world.convs() {
                        match rng.below(100) {
                            0..30 => world.send(conv),
                            30..35 => world.kick(conv),
                            35..40 => world.join(conv),
                            _ => {}
                        }
                    }
                    match rng.below(100) {
                        0..10 => world.change_owners(&rng),
                        10..30 => world.move_user(&rng),
                        _ => {}
                    }
                    tokio::time::sleep(Duration::from_millis(rng.below(300))).await;
                }
            };
            traffic(10).await;
            world.bus_down();
            traffic(10).await;
            tokio::time::sleep(Duration::from_secs(rng.below(40))).await;
            world.bus_up();
            tokio::time::sleep(WITHIN).await;
            world.check(seed, "outage");
            assert!(world.totals().1 > 0, "seed {seed}: some of it can only come from the log");
        });
    }
}
