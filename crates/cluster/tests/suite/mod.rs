//! What a caller may rely on, whether the target is in its process or in another: one suite, both paths.

use std::time::Duration;

use linnet_cluster::{Cluster, RpcConfig, Service};
use linnet_runtime::config::Period;
use linnet_runtime::status::{from_status, outcome_unknown, with_deadline};
use linnet_runtime::{Metrics, Rng, Tasks, TraceContext};
use linnet_types::code;
use tokio_stream::StreamExt;
use tonic::Code;

use crate::echo::{Echo, EchoClient};
use crate::process::{Process, eventually, id, open};

/// Runs every test of the suite on both paths.
macro_rules! both_paths {
    ($($name:ident)*) => {
        mod local {
            $(#[tokio::test(start_paused = true)]
            async fn $name() {
                super::$name(super::Path::Local).await;
            })*
        }
        mod remote {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Path::Remote).await;
            })*
        }
    };
}

both_paths! {
    call_and_its_refusal_cross_and_are_counted
    clients_work_inside_spawned_tasks
    deadline_of_the_caller_or_the_default_ends_a_call
    calls_over_the_limit_are_shed_with_a_retryable_refusal
    trace_reaches_the_handler
    streams_run_both_ways_past_the_default_deadline
    handlers_start_in_the_order_of_calls
    dropped_call_ends_its_handler
    large_requests_and_replies_cross
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Path {
    Local,
    Remote,
}

/// A service `one` and somebody who calls it.
struct Served {
    cluster: Cluster,
    caller: Metrics,
    target: Metrics,
    _processes: Vec<Process>,
}

impl Served {
    async fn start(path: Path, config: RpcConfig) -> Self {
        Self::with(path, config, Echo::routes("one")).await
    }

    async fn with(path: Path, config: RpcConfig, routes: tonic::service::Routes) -> Self {
        if path == Path::Local {
            let metrics = Metrics::new();
            let cluster = Cluster::alone(id("one"), config, &metrics);
            cluster.register_local(&id("one"), Service::Group, routes);
            return Self { cluster, caller: metrics.clone(), target: metrics, _processes: Vec::new() };
        }
        let one = Process::start("one", open("one"), config.clone()).await;
        one.serve(Service::Group, routes);
        let caller = Process::start("caller", open("caller"), config).await;
        caller.script.set([one.node(&[Service::Group])]);
        let (cluster, metrics, target) = (caller.cluster.clone(), caller.metrics.clone(), one.metrics.clone());
        let served = Self { cluster, caller: metrics, target, _processes: vec![one, caller] };
        // Connected, so that time is spent on the call alone.
        served.client().call("refuse").await.expect_err("refused");
        served
    }

    fn client(&self) -> EchoClient {
        EchoClient::new(self.cluster.any(Service::Group).expect("served"))
    }

    fn active(&self) -> Option<f64> {
        self.target.value("linnet_rpc_active{service=\"group\"}")
    }
}

async fn call_and_its_refusal_cross_and_are_counted(path: Path) {
    let served = Served::start(path, RpcConfig::default()).await;
    let before = |outcome| served.caller.value(&series(outcome)).unwrap_or_default();
    let refused = before("refused");
    let mut echo = served.client();
    assert_eq!(echo.call("hello").await.expect("answered"), "one: hello");
    let status = echo.call("refuse").await.expect_err("refused");
    let refusal = from_status(&status).expect("a refusal");
    assert_eq!((refusal.code, refusal.info.as_str()), (code::GROUP_NO_RIGHT, "not a member"));
    let fault = echo.call("fault").await.expect_err("failed");
    assert_eq!((fault.code(), from_status(&fault)), (Code::Internal, None));
    for (outcome, count) in [("ok", 1.0), ("refused", refused + 1.0), ("fault", 1.0), ("deadline", 0.0)] {
        assert_eq!(served.caller.value(&series(outcome)), Some(count), "{outcome}");
    }
}

fn series(outcome: &str) -> String {
    format!("linnet_rpc_calls_total{{service=\"group\",outcome=\"{outcome}\"}}")
}

async fn clients_work_inside_spawned_tasks(path: Path) {
    let served = Served::start(path, RpcConfig::default()).await;
    let tasks = Tasks::new(&Metrics::new());
    let mut echo = served.client();
    let reply = tasks.spawn("call", async move { echo.call("x").await }).await.expect("joined").expect("no panic");
    assert_eq!(reply.expect("answered"), "one: x");
}

async fn deadline_of_the_caller_or_the_default_ends_a_call(path: Path) {
    let config = RpcConfig { default_timeout: Period::ms(700), ..RpcConfig::default() };
    let served = Served::start(path, config).await;
    // Time is exact where it is simulated.
    let slack = Duration::from_millis(if path == Path::Local { 0 } else { 400 });
    let took = |begun: tokio::time::Instant, span: u64| {
        let (took, span) = (begun.elapsed(), Duration::from_millis(span));
        assert!(took >= span && took <= span + slack, "{took:?}");
    };
    let begun = tokio::time::Instant::now();
    let mut echo = served.client();
    let status = echo.request(with_deadline("hang".to_owned(), Duration::from_millis(250))).await.expect_err("late");
    took(begun, 250);
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(outcome_unknown(&status));
    assert_eq!(from_status(&status).expect("busy").code, code::BUSY);
    let begun = tokio::time::Instant::now();
    echo.call("hang").await.expect_err("late");
    took(begun, 700);
    eventually("handlers are dropped", || served.active() == Some(0.0)).await;
}

async fn calls_over_the_limit_are_shed_with_a_retryable_refusal(path: Path) {
    let config = RpcConfig { concurrency: 2, default_timeout: Period::ms(700), ..RpcConfig::default() };
    let served = Served::start(path, config).await;
    let (mut a, mut b, mut c) = (served.client(), served.client(), served.client());
    let (first, second, third) = tokio::join!(a.call("hang"), b.call("hang"), c.call("x"));
    assert!(first.is_err() && second.is_err());
    let status = third.expect_err("shed");
    let refusal = from_status(&status).expect("a refusal");
    assert_eq!((refusal.code, refusal.retry_after_ms), (code::BUSY, Some(200)));
    assert!(!outcome_unknown(&status), "a shed call was surely not carried out");
    assert_eq!(served.target.value("linnet_rpc_shed_total{service=\"group\"}"), Some(1.0));
    eventually("handlers are dropped", || served.active() == Some(0.0)).await;
    assert_eq!(c.call("x").await.expect("room again"), "one: x");
}

async fn trace_reaches_the_handler(path: Path) {
    let served = Served::start(path, RpcConfig::default()).await;
    let context = TraceContext::new(&Rng::seeded(1));
    let mut echo = served.client();
    let seen = context.scope("test", async { echo.call("trace").await }).await.expect("answered");
    assert_eq!(seen, format!("one: {}", context.request));
    let request = context.scope("test", async { with_deadline("trace".to_owned(), Duration::from_secs(1)) }).await;
    assert_eq!(echo.request(request).await.expect("answered"), seen, "from the metadata alone");
    assert_eq!(echo.call("trace").await.expect("answered"), "one: none");
}

async fn streams_run_both_ways_past_the_default_deadline(path: Path) {
    let config = RpcConfig { default_timeout: Period::ms(300), ..RpcConfig::default() };
    let served = Served::start(path, config).await;
    let (send, mut replies) = served.client().stream().await.expect("open");
    for n in 0..5 {
        send.send(n.to_string()).await.expect("open");
        assert_eq!(replies.next().await.expect("open").expect("a frame"), format!("one: {n}"));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(send);
    assert!(replies.next().await.is_none());
}

/// Many times what a task of the runtime may do without a pause.
const BURST: usize = 10_000;

async fn handlers_start_in_the_order_of_calls(path: Path) {
    let (sender, mut actor) = tokio::sync::mpsc::channel(BURST + 1);
    let config = RpcConfig { concurrency: BURST, default_timeout: Period::secs(60), ..RpcConfig::default() };
    let served = Served::with(path, config, Echo::with_actor("one", sender)).await;
    let mut calls = Vec::new();
    for n in 0..BURST {
        let mut echo = served.client();
        let call = async move { echo.call(&n.to_string()).await };
        let mut call = Box::pin(futures::future::maybe_done(call));
        let _ = futures::poll!(&mut call);
        calls.push(call);
        if n % 16 == 0 {
            // As tasks of their own would: none uses up the budget of another.
            tokio::task::yield_now().await;
        }
    }
    futures::future::join_all(calls).await;
    let mut order = Vec::new();
    while let Ok(text) = actor.try_recv() {
        // The call that made the connection is none of them.
        order.extend(text.parse::<usize>());
    }
    assert_eq!(order.len(), BURST);
    assert_eq!(order.iter().enumerate().find(|(n, got)| n != *got), None);
}

async fn dropped_call_ends_its_handler(path: Path) {
    let config = RpcConfig { default_timeout: Period::secs(600), ..RpcConfig::default() };
    let served = Served::start(path, config).await;
    let mut echo = served.client();
    let mut call = Box::pin(echo.call("hang"));
    assert!(futures::poll!(&mut call).is_pending());
    eventually("the handler runs", || served.active() == Some(1.0)).await;
    drop(call);
    eventually("the handler is dropped", || served.active() == Some(0.0)).await;
}

async fn large_requests_and_replies_cross(path: Path) {
    let served = Served::start(path, RpcConfig::default()).await;
    let mut echo = served.client();
    for bytes in [0, 1, 60_000, 65_536, 65_537, 300_000, 3_000_000] {
        let reply = echo.call(&format!("size {bytes}")).await.expect("answered");
        assert!(reply.len() == bytes && reply.bytes().all(|b| b == b'x'), "{bytes}");
        let text = "y".repeat(bytes);
        assert!(echo.call(&text).await.expect("answered") == format!("one: {text}"), "{bytes}");
    }
}
