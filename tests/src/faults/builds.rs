//! Two builds in one cluster: this one, and one that adds a step of the schema, a field of `Append` and a control record
//! (the feature `next`).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use linnet_local::cluster;

use super::rows::Stage;
use super::run::{Report, Running};

/// Services that differ between the builds, or that speak with those that do.
const ROLES: [&str; 4] = ["gateway", "api", "group", "message-store"];
/// Sends that are answered while both builds are there.
const TRAFFIC: u64 = 20;
const WITHIN: Duration = Duration::from_secs(60);

/// The next build: `LINNET_NEXT_BIN`, or built.
///
/// # Errors
/// When it cannot be built.
pub(super) async fn next() -> Result<PathBuf> {
    match std::env::var_os("LINNET_NEXT_BIN") {
        Some(file) => Ok(file.into()),
        None => tokio::task::spawn_blocking(|| cluster::binary_with("next")).await?,
    }
}

/// Upgraded in one order and back, and in the other order and back, under load; the schema first, as always.
pub(super) async fn both_orders_and_back(stage: &mut Stage) -> Result<Report> {
    let next = next().await?;
    let old = cluster::binary()?;
    let config = stage.ground.cluster.dir().join("config/api-1.toml");
    let mut running = stage.lane.begin("two_builds").await?;
    let played = play(stage, &mut running, &config, &old, &next).await;
    if let Err(why) = &played {
        running.note(&format!("failed: {why:#}"));
        stage.ground.mend().await?;
    }
    let report = stage.lane.finish(running).await?;
    if let Err(why) = played {
        println!("{report}");
        return Err(why);
    }
    Ok(report)
}

async fn play(stage: &Stage, running: &mut Running, config: &Path, old: &Path, next: &Path) -> Result<()> {
    running.traffic(TRAFFIC, WITHIN).await?;
    running.strike("the schema of the next build");
    migrate(next, config)?;
    let mut backwards = ROLES;
    backwards.reverse();
    for (build, binary, roles) in
        [("next", next, ROLES), ("old", old, ROLES), ("next", next, backwards), ("old", old, backwards)]
    {
        for role in roles {
            for name in stage.ground.of_role(role) {
                running.note(&format!("{name}: {build} build"));
                stage.ground.cluster.stop(name).await?;
                stage.ground.cluster.start_of(name, Some(binary)).await?;
                stage.ground.whole().await?;
            }
            // With some roles of one build and some of the other.
            running.traffic(TRAFFIC, WITHIN).await?;
        }
    }
    running.healed("back");
    Ok(())
}

fn migrate(linnet: &Path, config: &Path) -> Result<()> {
    let output = Command::new(linnet).args(["migrate", "run", "--config"]).arg(config).output().context("migrate")?;
    ensure!(output.status.success(), "migrate run: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
