//! What an idle connection costs: alone in its process, because it looks at the whole process.
#![allow(dead_code, reason = "shares its helpers with the other tests")]

#[path = "../it/fakes.rs"]
mod fakes;
#[path = "../it/raw.rs"]
mod raw;

use fakes::Node;
use linnet_gateway::Config;
use raw::Raw;

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or_default()
}

/// Both ends are in this process, so this is an upper bound; the real figure is taken by a load run.
#[tokio::test]
async fn idle_connections_cost_little_memory() {
    let config = Config { sign_ins_per_s: 100_000, ..Config::default() };
    let node = Node::start(config).await;
    let mut held = Vec::new();
    let mut seen = Vec::new();
    for n in 0..1200 {
        let mut raw = Raw::open(&node, "/ws").await;
        raw.sign_in(&node, &format!("user-{n}")).await;
        raw.read = Vec::new();
        held.push(raw);
        if n == 199 || n == 1199 {
            node.world.lock().accounts.shrink_to_fit();
            seen.push(resident_kib());
        }
    }
    let each = (seen[1] - seen[0]) * 1024 / 1000;
    eprintln!("{each} bytes a connection, both ends and the fakes included");
    assert!(each < 8_000, "{each} bytes a connection");
}
