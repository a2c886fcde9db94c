//! One listener and what goes through it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use super::{LinkSpec, Mode, Shape};

const PIECE: usize = 32 * 1024;
/// Pieces under way in one direction of a delayed connection.
const UNDER_WAY: usize = 256;

pub(super) struct Link {
    pub(super) spec: LinkSpec,
    listener: TcpListener,
    pub(super) shape: watch::Sender<Shape>,
    pub(super) connections: AtomicUsize,
}

/// One connection: both directions share whether something was lost.
struct Pipe {
    shape: watch::Receiver<Shape>,
    lost: Arc<AtomicBool>,
}

impl Link {
    pub(super) async fn bind(spec: LinkSpec) -> Result<Self> {
        let listener = TcpListener::bind(spec.listen);
        let listener = listener.await.with_context(|| format!("{} -> {}: {}", spec.from, spec.to, spec.listen))?;
        Ok(Self { spec, listener, shape: watch::Sender::new(Shape::default()), connections: AtomicUsize::new(0) })
    }

    pub(super) async fn run(self: Arc<Self>) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let link = Arc::clone(&self);
                    tokio::spawn(async move {
                        link.connections.fetch_add(1, Ordering::Relaxed);
                        link.carry(stream).await;
                        link.connections.fetch_sub(1, Ordering::Relaxed);
                    });
                }
                // Out of files; those in use end some time.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn carry(&self, near: TcpStream) {
        let mut shape = self.shape.subscribe();
        let mode = shape.borrow_and_update().mode;
        if mode != Mode::Open {
            // Its ends have not met; whether the first bytes are kept or thrown away, the other end never saw them.
            if open_again(&mut shape).await.is_err() || mode == Mode::Cut {
                return;
            }
        }
        // Refused here is closed there.
        let Ok(far) = TcpStream::connect(self.spec.target).await else { return };
        let (_, _) = (near.set_nodelay(true), far.set_nodelay(true));
        let (near_read, near_write) = near.into_split();
        let (far_read, far_write) = far.into_split();
        let lost = Arc::new(AtomicBool::new(false));
        let pipe = || Pipe { shape: self.shape.subscribe(), lost: Arc::clone(&lost) };
        // A direction that fails ends the other; one that merely ends leaves it open.
        let _ = tokio::try_join!(pipe().run(near_read, far_write), pipe().run(far_read, near_write));
    }
}

impl Pipe {
    /// Carries one direction to its end. An error means that the whole connection is over.
    async fn run(mut self, mut read: OwnedReadHalf, write: OwnedWriteHalf) -> Result<()> {
        let (send, receive) = mpsc::channel(UNDER_WAY);
        let reading = async { self.read(&mut read, send).await };
        tokio::try_join!(reading, deliver(receive, write))?;
        Ok(())
    }

    async fn read(&mut self, read: &mut OwnedReadHalf, send: mpsc::Sender<(Instant, Vec<u8>)>) -> Result<()> {
        let mut buffer = vec![0; PIECE];
        loop {
            let shape = *self.shape.borrow_and_update();
            if shape.mode == Mode::Open && self.lost.load(Ordering::Relaxed) {
                anyhow::bail!("something of this connection was swallowed");
            }
            if shape.mode == Mode::Held {
                self.shape.changed().await?;
                continue;
            }
            let count = tokio::select! {
                changed = self.shape.changed() => { changed?; continue }
                // Wakes to find out that the other direction lost something.
                read = read.read(&mut buffer) => read,
            };
            let shape = *self.shape.borrow_and_update();
            match (shape.mode, count) {
                (Mode::Open, Ok(0)) => return Ok(()),
                (Mode::Open, Ok(count)) => {
                    let due = Instant::now() + Duration::from_millis(shape.delay_ms);
                    send.send((due, buffer[..count].to_vec())).await?;
                }
                (Mode::Open, Err(error)) => return Err(error.into()),
                // Read just before it was held: kept.
                (Mode::Held, Ok(count)) if count > 0 => {
                    open_again(&mut self.shape).await?;
                    send.send((Instant::now(), buffer[..count].to_vec())).await?;
                }
                (Mode::Cut, Ok(count)) if count > 0 => self.lost.store(true, Ordering::Relaxed),
                // The other end learns of it when the link is mended.
                (Mode::Cut | Mode::Held, Ok(_) | Err(_)) => {
                    open_again(&mut self.shape).await?;
                    anyhow::bail!("ended while the link was cut");
                }
            }
        }
    }
}

/// Writes each piece when it is due; the end of the pieces is the end of the direction.
async fn deliver(mut pieces: mpsc::Receiver<(Instant, Vec<u8>)>, mut write: OwnedWriteHalf) -> Result<()> {
    while let Some((due, piece)) = pieces.recv().await {
        if due > Instant::now() {
            tokio::time::sleep_until(due.into()).await;
        }
        write.write_all(&piece).await?;
    }
    Ok(write.shutdown().await?)
}

async fn open_again(shape: &mut watch::Receiver<Shape>) -> Result<()> {
    shape.wait_for(|shape| shape.mode == Mode::Open).await?;
    Ok(())
}
