//! What goes wrong, and when: drawn by seed.

use std::time::Duration;

use linnet_bus::FaultPlan;

use crate::world::World;

/// Something that strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strike {
    KillOwner,
    PauseOwner,
    CutFromBus,
    Doubt,
    KillGateway,
    CutSockets,
    StoreAway,
}

const STRIKES: [Strike; 7] = [
    Strike::KillOwner,
    Strike::PauseOwner,
    Strike::CutFromBus,
    Strike::Doubt,
    Strike::KillGateway,
    Strike::CutSockets,
    Strike::StoreAway,
];

/// Four strikes, one after another, with the store and the calls between nodes rough all the time; then all is well again
/// but for the loss on the bus.
pub(crate) async fn storm(world: &mut World) {
    let mut strikes = STRIKES;
    world.rng.shuffle(&mut strikes);
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.rough();
    for strike in strikes.into_iter().take(4) {
        let wait = Duration::from_millis(world.rng.below(1_500));
        tokio::time::sleep(wait).await;
        if std::env::var_os("SEED").is_some() {
            println!("{:>8.3} {strike:?}", world.clock.mono().as_secs_f64());
        }
        hit(world, strike).await;
        world.guards.clone().rise(&world.rows.store(), world.seed).await;
    }
    world.heal();
}

async fn hit(world: &mut World, strike: Strike) {
    let at = world.rng.below(world.owners.len() as u64) as usize;
    let span = Duration::from_millis(500 + world.rng.below(4_000));
    match strike {
        Strike::KillOwner => world.replace_owner().await,
        Strike::KillGateway => world.replace_gateway().await,
        Strike::CutSockets => world.cut_sockets(),
        Strike::PauseOwner => {
            let owner = &world.owners[at];
            world.sim.pause(&owner.id);
            owner.gate.set(false);
            // Half of the time the others notice.
            let noticed = world.rng.chance(50);
            if noticed {
                world.leave(at, Duration::from_secs(1));
            }
            tokio::time::sleep(span * 2).await;
            let owner = &world.owners[at];
            owner.gate.set(true);
            world.sim.resume(&owner.id);
            tokio::time::sleep(Duration::from_millis(500)).await;
            world.gossip(Duration::from_millis(1_500));
        }
        Strike::CutFromBus => {
            let owner = &world.owners[at];
            owner.faulty.down();
            owner.faulty.set(FaultPlan::dropping(100));
            tokio::time::sleep(span).await;
            let owner = &world.owners[at];
            owner.faulty.set(FaultPlan::dropping(crate::world::LOSS));
            owner.faulty.up();
        }
        Strike::Doubt => {
            for _ in 0..3 {
                world.doubt();
                tokio::time::sleep(span / 4).await;
                world.gossip(Duration::from_secs(1));
                tokio::time::sleep(span / 6).await;
            }
        }
        Strike::StoreAway => {
            world.rows.set_down(true);
            world.struck.count("store away", 1);
            tokio::time::sleep(span / 3).await;
            world.rows.set_down(false);
        }
    }
}
