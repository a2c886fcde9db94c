//! The servers come up, take clients, and come back with their data.

use std::sync::Arc;

use anyhow::Result;
use linnet_local::certs;
use linnet_local::servers::{self, Nats, NatsUser, Redis, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn exchange(address: &str, request: &str, end: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&bytes).contains(end) {
        let count = stream.read(&mut buffer).await?;
        anyhow::ensure!(count > 0, "closed after {:?}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&buffer[..count]);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test]
async fn nats_answers_a_ping() {
    let nats = servers::nats().await.unwrap();
    let said = exchange(nats.address(), "CONNECT {}\r\nPING\r\n", "PONG").await.unwrap();
    assert!(said.contains("\"server_name\""), "{said}");
}

#[tokio::test]
async fn three_nats_nodes_join_and_only_known_users_enter() {
    let user = NatsUser { user: "gateway".into(), password: "secret".into(), ..NatsUser::default() };
    let nats = Nats { nodes: 3, users: vec![user], ..Nats::default() }.start().await.unwrap();
    assert_eq!(nats.addresses().len(), 3);
    let refused = exchange(nats.address(), "CONNECT {}\r\nPING\r\n", "-ERR").await.unwrap();
    assert!(refused.contains("Authorization Violation"), "{refused}");
    let entered = "CONNECT {\"user\":\"gateway\",\"pass\":\"secret\"}\r\nPING\r\n";
    for address in nats.addresses() {
        exchange(address, entered, "PONG").await.unwrap();
    }
}

#[tokio::test]
async fn redis_keeps_what_it_was_told_over_a_kill_when_asked_to() {
    let redis = Redis { password: Some("secret".into()), persistent: true, ..Redis::default() };
    let redis = Arc::new(redis.start().await.unwrap());
    assert!(exchange(redis.address(), "GET a\r\n", "\r\n").await.unwrap().contains("NOAUTH"));
    exchange(redis.address(), "AUTH linnet secret\r\nSET a 17\r\nECHO done\r\n", "done").await.unwrap();
    redis.kill(0).unwrap();
    assert!(TcpStream::connect(redis.address()).await.is_err());
    redis.start_node(0).await.unwrap();
    exchange(redis.address(), "AUTH linnet secret\r\nGET a\r\n", "17").await.unwrap();
}

#[tokio::test]
async fn cql_speaks_its_protocol() {
    let cql = servers::cql().await.unwrap();
    let mut stream = TcpStream::connect(cql.address()).await.unwrap();
    // OPTIONS of protocol version 4; the answer is SUPPORTED (6).
    stream.write_all(&[4, 0, 0, 0, 5, 0, 0, 0, 0]).await.unwrap();
    let mut header = [0; 9];
    stream.read_exact(&mut header).await.unwrap();
    assert_eq!((header[0], header[4]), (0x84, 6));
}

#[tokio::test]
async fn a_dropped_server_leaves_no_process_and_no_folder() {
    let redis: Server = Redis::default().start().await.unwrap();
    let folder = redis.folder().unwrap().to_owned();
    let address = redis.address().to_owned();
    tokio::task::spawn_blocking(move || drop(redis)).await.unwrap();
    assert!(!folder.exists());
    assert!(TcpStream::connect(&address).await.is_err());
}

#[tokio::test]
async fn servers_with_tls_start() {
    let folder = tempfile::tempdir().unwrap();
    let tls = certs::make(folder.path(), &[]).unwrap();
    Nats { tls: Some(tls.clone()), verify_clients: true, ..Nats::default() }.start().await.unwrap();
    Redis { tls: Some(tls), ..Redis::default() }.start().await.unwrap();
}
