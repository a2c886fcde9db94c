//! What strikes: each fault from its first blow until all is well again, under load.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use linnet_runtime::Rng;

use super::ground::Ground;
use super::run::Running;

/// How long a pause, a cut and a loss last in the table. Redis is away three times as long, the app's server half of it.
pub const SPELL: Duration = Duration::from_secs(20);
/// Sends under way when a fault is over are answered within it.
const CATCH_UP: Duration = Duration::from_secs(60);
/// Answered sends before, and after, so that a fault meets traffic.
const TRAFFIC: u64 = 40;
const TRAFFIC_WITHIN: Duration = Duration::from_secs(30);
/// A process that was told to leave is gone within it.
const LEAVES: Duration = Duration::from_secs(60);
/// How late the app's server answers when it is slow: later than it may (`webhook.timeout_ms`).
const HOOK_LATE: Duration = Duration::from_millis(2_500);
/// How late the store is when it is slow.
const SLOW_MS: u64 = 1_500;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing: how it is usually.
    Calm,
    /// SIGKILL of a gateway.
    GatewayKilled,
    /// SIGKILL of an owner: a group node, then a message-store node.
    OwnerKilled,
    /// SIGSTOP of an owner for 20 s, long enough to be replaced.
    OwnerPaused,
    /// An owner is told to leave.
    Drained,
    /// Every service is stopped and started, one after another.
    RollingRestart,
    /// One owner and one gateway are cut from the bus, so that two nodes believe they own.
    TwoOwners,
    /// One NATS server of several is killed.
    NatsOneKilled,
    /// All NATS servers are killed and started again.
    NatsAllRestarted,
    /// Every service loses 10 % of its messages on the bus.
    NatsLoss,
    /// One service is cut from the bus.
    NatsCut,
    /// Redis forgets everything.
    RedisEmptied,
    /// Redis is away for a minute.
    RedisGone,
    /// One CQL node is killed and brought back.
    CqlKilled,
    /// One CQL node is paused for 20 s.
    CqlPaused,
    /// The store is slow.
    CqlSlow,
    /// The app's server is dead.
    HooksDead,
    /// The app's server answers late.
    HooksSlow,
    /// The app's server answers nonsense.
    HooksNonsense,
}

impl Fault {
    /// Those that any cluster can have; the others need three CQL nodes.
    pub const COMMON: [Self; 15] = [
        Self::GatewayKilled,
        Self::OwnerKilled,
        Self::OwnerPaused,
        Self::Drained,
        Self::RollingRestart,
        Self::TwoOwners,
        Self::NatsOneKilled,
        Self::NatsAllRestarted,
        Self::NatsLoss,
        Self::NatsCut,
        Self::RedisEmptied,
        Self::RedisGone,
        Self::HooksDead,
        Self::HooksSlow,
        Self::HooksNonsense,
    ];

    /// Those of the store.
    pub const CQL: [Self; 3] = [Self::CqlKilled, Self::CqlPaused, Self::CqlSlow];

    /// Its name in a verdict.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::GatewayKilled => "gateway killed",
            Self::OwnerKilled => "owner killed",
            Self::OwnerPaused => "owner paused",
            Self::Drained => "owner drained",
            Self::RollingRestart => "rolling restart",
            Self::TwoOwners => "two owners",
            Self::NatsOneKilled => "one NATS killed",
            Self::NatsAllRestarted => "all NATS restarted",
            Self::NatsLoss => "10 % loss on the bus",
            Self::NatsCut => "cut from the bus",
            Self::RedisEmptied => "Redis emptied",
            Self::RedisGone => "Redis gone",
            Self::CqlKilled => "CQL node killed",
            Self::CqlPaused => "CQL node paused",
            Self::CqlSlow => "slow store",
            Self::HooksDead => "webhooks dead",
            Self::HooksSlow => "webhooks slow",
            Self::HooksNonsense => "webhooks nonsense",
        }
    }

    /// Strikes and heals; all is well again when it returns.
    ///
    /// # Errors
    /// When the cluster cannot be broken or mended, or traffic does not go on afterwards.
    pub async fn inflict(self, ground: &Ground, running: &mut Running, rng: &Rng, spell: Duration) -> Result<()> {
        running.traffic(TRAFFIC, TRAFFIC_WITHIN).await?;
        match self {
            Self::Calm => running.strike("nothing"),
            Self::GatewayKilled => killed(ground, running, &one(ground, "gateway", rng)).await?,
            Self::OwnerKilled => {
                killed(ground, running, &one(ground, "group", rng)).await?;
                over(ground, running).await?;
                killed(ground, running, &one(ground, "message-store", rng)).await?;
            }
            Self::OwnerPaused => {
                for role in ["group", "message-store"] {
                    paused(ground, running, &one(ground, role, rng), spell).await?;
                    over(ground, running).await?;
                }
            }
            Self::Drained => {
                for role in ["group", "message-store"] {
                    drained(ground, running, &one(ground, role, rng)).await?;
                    over(ground, running).await?;
                }
            }
            Self::RollingRestart => rolling(ground, running).await?,
            Self::TwoOwners => {
                let names = [one(ground, "group", rng), one(ground, "message-store", rng), one(ground, "gateway", rng)];
                cut(ground, running, &names, spell).await?;
            }
            Self::NatsOneKilled => killed(ground, running, &one(ground, "nats", rng)).await?,
            Self::NatsAllRestarted => restarted(ground, running, ground.of_role("nats")).await?,
            Self::NatsLoss => loss(ground, running, spell).await?,
            Self::NatsCut => {
                let role = ["gateway", "group", "message-store", "session"][usize::try_from(rng.below(4))?];
                cut(ground, running, &[one(ground, role, rng)], spell).await?;
            }
            Self::RedisEmptied => restarted(ground, running, ground.of_role("redis")).await?,
            Self::RedisGone => {
                let redis = one(ground, "redis", rng);
                running.strike(&format!("kill {redis}"));
                ground.cluster.kill(&redis).await?;
                let asked = running.newcomers_wait().await;
                tokio::time::sleep(spell * 3).await;
                ground.cluster.start(&redis).await?;
                running.healed(&format!("{redis} is back"));
                asked?;
            }
            Self::CqlKilled => away(ground, running, &one(ground, "cql", rng), spell / 2).await?,
            Self::CqlPaused => paused(ground, running, &one(ground, "cql", rng), spell).await?,
            Self::CqlSlow => slow(ground, running, spell).await?,
            Self::HooksDead => hooks(running, spell, "is dead", |running| running.door.shut()).await?,
            Self::HooksSlow => hooks(running, spell, "is slow", |running| running.door.slow(HOOK_LATE)).await?,
            Self::HooksNonsense => hooks(running, spell, "answers nonsense", |running| running.door.nonsense()).await?,
        }
        running.caught_up(CATCH_UP).await?;
        running.traffic(TRAFFIC, TRAFFIC_WITHIN).await
    }
}

/// One fault is over before the next strikes: every node is there, and nobody waits for an answer from before.
async fn over(ground: &Ground, running: &Running) -> Result<()> {
    ground.whole().await?;
    running.caught_up(CATCH_UP).await
}

fn one(ground: &Ground, role: &str, rng: &Rng) -> String {
    let names = ground.of_role(role);
    names[usize::try_from(rng.below(names.len() as u64)).unwrap_or(0)].clone()
}

/// SIGKILL, some traffic without it, and back.
async fn killed(ground: &Ground, running: &mut Running, name: &str) -> Result<()> {
    running.strike(&format!("kill {name}"));
    ground.cluster.kill(name).await?;
    running.caught_up(CATCH_UP).await?;
    running.traffic(TRAFFIC, CATCH_UP).await?;
    ground.cluster.start(name).await?;
    running.healed(&format!("{name} is back"));
    Ok(())
}

/// SIGKILL, away for a while, and back.
async fn away(ground: &Ground, running: &mut Running, name: &str, spell: Duration) -> Result<()> {
    running.strike(&format!("kill {name}"));
    ground.cluster.kill(name).await?;
    tokio::time::sleep(spell).await;
    ground.cluster.start(name).await?;
    running.healed(&format!("{name} is back"));
    Ok(())
}

/// SIGKILL of all at once and back at once.
async fn restarted(ground: &Ground, running: &mut Running, names: &[String]) -> Result<()> {
    running.strike(&format!("kill {}", names.join(", ")));
    for name in names {
        ground.cluster.kill(name).await?;
    }
    futures::future::try_join_all(names.iter().map(|name| ground.cluster.start(name))).await?;
    running.healed("all are back");
    Ok(())
}

/// SIGSTOP for a while: long enough to be taken for dead, and then to come back with what it had.
async fn paused(ground: &Ground, running: &mut Running, name: &str, spell: Duration) -> Result<()> {
    running.strike(&format!("pause {name}"));
    ground.cluster.pause(name).await?;
    tokio::time::sleep(spell).await;
    ground.cluster.resume(name).await?;
    running.healed(&format!("resume {name}"));
    running.caught_up(CATCH_UP).await
}

async fn drained(ground: &Ground, running: &mut Running, name: &str) -> Result<()> {
    running.strike(&format!("drain {name}"));
    ground.cluster.drain(name).await?;
    gone(ground, name).await?;
    running.note(&format!("{name} has left"));
    running.traffic(TRAFFIC, CATCH_UP).await?;
    ground.cluster.start(name).await?;
    running.healed(&format!("{name} is back"));
    Ok(())
}

/// Waits until a process that was told to leave has ended.
async fn gone(ground: &Ground, name: &str) -> Result<()> {
    let end = Instant::now() + LEAVES;
    loop {
        let status = ground.cluster.status()?;
        let processes = status["processes"].as_array().into_iter().flatten();
        if processes.into_iter().any(|process| process["name"] == name && process["state"] == "dead") {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("{name} was told to leave and still runs after {LEAVES:?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// SIGTERM and start of every service, the next when all know each other again.
async fn rolling(ground: &Ground, running: &mut Running) -> Result<()> {
    for name in ground.services() {
        running.strike(&format!("restart {name}"));
        ground.cluster.stop(&name).await?;
        ground.cluster.start(&name).await?;
        ground.whole().await?;
    }
    running.healed("all were restarted");
    Ok(())
}

async fn cut(ground: &Ground, running: &mut Running, names: &[String], spell: Duration) -> Result<()> {
    running.strike(&format!("cut {} from nats", names.join(", ")));
    for name in names {
        ground.cluster.cut(name, "nats").await?;
    }
    tokio::time::sleep(spell).await;
    for name in names {
        ground.cluster.heal(name, "nats").await?;
    }
    running.healed("healed");
    running.caught_up(CATCH_UP).await
}

async fn loss(ground: &Ground, running: &mut Running, spell: Duration) -> Result<()> {
    running.strike("every service loses 10 % of its bus messages");
    for name in ground.services() {
        ground.cluster.loss(&name, 10).await?;
    }
    tokio::time::sleep(spell).await;
    // It stays until the run is over: everybody has everything all the same.
    running.lossy = true;
    running.healed("senders go on, the loss stays");
    Ok(())
}

/// Ends what a fault leaves on: loss on the bus.
///
/// # Errors
/// When a service does not answer.
pub async fn clear(ground: &Ground) -> Result<()> {
    for name in ground.services() {
        ground.cluster.loss(&name, 0).await?;
    }
    Ok(())
}

async fn slow(ground: &Ground, running: &mut Running, spell: Duration) -> Result<()> {
    running.strike(&format!("every answer of the store is {SLOW_MS} ms late, each way"));
    ground.cluster.delay("*", "cql", SLOW_MS).await?;
    tokio::time::sleep(spell).await;
    ground.cluster.delay("*", "cql", 0).await?;
    running.healed("prompt again");
    running.caught_up(CATCH_UP).await
}

/// The app's server is not as it should be for a while.
async fn hooks(running: &mut Running, spell: Duration, how: &str, change: impl Fn(&Running)) -> Result<()> {
    running.strike(&format!("the app's server {how}"));
    change(running);
    tokio::time::sleep(spell / 2).await;
    running.door.sound();
    running.door.open().await?;
    running.healed("the app's server is in order");
    Ok(())
}
