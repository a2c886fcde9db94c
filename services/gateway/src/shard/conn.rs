//! One connection: its socket, what was read of the next frame, and what waits to be written.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use crate::metrics::{Fate, Ledger};
use crate::queue::{Added, Limits, Outgoing, Queue};
use crate::session::Session;
use crate::shard::ready::ConnWaker;
use crate::socket::Socket;
use crate::wire::Wire;
use crate::ws::Fragments;

/// Buffers of one vectored write.
const SLICES: usize = 32;
/// Refused frames in a row after which a flooding connection is closed.
const FLOOD: u16 = 200;

/// How far a connection has come.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Has not asked to sign in, or was refused this many times.
    Fresh(u8),
    SigningIn(u8),
    In(Arc<Session>),
    /// The close frame is on its way; nothing more is read.
    Closing,
}

/// What waits to be written: nothing for almost every connection at almost every moment.
#[derive(Debug)]
enum Out {
    Nothing,
    One(Outgoing),
    Queue(Box<Queue>),
}

/// Frames a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    tokens: f32,
    filled_ms: u64,
    refused: u16,
}

/// What the rate of a connection says of one more frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rate {
    Pass,
    /// Too fast; worth a retry after this long.
    Refuse(u32),
    /// Does not stop.
    Flood,
}

impl Bucket {
    pub(crate) fn new(burst: u32, now: Duration) -> Self {
        Self { tokens: burst as f32, filled_ms: now.as_millis() as u64, refused: 0 }
    }

    pub(crate) fn take(&mut self, per_s: u32, burst: u32, now: Duration) -> Rate {
        let now_ms = now.as_millis() as u64;
        let earned = now_ms.saturating_sub(self.filled_ms) as f32 * per_s as f32 / 1000.0;
        self.tokens = (self.tokens + earned).min(burst as f32);
        self.filled_ms = now_ms;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            self.refused = 0;
            return Rate::Pass;
        }
        self.refused += 1;
        if self.refused > FLOOD {
            return Rate::Flood;
        }
        Rate::Refuse((1000 / per_s.max(1)).max(50))
    }
}

pub(crate) struct Conn {
    pub(crate) number: u64,
    pub(crate) wire: Wire,
    pub(crate) ip: Box<str>,
    pub(crate) stage: Stage,
    /// The beginning of a frame whose end has not come, or frames not looked at yet.
    pub(crate) partial: Vec<u8>,
    pub(crate) fragments: Option<Box<Fragments>>,
    pub(crate) bucket: Bucket,
    /// Shard second something was last read.
    pub(crate) heard_s: u32,
    /// Shard second the queue first had to be squeezed.
    pub(crate) squeezed_s: Option<u32>,
    pub(crate) requests: u16,
    pub(crate) sends: u16,
    /// Registered conversations this connection is listed under.
    pub(crate) convs: Vec<u64>,
    pub(crate) dirty: bool,
    pub(crate) waker: Waker,
    pub(crate) flag: Arc<ConnWaker>,
    socket: Socket,
    out: Out,
    /// The stream may still hold bytes of ours.
    unflushed: bool,
}

/// What a write left behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wrote {
    All,
    Blocked,
    Failed,
}

impl Conn {
    pub(crate) fn new(
        socket: Socket,
        number: u64,
        wire: Wire,
        ip: Box<str>,
        flag: Arc<ConnWaker>,
        bucket: Bucket,
        now_s: u32,
    ) -> Self {
        Self {
            number,
            wire,
            ip,
            stage: Stage::Fresh(0),
            partial: Vec::new(),
            fragments: None,
            bucket,
            heard_s: now_s,
            squeezed_s: None,
            requests: 0,
            sends: 0,
            convs: Vec::new(),
            dirty: false,
            waker: flag.waker(),
            flag,
            socket,
            out: Out::Nothing,
            unflushed: false,
        }
    }

    pub(crate) fn session(&self) -> Option<&Arc<Session>> {
        match &self.stage {
            Stage::In(session) => Some(session),
            Stage::Fresh(_) | Stage::SigningIn(_) | Stage::Closing => None,
        }
    }

    pub(crate) fn closing(&self) -> bool {
        matches!(self.stage, Stage::Closing)
    }

    /// Bytes waiting to be written.
    pub(crate) fn waiting(&self) -> usize {
        match &self.out {
            Out::Nothing => 0,
            Out::One(frame) => frame.bytes.len(),
            Out::Queue(queue) => queue.bytes(),
        }
    }

    pub(crate) fn poll_read(&mut self, buf: &mut tokio::io::ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_read(&mut Context::from_waker(&self.waker), buf)
    }

    pub(crate) fn shutdown(&mut self) {
        let _ = self.socket.poll_shutdown(&mut Context::from_waker(&self.waker));
    }

    /// Adds a frame to what is written at the end of this turn.
    pub(crate) fn queue(&mut self, frame: Outgoing, limits: Limits, ledger: &Ledger) -> Added {
        match std::mem::replace(&mut self.out, Out::Nothing) {
            Out::Nothing => {
                self.out = Out::One(frame);
                Added::Fits
            }
            Out::One(first) => {
                let mut queue = Box::new(Queue::begin(first, 0));
                let added = queue.push(frame, limits, ledger);
                self.out = Out::Queue(queue);
                added
            }
            Out::Queue(mut queue) => {
                let added = queue.push(frame, limits, ledger);
                self.out = Out::Queue(queue);
                added
            }
        }
    }

    /// Writes what the socket takes. `advanced` encodes what a collapsed conversation is told.
    pub(crate) fn write(
        &mut self,
        limits: Limits,
        ledger: &Ledger,
        advanced: impl Fn(Wire, std::collections::BTreeMap<Arc<str>, u64>) -> Bytes,
    ) -> Wrote {
        loop {
            match self.step(ledger) {
                Ok(true) => {}
                Ok(false) => return Wrote::Blocked,
                Err(_) => return Wrote::Failed,
            }
            let Out::Queue(queue) = &mut self.out else { break };
            if let Some(collapsed) = queue.take_collapsed() {
                queue.push(Outgoing::control(advanced(self.wire, collapsed)), limits, ledger);
                continue;
            }
            if queue.is_empty() {
                break;
            }
        }
        self.out = Out::Nothing;
        self.squeezed_s = None;
        if !self.unflushed {
            return Wrote::All;
        }
        match self.socket.poll_flush(&mut Context::from_waker(&self.waker)) {
            Poll::Ready(Ok(())) => {
                self.unflushed = false;
                Wrote::All
            }
            Poll::Ready(Err(_)) => Wrote::Failed,
            Poll::Pending => Wrote::Blocked,
        }
    }

    /// One write; false when the socket takes no more.
    fn step(&mut self, ledger: &Ledger) -> io::Result<bool> {
        let mut cx = Context::from_waker(&self.waker);
        let written = match &mut self.out {
            Out::Nothing => return Ok(true),
            Out::One(frame) => self.socket.poll_write(&mut cx, &[IoSlice::new(&frame.bytes)]),
            Out::Queue(queue) => {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let filled = queue.slices(&mut slices);
                if filled == 0 {
                    return Ok(true);
                }
                self.socket.poll_write(&mut cx, &slices[..filled])
            }
        };
        let written = match written {
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(written)) => written,
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => 0,
        };
        self.unflushed |= written > 0 && matches!(self.socket, Socket::Other(_));
        match std::mem::replace(&mut self.out, Out::Nothing) {
            Out::Nothing => {}
            Out::One(frame) if written == frame.bytes.len() => ledger.written(written, frame.items),
            Out::One(frame) => self.out = Out::Queue(Box::new(Queue::begin(frame, written))),
            Out::Queue(mut queue) => {
                queue.advance(written, ledger);
                self.out = Out::Queue(queue);
            }
        }
        Ok(written > 0)
    }

    /// Counts what can no longer be written.
    pub(crate) fn abandon(&mut self, ledger: &Ledger) {
        match std::mem::replace(&mut self.out, Out::Nothing) {
            Out::Nothing => {}
            Out::One(frame) => ledger.fate(Fate::Closed, frame.items.into()),
            Out::Queue(mut queue) => queue.abandon(ledger),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_at_rest_is_small() {
        let size = size_of::<Conn>();
        assert!(size <= 352, "{size} bytes a connection before its socket, waker and session");
        assert!(size_of::<Session>() <= 384, "{} bytes a session", size_of::<Session>());
    }

    #[test]
    fn a_bucket_refuses_and_then_ends_a_flood() {
        let mut bucket = Bucket::new(2, Duration::ZERO);
        let mut take = |ms| bucket.take(10, 2, Duration::from_millis(ms));
        assert_eq!([take(0), take(0), take(0)], [Rate::Pass, Rate::Pass, Rate::Refuse(100)]);
        assert_eq!([take(100), take(100)], [Rate::Pass, Rate::Refuse(100)], "one more after a tenth of a second");
        assert!((0..FLOOD).map(|_| take(100)).any(|rate| rate == Rate::Flood));
    }
}
