//! Stands between a client and a server, and holds back what the client says until told to let it go.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

/// A relay; its tasks end with the runtime of the test.
#[derive(Clone)]
pub(crate) struct Relay {
    /// Where to dial.
    pub(crate) address: String,
    #[allow(dead_code, reason = "not every test binary holds back")]
    holding: Arc<watch::Sender<bool>>,
    #[allow(dead_code, reason = "not every test binary breaks connections")]
    cuts: Arc<watch::Sender<u32>>,
}

impl Relay {
    /// Carries connections to `server`.
    pub(crate) async fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let holding = Arc::new(watch::Sender::new(false));
        let cuts = Arc::new(watch::Sender::new(0));
        let (held, cut, server) = (holding.clone(), cuts.clone(), server.to_owned());
        spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, held, mut cut) = (server.clone(), held.subscribe(), cut.subscribe());
                spawn(async move {
                    if let Ok(server) = TcpStream::connect(&server).await {
                        tokio::select! {
                            () = carry(client, server, held) => {}
                            _ = cut.changed() => {}
                        }
                    }
                });
            }
        });
        Self { address, holding, cuts }
    }

    /// From now on nothing that clients say arrives, until [`release`](Self::release).
    #[allow(dead_code, reason = "not every test binary holds back")]
    pub(crate) fn hold(&self) {
        self.holding.send_replace(true);
    }

    /// Breaks every connection there is.
    #[allow(dead_code, reason = "not every test binary breaks connections")]
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// What was held back arrives now, late, and the rest as it comes.
    #[allow(dead_code, reason = "not every test binary holds back")]
    pub(crate) fn release(&self) {
        self.holding.send_replace(false);
    }
}

#[expect(clippy::disallowed_methods, reason = "ends with the runtime of the test")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

async fn carry(client: TcpStream, server: TcpStream, mut held: watch::Receiver<bool>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    // Taken at once, so that it is said even when the client is gone by the time it is let go.
    let (said, mut waiting) = mpsc::channel::<Vec<u8>>(1024);
    let listen = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            if said.send(buffer[..count].to_vec()).await.is_err() {
                return;
            }
        }
        drop(said);
    };
    let answer = async {
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
    };
    let say = async {
        while let Some(bytes) = waiting.recv().await {
            if held.wait_for(|held| !held).await.is_err() || to_server.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to_server.shutdown().await;
    };
    tokio::join!(listen, answer, say);
}
