//! A whole cluster, the smallest there is: up, broken on purpose, down, and nothing left.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use linnet_local::{Cluster, Options};
use serde_json::Value;

fn smallest(dir: &Path) -> Options {
    Options { gateways: 1, owners: 1, replicas: 1, ..Options::new(dir) }
}

fn process(cluster: &Cluster, name: &str) -> Result<Value> {
    let status = cluster.status()?;
    let all = status["processes"].as_array().context("processes")?;
    all.iter().find(|process| process["name"] == name).cloned().context("a process")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_comes_up_is_broken_and_mended_and_leaves_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("cluster");
    let cluster = Cluster::up(smallest(&dir)).await?;
    assert!(Cluster::up(smallest(&dir)).await.is_err(), "one cluster a folder");

    let before = process(&cluster, "group-1")?;
    cluster.kill("group-1").await?;
    assert_eq!(process(&cluster, "group-1")?["state"], "dead");
    assert!(cluster.kill("group-1").await.is_err(), "it is dead already");
    cluster.start("group-1").await?;
    let after = process(&cluster, "group-1")?;
    assert_eq!((&after["listen"], &after["grpc"]), (&before["listen"], &before["grpc"]));
    assert_ne!(after["pid"], before["pid"]);

    cluster.pause("nats-1").await?;
    assert_eq!(process(&cluster, "nats-1")?["state"], "paused");
    cluster.resume("nats-1").await?;
    assert_eq!(cluster.cut("gateway-1", "group").await?, 2, "each may call the other");
    assert_eq!(cluster.heal("gateway-1", "group-1").await?, 2);
    assert!(cluster.cut("nats-1", "cql-1").await.is_err(), "servers have no link");
    cluster.loss("gateway-1", 10).await?;
    cluster.loss("gateway-1", 0).await?;

    let (app, _) = cluster.tenant("another").await?;
    assert_ne!(u64::from(app), cluster.status()?["sdkappid"].as_u64().context("a tenant")?);
    let pids: Vec<PathBuf> = cluster.status()?["processes"]
        .as_array()
        .context("processes")?
        .iter()
        .filter_map(|process| Some(PathBuf::from(format!("/proc/{}", process["pid"].as_u64()?))))
        .collect();
    assert_eq!(pids.len(), 12, "eight services, three servers, the relay");
    cluster.down().await?;
    assert!(!dir.exists());
    for pid in pids {
        // A zombie that nobody has waited for has no executable.
        assert!(std::fs::read_link(pid.join("exe")).is_err(), "{} is left", pid.display());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_cannot_come_up_leaves_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("cluster");
    let options = Options { binary: Some("/bin/false".into()), ..smallest(&dir) };
    let why = Cluster::up(options).await.err().context("/bin/false is no Linnet")?;
    assert!(format!("{why:#}").contains("linnet certs init"), "{why:#}");
    assert!(!dir.exists());
    Ok(())
}
