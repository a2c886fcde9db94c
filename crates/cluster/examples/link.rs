//! What a call between two nodes costs: gRPC unary calls against the stream of batches, over loopback, both ends in this
//! process. `cargo run --release -p linnet-cluster --example link -- [SECONDS]`

#[path = "../tests/echo/mod.rs"]
mod echo;
#[path = "../tests/process/mod.rs"]
mod process;

use std::future::Future;
use std::time::Duration;

use echo::{Echo, EchoClient};
use linnet_cluster::{RpcConfig, Service};
use linnet_runtime::{Metrics, Tasks};
use process::certs::Authority;
use process::{Process, id, open};
use rustix::time::{ClockId, clock_gettime};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic_prost::ProstCodec;

const CALLERS: [usize; 4] = [1, 16, 128, 1024];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(2_u64);
    let span = Duration::from_secs(seconds);
    let text = "x".repeat(200);

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let tasks = Tasks::new(&Metrics::new());
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    tasks.spawn("server", Server::builder().add_routes(Echo::routes("owner")).serve_with_incoming(incoming));
    let endpoint: Endpoint = format!("http://{address}").parse().expect("an address");
    let channel: Channel = endpoint.tcp_nodelay(true).connect().await.expect("connected");
    for callers in CALLERS {
        let clients: Vec<_> = (0..callers).map(|_| Unary(Grpc::new(channel.clone()))).collect();
        measure("unary", &tasks, clients, &text, span).await;
    }
    let ca = Authority::new();
    let plain = [open("owner"), open("caller")];
    let tls = [ca.config("owner", &[Service::Group]), ca.config("caller", &[Service::Gateway])];
    for (name, [owner, caller]) in [("link", plain), ("link + TLS", tls)] {
        let owner = Process::start("owner", owner, RpcConfig::default()).await;
        owner.serve(Service::Group, Echo::routes("owner"));
        let caller = Process::start("caller", caller, RpcConfig::default()).await;
        caller.script.set([owner.node(&[Service::Group])]);
        for callers in CALLERS {
            let rpc = || caller.cluster.for_node(Service::Group, &id("owner")).expect("known");
            let clients: Vec<_> = (0..callers).map(|_| EchoClient::new(rpc())).collect();
            measure(name, &tasks, clients, &text, span).await;
        }
        let frames = caller.metrics.sum("linnet_rpc_link_batch_items_count");
        let calls = caller.metrics.sum("linnet_rpc_link_batch_items_sum");
        println!("{name:<11} {:.1} calls in a frame on average", calls / frames);
    }
}

trait Ask: Send + 'static {
    fn ask(&mut self, text: &str) -> impl Future<Output = ()> + Send;
}

impl Ask for EchoClient {
    async fn ask(&mut self, text: &str) {
        self.call(text).await.expect("answered");
    }
}

/// The same call over tonic's own transport.
struct Unary(Grpc<Channel>);

impl Ask for Unary {
    async fn ask(&mut self, text: &str) {
        self.0.ready().await.expect("connected");
        let path = PathAndQuery::from_static("/test.Echo/Call");
        let codec = ProstCodec::<String, String>::default();
        self.0.unary(tonic::Request::new(text.to_owned()), path, codec).await.expect("answered");
    }
}

async fn measure(name: &str, tasks: &Tasks, clients: Vec<impl Ask>, text: &str, span: Duration) {
    let (callers, begun, cpu) = (clients.len(), Instant::now(), cpu());
    let ends = begun + span;
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let text = text.to_owned();
            tasks.spawn("caller", async move {
                let (mut calls, mut slowest) = (0_u64, Duration::ZERO);
                while Instant::now() < ends {
                    let begun = Instant::now();
                    client.ask(&text).await;
                    slowest = slowest.max(begun.elapsed());
                    calls += 1;
                }
                (calls, slowest)
            })
        })
        .collect();
    let (mut calls, mut slowest) = (0, Duration::ZERO);
    for task in tasks {
        let (more, slow) = task.await.expect("joined").expect("no panic");
        calls += more;
        slowest = slowest.max(slow);
    }
    let (cpu, took) = (self::cpu() - cpu, begun.elapsed());
    let per = |span: Duration| span.as_secs_f64() * 1e6 / calls as f64;
    println!(
        "{name:<11} {callers:>5} callers  {:>8.0} calls/s  {:>6.1} µs CPU a call (both ends)  mean {:>7.0} µs  slowest {:>5} ms",
        calls as f64 / took.as_secs_f64(),
        per(cpu),
        per(took) * callers as f64,
        slowest.as_millis()
    );
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).expect("positive"), u32::try_from(time.tv_nsec).expect("below a second"))
}
