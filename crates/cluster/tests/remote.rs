//! Calls between processes: order, size, faults, who may call.

mod echo;
mod process;

use echo::{Echo, EchoClient};
use linnet_cluster::{RpcConfig, Service};
use process::certs::Authority;
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
    assert_eq!(echo.call("x").await.expect("answered"), "owner: x");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_crosses_with_certificates() {
    let ca = Authority::new();
    let owner = Process::start("owner", ca.config("owner", &[Service::Group]), RpcConfig::default()).await;
    owner.serve(Service::Group, Echo::routes("owner"));
    let caller = Process::start("caller", ca.config("caller", &[Service::Gateway]), RpcConfig::default()).await;
    caller.script.set([owner.node(&[Service::Group])]);
    let rpc = caller.cluster.for_node(Service::Group, &id("owner")).expect("known");
    let mut echo = EchoClient::new(rpc);
    assert_eq!(echo.call("x").await.expect("answered"), "owner: x");
}
