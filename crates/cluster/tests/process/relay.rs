//! A TCP relay that can swallow what passes, as a cut network does, and break connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use linnet_runtime::{Metrics, Tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    tasks: Tasks,
    cut: AtomicBool,
    accepted: AtomicUsize,
    /// Rises when every connection is to break.
    breaks: watch::Sender<u64>,
}

impl Relay {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (cut, accepted) = (AtomicBool::new(false), AtomicUsize::new(0));
        let tasks = Tasks::new(&Metrics::new());
        let shared = Arc::new(Shared { target, tasks, cut, accepted, breaks: watch::channel(0).0 });
        let relay = Arc::clone(&shared);
        shared.tasks.spawn("relay", async move {
            while let Ok((near, _)) = listener.accept().await {
                relay.accepted.fetch_add(1, Ordering::Relaxed);
                let Ok(far) = TcpStream::connect(relay.target).await else { continue };
                let (near_read, near_write) = near.into_split();
                let (far_read, far_write) = far.into_split();
                relay.tasks.spawn("relay.out", pump(Arc::clone(&relay), near_read, far_write));
                relay.tasks.spawn("relay.back", pump(Arc::clone(&relay), far_read, near_write));
            }
        });
        Self { address, shared }
    }

    /// What is sent from now on vanishes; so does the rest of connections in which something vanished.
    pub(crate) fn cut(&self) {
        self.shared.cut.store(true, Ordering::Relaxed);
    }

    pub(crate) fn heal(&self) {
        self.shared.cut.store(false, Ordering::Relaxed);
    }

    /// Closes every connection.
    pub(crate) fn break_all(&self) {
        self.shared.breaks.send_modify(|breaks| *breaks += 1);
    }

    pub(crate) fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }
}

async fn pump(relay: Arc<Shared>, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let mut breaks = relay.breaks.subscribe();
    let mut buffer = vec![0; 64 << 10];
    let mut lost = false;
    loop {
        let read = tokio::select! {
            _ = breaks.changed() => return,
            read = from.read(&mut buffer) => read,
        };
        let Ok(bytes @ 1..) = read else { return };
        lost |= relay.cut.load(Ordering::Relaxed);
        if !lost && to.write_all(&buffer[..bytes]).await.is_err() {
            return;
        }
    }
}
