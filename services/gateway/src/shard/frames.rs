//! From bytes of a client to requests.

use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use linnet_proto::client::{self, frame};
use linnet_types::{Refusal, code};
use tokio::io::ReadBuf;

use super::conn::{Rate, Stage};
use super::{End, FRESH_FRAME_BYTES, Shard};
use crate::queue::Outgoing;
use crate::session::Ended;
use crate::wire;
use crate::ws::{self, Incoming, Op, Violation};

/// Reads of one connection before others get their turn.
const READS: usize = 4;
/// Refused sign-ins after which a connection is closed.
const ATTEMPTS: u8 = 5;

impl Shard {
    /// A socket has news: write what waits, read what came.
    pub(super) fn look(&mut self, slot: u32) {
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        conn.flag.seen();
        self.write(slot);
        self.read(slot);
    }

    fn read(&mut self, slot: u32) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut more = true;
        for _ in 0..READS {
            if self.paused(slot) {
                more = false;
                break;
            }
            let Some(conn) = self.conns.get_mut(slot as usize) else {
                more = false;
                break;
            };
            let mut filled = ReadBuf::new(&mut buffer);
            let outcome = conn.poll_read(&mut filled);
            let count = filled.filled().len();
            match outcome {
                Poll::Pending => {
                    more = false;
                    break;
                }
                Poll::Ready(Ok(())) if count > 0 => self.received(slot, &mut buffer[..count]),
                Poll::Ready(Ok(()) | Err(_)) => {
                    self.drop_conn(slot, Ended::LinkClose, "closed by the client");
                    more = false;
                    break;
                }
            }
        }
        self.buffer = buffer;
        if more && let Some(conn) = self.conns.get(slot as usize) {
            conn.flag.again();
        }
    }

    /// Whether the connection has as much in progress as it may: its socket is not read, so TCP slows the client down.
    fn paused(&self, slot: u32) -> bool {
        let config = &self.hub.config;
        self.conns.get(slot as usize).is_some_and(|conn| {
            matches!(conn.stage, Stage::SigningIn(_))
                || u32::from(conn.requests) >= config.requests_per_connection
                || u32::from(conn.sends) >= config.sends_per_connection
                || conn.waiting() > self.limits.bytes
        })
    }

    fn received(&mut self, slot: u32, data: &mut [u8]) {
        let now_s = self.ticked_s;
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        conn.heard_s = now_s;
        if conn.closing() {
            return self.farewell(slot, data);
        }
        if !conn.partial.is_empty() {
            conn.partial.extend_from_slice(data);
            return self.partial(slot);
        }
        let used = self.frames(slot, data);
        if let Some(conn) = self.conns.get_mut(slot as usize)
            && !conn.closing()
            && used < data.len()
        {
            conn.partial = data[used..].to_vec();
        }
    }

    /// The close frame was said: when the client's comes, the socket can go.
    fn farewell(&mut self, slot: u32, data: &mut [u8]) {
        let mut at = 0;
        while let Ok(Some(found)) = ws::parse(&mut data[at..], FRESH_FRAME_BYTES) {
            if found.op == Op::Close {
                return self.drop_conn(slot, Ended::LinkClose, "closed");
            }
            at += found.payload.end;
        }
    }

    /// Goes on with what was read before.
    pub(super) fn partial(&mut self, slot: u32) {
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        let mut partial = std::mem::take(&mut conn.partial);
        if !partial.is_empty() {
            let used = self.frames(slot, &mut partial);
            if let Some(conn) = self.conns.get_mut(slot as usize)
                && !conn.closing()
                && used < partial.len()
            {
                partial.drain(..used);
                conn.partial = partial;
            }
        }
        if !self.paused(slot)
            && let Some(conn) = self.conns.get(slot as usize)
        {
            conn.flag.again();
        }
    }

    /// Carries out the complete frames of `data`; the number of bytes used.
    fn frames(&mut self, slot: u32, data: &mut [u8]) -> usize {
        let mut at = 0;
        while !self.paused(slot) {
            let Some(conn) = self.conns.get(slot as usize) else { break };
            if conn.closing() {
                break;
            }
            let limit = match conn.stage {
                Stage::In(_) => self.hub.config.frame_bytes.bytes(),
                _ => FRESH_FRAME_BYTES,
            };
            match ws::parse(&mut data[at..], limit) {
                Ok(None) => break,
                Ok(Some(found)) => {
                    let payload = at + found.payload.start..at + found.payload.end;
                    at = payload.end;
                    self.frame(slot, &found, &data[payload], limit);
                }
                Err(violation) => {
                    self.violation(slot, violation);
                    break;
                }
            }
        }
        at
    }

    fn frame(&mut self, slot: u32, found: &Incoming, payload: &[u8], limit: usize) {
        self.hub.meters.frames_in.inc();
        let now = self.hub.clock.mono();
        let (per_s, burst) = (self.hub.config.frames_per_s, self.hub.config.frames_burst);
        let conn = &mut self.conns[slot as usize];
        let rate = conn.bucket.take(per_s, burst, now);
        if rate == Rate::Flood {
            return self.end(slot, End::new(Ended::LinkClose, 1008, "too many frames"));
        }
        match found.op {
            Op::Ping if rate == Rate::Pass => self.queue(slot, Outgoing::control(ws::frame(Op::Pong, payload))),
            Op::Ping | Op::Pong => {}
            Op::Close => {
                // Answered, and the server is the first to let go of the socket (RFC 6455 §7.1.1).
                self.end(slot, End::new(Ended::LinkClose, 1000, ""));
                self.write(slot);
                if self.conns.get(slot as usize).is_some_and(|conn| conn.waiting() == 0) {
                    self.drop_conn(slot, Ended::LinkClose, "closed by the client");
                }
            }
            Op::Text | Op::Binary | Op::Continue => match ws::assemble(&mut conn.fragments, found, payload, limit) {
                Ok(None) => {}
                Ok(Some(whole)) => match conn.wire.decode(whole.text, &whole.payload) {
                    Ok(frame) => self.request(slot, frame, rate),
                    Err(refusal) => self.refuse(slot, 0, refusal),
                },
                Err(violation) => self.violation(slot, violation),
            },
        }
    }

    fn violation(&mut self, slot: u32, violation: Violation) {
        if violation == Violation::TooLarge {
            self.refuse(slot, 0, Refusal::new(code::FRAME_TOO_LARGE, "the frame is over the limit"));
        }
        self.end(slot, End::new(Ended::LinkClose, violation.close_code(), violation.reason()));
    }

    fn refuse(&mut self, slot: u32, id: u64, refusal: Refusal) {
        self.hub.count_refused(refusal.code);
        self.answer(slot, wire::reply(id, Err(refusal)));
    }

    fn answer(&mut self, slot: u32, frame: client::Frame) {
        let Some(conn) = self.conns.get(slot as usize) else { return };
        let bytes: Bytes = conn.wire.encode(&frame);
        self.queue(slot, Outgoing::control(bytes));
    }

    fn request(&mut self, slot: u32, frame: client::Frame, rate: Rate) {
        let at = self.at(slot);
        let hub = Arc::clone(&self.hub);
        let id = frame.id;
        if let Rate::Refuse(after) = rate {
            return self.refuse(slot, id, Refusal::retry(code::CONN_RATE, "this connection sends too fast", after));
        }
        let Some(body) = frame.body else {
            return self.refuse(slot, id, Refusal::new(code::FRAME_BAD, "no known request in the frame"));
        };
        if id == 0 {
            return self.refuse(slot, 0, Refusal::new(code::FRAME_BAD, "a request needs an id"));
        }
        let conn = &mut self.conns[slot as usize];
        let session = match (&conn.stage, &body) {
            (Stage::Fresh(attempts), frame::Body::SignIn(_)) if *attempts < ATTEMPTS => {
                let frame::Body::SignIn(ask) = body else { return };
                conn.stage = Stage::SigningIn(*attempts);
                return hub.sign_in(at, conn.wire, conn.ip.to_string(), id, ask);
            }
            (Stage::Fresh(_), frame::Body::SignIn(_)) => {
                return self.end(slot, End::new(Ended::LinkClose, 1008, "too many failed sign-ins"));
            }
            (Stage::In(session), _) => Arc::clone(session),
            _ => return self.refuse(slot, id, Refusal::new(code::NOT_SIGNED_IN, "sign in first")),
        };
        match body {
            frame::Body::SignIn(_) => {
                self.refuse(slot, id, Refusal::new(code::FRAME_BAD, "this connection is signed in already"));
            }
            frame::Body::SignOut(_) => {
                self.answer(slot, client::Frame { id, body: Some(frame::Body::Ok(client::Ok {})) });
                self.end(slot, End::new(Ended::Unregister, 1000, "signed out"));
            }
            frame::Body::Ping(_) => {
                let pong = client::Pong { time_ms: hub.clock.now().0 };
                self.answer(slot, client::Frame { id, body: Some(frame::Body::Pong(pong)) });
            }
            frame::Body::Send(send) => {
                conn.sends += 1;
                hub.send(at, conn.wire, session, id, send);
            }
            body => {
                conn.requests += 1;
                hub.serve(at, conn.wire, session, id, body);
            }
        }
    }
}
