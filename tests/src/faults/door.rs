//! The door of the app's server: a port that can be shut, so that the server is dead to those who call, and opened again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use linnet_testkit::{Hooks, Reply};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Until the port is free again after the door was shut.
const REOPEN: Duration = Duration::from_secs(5);

/// An app's server behind a door.
#[derive(Clone)]
pub struct Door {
    hooks: Arc<Hooks>,
    listen: SocketAddr,
    open: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Door {
    /// Opens one on a free port.
    ///
    /// # Errors
    /// When there is none.
    pub async fn open_new() -> Result<Self> {
        let hooks = Arc::new(Hooks::start().await);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let door = Self { hooks, listen: listener.local_addr()?, open: Arc::default() };
        door.carry(listener)?;
        Ok(door)
    }

    /// What came through it.
    #[must_use]
    pub fn hooks(&self) -> &Hooks {
        &self.hooks
    }

    /// Where webhooks go.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.listen)
    }

    /// Nobody listens any more, and who was connected is not.
    pub fn shut(&self) {
        if let Some(task) = self.open.lock().take() {
            task.abort();
        }
    }

    /// As before; nothing changes when it is open.
    ///
    /// # Errors
    /// When the port was taken meanwhile.
    pub async fn open(&self) -> Result<()> {
        if self.open.lock().is_some() {
            return Ok(());
        }
        let end = Instant::now() + REOPEN;
        loop {
            match TcpListener::bind(self.listen).await {
                Ok(listener) => return self.carry(listener),
                // The task that held the port may be about to end.
                Err(_) if Instant::now() < end => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(why) => return Err(why).with_context(|| format!("{} again", self.listen)),
            }
        }
    }

    /// Every answer comes this late.
    pub fn slow(&self, late: Duration) {
        self.hooks.answer(move |_| Reply::After(late));
    }

    /// Every answer is nonsense: half of them text, half of them an error of the server.
    pub fn nonsense(&self) {
        let turn = AtomicUsize::new(0);
        self.hooks.answer(move |_| match turn.fetch_add(1, Ordering::Relaxed) % 2 {
            0 => Reply::Text("<html>the site is being rebuilt</html>".to_owned()),
            _ => Reply::Status(502),
        });
    }

    /// Every answer is in order.
    pub fn sound(&self) {
        self.hooks.answer(|_| Reply::ok());
    }

    fn carry(&self, listener: TcpListener) -> Result<()> {
        let target = self.hooks.url().split('/').nth(2).context("a URL has a host")?.to_owned();
        let task = tokio::spawn(async move {
            let mut carried = JoinSet::new();
            while let Ok((mut from, _)) = listener.accept().await {
                let target = target.clone();
                carried.spawn(async move {
                    let mut to = TcpStream::connect(target).await?;
                    tokio::io::copy_bidirectional(&mut from, &mut to).await
                });
                while carried.try_join_next().is_some() {}
            }
        });
        *self.open.lock() = Some(task);
        Ok(())
    }
}
