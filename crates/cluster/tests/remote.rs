//! Calls between processes: what breaks, what is cut off, what is too much, who may call.

mod echo;
mod process;
mod refused;

use std::time::Duration;

use echo::{Echo, EchoClient};
use linnet_cluster::{ClusterConfig, Node, RpcConfig, Service};
use linnet_runtime::config::Period;
use linnet_runtime::status::{from_status, outcome_unknown, with_deadline};
use linnet_runtime::{Metrics, Rng, Tasks};
use linnet_types::code;
use process::relay::Relay;
use process::{Process, eventually, id, open};
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tonic::{Code, Status};

/// An owner, and a caller that reaches it through a relay.
struct Pair {
    owner: Process,
    caller: Process,
    relay: Relay,
}

impl Pair {
    async fn start(rpc: RpcConfig) -> Self {
        let owner = Process::start("owner", open("owner"), rpc.clone()).await;
        owner.serve(Service::Group, Echo::routes("owner"));
        let relay = Relay::to(owner.remote.address()).await;
        let via = vec![format!("{}={}", owner.remote.advertised(), relay.address)];
        let caller = Process::start("caller", ClusterConfig { via, ..open("caller") }, rpc).await;
        caller.script.set([owner.node(&[Service::Group])]);
        let pair = Self { owner, caller, relay };
        assert_eq!(pair.echo().call("x").await.expect("connected"), "owner: x");
        pair
    }

    fn echo(&self) -> EchoClient {
        EchoClient::new(self.caller.to("owner", Service::Group))
    }

    async fn within(&self, text: &str, ms: u64) -> Result<String, Status> {
        self.echo().request(with_deadline(text.to_owned(), Duration::from_millis(ms))).await
    }

    /// Calls until one is answered.
    async fn recovers(&self, within: Duration) -> Duration {
        let begun = Instant::now();
        while self.within("x", 500).await.is_err() {
            assert!(begun.elapsed() < within, "not within {within:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        begun.elapsed()
    }

    fn active(&self) -> Option<f64> {
        self.owner.metrics.value("linnet_rpc_active{service=\"group\"}")
    }
}

fn patient() -> RpcConfig {
    RpcConfig { default_timeout: Period::secs(60), ..RpcConfig::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_connection_fails_what_is_out_with_an_unknown_outcome_and_comes_back() {
    let pair = Pair::start(patient()).await;
    let mut echo = pair.echo();
    let mut hanging = Box::pin(echo.call("hang"));
    assert!(futures::poll!(&mut hanging).is_pending());
    let (_send, mut replies) = pair.echo().stream().await.expect("open");
    eventually("both run", || pair.active() == Some(1.0)).await;
    pair.relay.break_all();
    let status = hanging.await.expect_err("broken");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(outcome_unknown(&status), "it may have been carried out");
    assert_eq!(from_status(&status).expect("busy").code, code::BUSY);
    assert_eq!(replies.next().await.expect("told").expect_err("broken").code(), Code::Unavailable);
    eventually("the handler is dropped", || pair.active() == Some(0.0)).await;
    // Before the next attempt is made, calls wait for it.
    assert_eq!(pair.within("x", 900).await.expect("connected again"), "owner: x");
}

/// As after SIGSTOP of the peer, or when a cable is pulled: nothing says that the connection is gone.
#[tokio::test(flavor = "multi_thread")]
async fn peer_that_is_cut_off_is_noticed_and_reached_again_when_healed() {
    let pair = Pair::start(patient()).await;
    pair.relay.cut();
    let begun = Instant::now();
    let status = pair.within("x", 300).await.expect_err("nobody answers");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(begun.elapsed() < Duration::from_millis(800), "{:?}", begun.elapsed());
    let mut echo = pair.echo();
    let status = echo.call("x").await.expect_err("the connection is given up");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    // Then calls fail at once, and were surely not carried out.
    eventually("nothing is tried for callers", || pair.caller.metrics.sum("linnet_rpc_link_connects_total") >= 2.0)
        .await;
    let begun = Instant::now();
    let status = pair.within("x", 3000).await.expect_err("down");
    assert!(!outcome_unknown(&status) && begun.elapsed() < Duration::from_millis(300), "{:?}", begun.elapsed());
    pair.relay.heal();
    let took = pair.recovers(Duration::from_secs(6)).await;
    println!("reached again after {took:?}");
    // The owner notices too, and drops what the caller left behind.
    eventually("one connection stays", || pair.owner.metrics.value("linnet_rpc_inbound_connections") == Some(1.0))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_waiting_calls_are_refused_and_counted() {
    let pair = Pair::start(patient()).await;
    pair.relay.cut();
    let tasks = Tasks::new(&Metrics::new());
    let text = "x".repeat(200 << 10);
    let calls: Vec<_> = (0..200)
        .map(|_| {
            let (mut echo, text) = (pair.echo(), text.clone());
            let request = with_deadline(text, Duration::from_millis(2500));
            tasks.spawn("call", async move { echo.request(request).await.expect_err("cut off") })
        })
        .collect();
    let mut refused = 0;
    for call in calls {
        let status = call.await.expect("joined").expect("no panic");
        if from_status(&status).is_some_and(|refusal| refusal.code == code::BUSY) && !outcome_unknown(&status) {
            refused += 1;
        }
    }
    assert!((40..160).contains(&refused), "{refused}");
    let counted = pair.caller.metrics.value("linnet_rpc_link_overflow_total{service=\"group\"}");
    assert!(counted.is_some_and(|counted| counted >= 40.0), "{counted:?}");
}

/// The bytes of large replies do not stand in the way of others.
#[tokio::test(flavor = "multi_thread")]
async fn small_reply_passes_large_ones() {
    let pair = Pair::start(patient()).await;
    let tasks = Tasks::new(&Metrics::new());
    let large: Vec<_> = (0..8)
        .map(|_| {
            let mut echo = pair.echo();
            tasks.spawn("large", async move { echo.call("size 3000000").await.expect("answered").len() })
        })
        .collect();
    eventually("they run", || pair.owner.metrics.sum("linnet_rpc_active") >= 0.0).await;
    assert_eq!(pair.within("x", 5000).await.expect("answered"), "owner: x");
    let behind = large.iter().filter(|call| !call.is_finished()).count();
    for call in large {
        assert_eq!(call.await.expect("joined"), Some(3_000_000));
    }
    println!("{behind} of 8 large replies were still on their way");
}

#[tokio::test(flavor = "multi_thread")]
async fn panic_of_a_handler_is_answered_and_harms_no_other_call() {
    let pair = Pair::start(patient()).await;
    for text in ["panic", "panic later"] {
        let status = pair.within(text, 5000).await.expect_err("a fault");
        assert_eq!(status.code(), Code::Internal, "{text}");
        assert_eq!(pair.within("x", 5000).await.expect("answered"), "owner: x");
    }
    eventually("both are counted", || {
        pair.owner.metrics.value("linnet_task_panics_total{task=\"rpc.call\"}") == Some(2.0)
    })
    .await;
    assert_eq!(pair.active(), Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_node_finishes_what_it_accepted_and_refuses_the_rest() {
    let pair = Pair::start(patient()).await;
    let mut echo = pair.echo();
    let mut slow = Box::pin(echo.call("wait 500 done"));
    assert!(futures::poll!(&mut slow).is_pending());
    eventually("it runs", || pair.active() == Some(1.0)).await;
    let stop = pair.owner.remote.stop(Duration::from_secs(5));
    let refused = async {
        loop {
            if let Err(status) = pair.within("x", 2000).await {
                break status;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (clean, slow, status) = tokio::join!(stop, slow, refused);
    assert_eq!(slow.expect("finished"), "owner: done");
    assert!(!outcome_unknown(&status), "{status:?}");
    assert!(clean, "nothing had to be ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_starts_again_at_its_address_is_reached() {
    let owner = Process::start("owner", open("owner"), patient()).await;
    owner.serve(Service::Group, Echo::routes("first"));
    let listen = owner.remote.address().to_string();
    let caller = Process::start("caller", open("caller"), patient()).await;
    caller.script.set([owner.node(&[Service::Group])]);
    let mut echo = EchoClient::new(caller.to("owner", Service::Group));
    assert_eq!(echo.call("x").await.expect("answered"), "first: x");
    owner.kill().await;
    let status = echo.call("x").await.expect_err("dead");
    assert_eq!(from_status(&status).expect("busy").code, code::BUSY);
    let owner = Process::start("owner", ClusterConfig { listen, ..open("owner") }, patient()).await;
    owner.serve(Service::Group, Echo::routes("second"));
    let begun = Instant::now();
    let reply = loop {
        match echo.call("x").await {
            Ok(reply) => break reply,
            Err(status) => assert!(begun.elapsed() < Duration::from_secs(5), "{status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(reply, "second: x");
    println!("reached again after {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_leaves_answers_what_it_was_asked_and_is_not_dialled_again() {
    let pair = Pair::start(patient()).await;
    let mut echo = pair.echo();
    let mut slow = Box::pin(echo.call("wait 300 done"));
    assert!(futures::poll!(&mut slow).is_pending());
    eventually("it runs", || pair.active() == Some(1.0)).await;
    pair.caller.script.leave(&id("owner"));
    assert!(pair.caller.cluster.for_node(Service::Group, &id("owner")).is_err());
    assert_eq!(slow.await.expect("finished"), "owner: done");
    let links = || pair.caller.metrics.value("linnet_task_running{task=\"rpc.link\"}");
    eventually("the stream has ended", || links() == Some(0.0)).await;
    let inbound = || pair.owner.metrics.value("linnet_rpc_inbound_connections");
    eventually("the connection has ended", || inbound() == Some(0.0)).await;
    assert_eq!(pair.relay.accepted(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_passes_over_nodes_that_cannot_be_reached() {
    let alive = Process::start("b", open("b"), patient()).await;
    alive.serve(Service::Callback, Echo::routes("b"));
    let caller = Process::start("caller", open("caller"), patient()).await;
    let dead = Node { address: "127.0.0.1:1".to_owned(), ..Node::new(id("a"), [Service::Callback]) };
    caller.script.set([dead, alive.node(&[Service::Callback])]);
    // The first call to each finds out.
    for _ in 0..2 {
        let _ = EchoClient::new(caller.cluster.any(Service::Callback).expect("known")).call("x").await;
    }
    for _ in 0..20 {
        let reply = EchoClient::new(caller.cluster.any(Service::Callback).expect("known")).call("x").await;
        assert_eq!(reply.expect("answered"), "b: x");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn address_of_another_node_is_refused() {
    let owner = Process::start("owner", open("owner"), patient()).await;
    owner.serve(Service::Group, Echo::routes("owner"));
    let caller = Process::start("caller", open("caller"), patient()).await;
    let node = Node { id: id("somebody-else"), ..owner.node(&[Service::Group]) };
    caller.script.set([node]);
    let status = EchoClient::new(caller.to("somebody-else", Service::Group)).call("x").await.expect_err("refused");
    assert!(!outcome_unknown(&status), "{status:?}");
    assert_eq!(owner.metrics.value("linnet_rpc_peers_refused_total{reason=\"node\"}"), Some(1.0));
}

/// Callers that wait, give up and come again at random: no one is ever told what another one asked.
#[tokio::test(flavor = "multi_thread")]
async fn no_reply_goes_to_another_call() {
    let seed = Rng::system().u64();
    println!("seed {seed}");
    let rng = Rng::seeded(seed);
    let pair = Pair::start(patient()).await;
    let tasks = Tasks::new(&Metrics::new());
    let callers: Vec<_> = (0..64)
        .map(|n| {
            let (mut echo, rng) = (pair.echo(), rng.fork(&format!("caller {n}")));
            tasks.spawn("caller", async move {
                let (mut answered, mut given_up) = (0, 0);
                for round in 0..60 {
                    let text = format!("{n}/{round}/{}", "z".repeat(usize::try_from(rng.below(3000)).expect("small")));
                    let ms = if rng.chance(50) { 1 + rng.below(30) } else { 30_000 };
                    let patience = Duration::from_millis(ms);
                    let call =
                        echo.request(with_deadline(format!("wait {} {text}", rng.below(20)), Duration::from_secs(30)));
                    match tokio::time::timeout(patience, call).await {
                        Ok(reply) => {
                            assert_eq!(reply.expect("answered"), format!("owner: {text}"));
                            answered += 1;
                        }
                        Err(_) => given_up += 1,
                    }
                }
                (answered, given_up)
            })
        })
        .collect();
    let mut total = (0, 0);
    for caller in callers {
        let (answered, given_up) = caller.await.expect("joined").unwrap_or_else(|| panic!("seed {seed}"));
        total = (total.0 + answered, total.1 + given_up);
    }
    assert!(total.0 > 1000 && total.1 > 100, "{total:?}");
    eventually("nothing is left", || pair.active() == Some(0.0)).await;
}
