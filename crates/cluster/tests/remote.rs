//! Calls between processes: order, size, faults, who may call.

mod echo;
mod process;

use echo::{Echo, EchoClient};
use linnet_cluster::{RpcConfig, Service};
use process::{Process, id, open};

async fn two() -> (Process, Process) {
    let owner = Process::start("owner", open("owner"), RpcConfig::default()).await;
    owner.serve(Service::Group, Echo::routes("owner"));
    let caller = Process::start("caller", open("caller"), RpcConfig::default()).await;
    caller.script.set([owner.node(&[Service::Group])]);
    (owner, caller)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_crosses() {
    let (_owner, caller) = two().await;
    let rpc = caller.cluster.for_node(Service::Group, &id("owner")).expect("known");
    let mut echo = EchoClient::new(rpc);
    let reply = echo.call("x").await;
    assert!(reply.is_ok(), "{reply:?}\n{}\n{}", caller.metrics.encode(), _owner.metrics.encode());
}
