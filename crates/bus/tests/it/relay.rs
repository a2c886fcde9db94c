//! A TCP relay that can swallow, stall or end what goes through it.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What a relay does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// Reads and throws away, both ways: a cut that nobody is told of.
    Swallow,
    /// Does not read what the server sends.
    Stall,
}

/// Ends with its last handle.
pub(crate) struct Relay {
    pub(crate) address: String,
    mode: Arc<watch::Sender<Mode>>,
}

impl Relay {
    pub(crate) async fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let mode = Arc::new(watch::Sender::new(Mode::Pass));
        let (target, modes) = (target.to_owned(), mode.subscribe());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&target).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(pump(from_client, to_server, modes.clone(), false));
                tokio::spawn(pump(from_server, to_client, modes.clone(), true));
            }
        });
        Self { address, mode }
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut mode: watch::Receiver<Mode>,
    down: bool,
) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        if down && mode.wait_for(|mode| *mode != Mode::Stall).await.is_err() {
            return;
        }
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            changed = mode.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let Ok(read @ 1..) = read else { return };
        if *mode.borrow() != Mode::Swallow && to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
