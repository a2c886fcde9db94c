//! What the app hears of calls that store no message: sure before the caller is answered.

use linnet_proto::messages::{ReadC2cRequest, RevokeRequest};
use linnet_types::{AppSettings, Refusal, code};

use crate::world::{APP, World, node};

const SENT: &str = "C2C.CallbackAfterSendMsg";
const READ: &str = "C2C.CallbackAfterMsgReport";
const RECALLED: &str = "C2C.CallbackAfterMsgWithDraw";

fn hooked() -> AppSettings {
    AppSettings { webhook_url: "http://app".into(), webhook_events: "all".into(), ..AppSettings::default() }
}

fn times(world: &World, command: &str) -> usize {
    world.commands().iter().filter(|told| *told == command).count()
}

async fn recall(world: &World, seq: u64) -> Result<u32, Refusal> {
    let request = RevokeRequest {
        app: APP,
        peer_a: "alice".into(),
        peer_b: "bob".into(),
        seqs: vec![seq],
        ..RevokeRequest::default()
    };
    let reply = world.pair("alice", "bob").revoke(request).await;
    let reply = reply.map_err(|why| linnet_runtime::status::refusal_or(&why, 1))?;
    Ok(reply.into_inner().results[0].code)
}

async fn read(world: &World) -> Result<u64, Refusal> {
    let request = ReadC2cRequest { app: APP, reader: "bob".into(), peer: "alice".into(), ..ReadC2cRequest::default() };
    let reply = world.pair("alice", "bob").read_c2c(request).await;
    Ok(reply.map_err(|why| linnet_runtime::status::refusal_or(&why, 1))?.into_inner().read_seq)
}

#[tokio::test(start_paused = true)]
async fn an_acknowledged_recall_is_in_the_queue_also_when_its_owner_was_killed_on_the_way() {
    let mut world = World::with(71, hooked()).await;
    let first = world.start("m1").await;
    for text in ["one", "two"] {
        world.say("alice", "bob", text).await;
    }
    world.eventually("both are told", async || times(&world, SENT) == 2).await;
    assert_eq!(recall(&world, 1).await, Ok(0));
    assert_eq!(times(&world, RECALLED), 1, "before the caller is answered");

    *world.outside.callbacks_down.lock() = true;
    let refused = recall(&world, 2).await.unwrap_err();
    assert!(refused.retry_after_ms.is_some(), "{refused:?}");
    world.script.leave(&node("m1"));
    first.kill().await;
    *world.outside.callbacks_down.lock() = false;
    let _second = world.start("m2").await;
    assert_eq!(recall(&world, 2).await, Ok(code::C2C_ALREADY_RECALLED));
    assert_eq!(times(&world, RECALLED), 2);
    assert_eq!(recall(&world, 2).await, Ok(code::C2C_ALREADY_RECALLED));
    assert_eq!(times(&world, RECALLED), 2, "the same event again");
}

#[tokio::test(start_paused = true)]
async fn an_acknowledged_reading_is_in_the_queue_also_when_its_owner_was_killed_on_the_way() {
    let mut world = World::with(72, hooked()).await;
    let first = world.start("m1").await;
    world.say("alice", "bob", "one").await;
    assert_eq!(read(&world).await, Ok(1));
    assert_eq!(times(&world, READ), 1, "before the caller is answered");

    world.say("alice", "bob", "two").await;
    *world.outside.callbacks_down.lock() = true;
    let refused = read(&world).await.unwrap_err();
    assert!(refused.retry_after_ms.is_some(), "{refused:?}");
    world.script.leave(&node("m1"));
    first.kill().await;
    *world.outside.callbacks_down.lock() = false;
    let _second = world.start("m2").await;
    assert_eq!(read(&world).await, Ok(2));
    assert_eq!(times(&world, READ), 2);
    assert_eq!(read(&world).await, Ok(2));
    assert_eq!(times(&world, READ), 2, "the same event again");
}
