//! Owners that each believe a log is theirs, on a real server.

use std::sync::{Arc, Mutex};

use linnet_runtime::{Clock, Rng};
use linnet_store::logs::Logs;

use crate::cql_store;
use crate::owners::{Owner, Seen, judge};

const OWNERS: u64 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_who_depose_each_other_lose_repeat_and_skip_nothing() {
    let store = cql_store::store().await;
    let (clock, rng) = (Clock::system(), Rng::seeded(5));
    let seen = Arc::new(Mutex::new(Seen::default()));
    let owners = (0..OWNERS).map(|name| {
        let rng = rng.fork(&format!("owner {name}"));
        let logs = Logs::new(store.clone(), clock.clone(), rng.fork("logs"), "group");
        Owner { seed: 5, name, logs, rng, seen: seen.clone(), sent: 0 }.run()
    });
    futures::future::join_all(owners).await;
    let logs = Logs::new(store, clock, rng.fork("judge"), "group");
    judge(5, 0, &logs, &seen).await;
    let tally = seen.lock().unwrap().tally;
    assert!(tally.deposed > 0 && tally.acknowledged > 0, "{tally:?}");
}
