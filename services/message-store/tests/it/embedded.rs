//! The same on the store of one machine, in a folder.

use std::path::Path;

use linnet_runtime::{Clock, Metrics};
use linnet_store::Store;
use linnet_store::embedded::{Config, Embedded};

use crate::world::{World, node, texts};

async fn open(dir: &Path, clock: &Clock) -> Store {
    // The folder is free once the store before it is dropped, and the threads it waits for have ended.
    for _ in 0..200 {
        let config = Config { reserve_bytes: 1 << 20, ..Config::new(dir) };
        if let Ok(store) = Embedded::open(config, clock.clone(), &Metrics::new()) {
            return store;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the store in {} does not open", dir.display());
}

#[tokio::test]
async fn a_restart_from_the_same_folder_shows_everything_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(60).await;
    world.store = open(dir.path(), &world.clock).await;
    let first = world.start("m1").await;
    let mut acknowledged = Vec::new();
    for n in 0..50 {
        let reply = world.say("alice", "bob", &n.to_string()).await;
        acknowledged.push((reply.seq, n.to_string()));
    }
    let read = World::numbered("bob", "alice", 7);
    world.send(read.clone()).await.unwrap();
    world.read("bob", "alice", 20).await;
    world.script.leave(&node("m1"));
    world.cluster_remove(&node("m1"));
    first.kill().await;
    world.store = world.rows.store();
    world.store = open(dir.path(), &world.clock).await;
    let _second = world.start("m2").await;
    let page = world.history("bob", "alice").await;
    let mut stored: Vec<_> = page.messages.iter().map(|message| message.seq).zip(texts(&page)).collect();
    stored.reverse();
    assert_eq!(stored[..50], acknowledged[..]);
    assert!(world.send(read).await.unwrap().duplicate);
    assert_eq!(world.unread("bob", "C2C:alice").await, 30);
    assert_eq!(world.say("alice", "bob", "next").await.seq, 52);
}
