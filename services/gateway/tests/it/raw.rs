//! A client that speaks WebSocket by hand, so that it can do it wrong.

use std::time::Duration;

use linnet_client::proto::{Frame, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fakes::{APP, Node};

pub(crate) const MASK: [u8; 4] = [7, 7, 7, 7];

pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    pub(crate) read: Vec<u8>,
}

impl Raw {
    pub(crate) async fn open(node: &Node, path: &str) -> Self {
        let mut stream = TcpStream::connect(node.address).await.expect("connects");
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("writes");
        let mut raw = Self { stream, read: Vec::new() };
        let end = loop {
            if let Some(at) = raw.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(raw.more().await, "no answer");
        };
        let head = String::from_utf8_lossy(&raw.read[..end]).into_owned();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        raw.read.drain(..end);
        raw
    }

    async fn more(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let read = tokio::time::timeout(Duration::from_secs(10), self.stream.read(&mut buffer));
        let count = read.await.expect("within 10 s").unwrap_or(0);
        self.read.extend_from_slice(&buffer[..count]);
        count > 0
    }

    /// The next frame of the server: opcode and payload; `None` at the end.
    pub(crate) async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if self.read.len() >= 2 {
                let (length, start) = match self.read[1] {
                    126 if self.read.len() >= 4 => (usize::from(self.read[2]) << 8 | usize::from(self.read[3]), 4),
                    126 => (usize::MAX, 4),
                    length => (usize::from(length), 2),
                };
                if length != usize::MAX && self.read.len() >= start + length {
                    let op = self.read[0] & 0x0f;
                    let payload = self.read[start..start + length].to_vec();
                    self.read.drain(..start + length);
                    return Some((op, payload));
                }
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// The status of the close frame, with the code of an error frame before it.
    pub(crate) async fn closed(&mut self) -> (Option<u32>, u16) {
        let mut refused = None;
        loop {
            match self.frame().await {
                Some((8, payload)) => return (refused, u16::from_be_bytes([payload[0], payload[1]])),
                Some((1, payload)) => {
                    let frame: Frame = serde_json::from_slice(&payload).expect("JSON");
                    if let Some(frame::Body::Error(error)) = frame.body {
                        refused = Some(error.code);
                    }
                }
                Some(_) => {}
                None => panic!("ended without a close frame"),
            }
        }
    }

    pub(crate) async fn send(&mut self, first: u8, payload: &[u8]) {
        let mut out = vec![first];
        match payload.len() {
            length @ 0..=125 => out.push(0x80 | length as u8),
            length @ 126..=65535 => {
                out.push(0x80 | 126);
                out.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                out.push(0x80 | 127);
                out.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(&MASK);
        out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ MASK[at % 4]));
        let _ = self.stream.write_all(&out).await;
    }

    pub(crate) async fn text(&mut self, text: &str) -> Frame {
        self.send(0x81, text.as_bytes()).await;
        loop {
            if let (1, payload) = self.frame().await.expect("a reply") {
                return serde_json::from_slice(&payload).expect("JSON");
            }
        }
    }

    pub(crate) async fn sign_in(&mut self, node: &Node, user: &str) {
        let sig = node.sig(user);
        let ask = format!(r#"{{"id":1,"sign_in":{{"sdkappid":{APP},"user":"{user}","usersig":"{sig}"}}}}"#);
        let reply = self.text(&ask).await;
        assert!(matches!(reply.body, Some(frame::Body::SignedIn(_))), "{reply:?}");
    }
}
