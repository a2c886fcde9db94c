//! WebSocket frames as a server sees them: parsing over a borrowed buffer, and our own few bytes of header on the way out.
//!
//! Parsing takes a slice that may hold any number of frames and a piece of one; a complete payload is unmasked in place,
//! so nothing is copied. The header parser is tungstenite's; the rules of RFC 6455 for servers are ours.

use std::io::Cursor;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Longest payload of a control frame (RFC 6455 §5.5).
const CONTROL_BYTES: u64 = 125;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Continue,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// One complete frame inside the buffer that was parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Incoming {
    pub(crate) op: Op,
    pub(crate) last: bool,
    /// Where the unmasked payload is.
    pub(crate) payload: Range<usize>,
}

/// Why a connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// A rule of RFC 6455 is broken: which.
    Protocol(&'static str),
    /// A text message is not UTF-8.
    NotUtf8,
    /// A message is over the limit.
    TooLarge,
}

impl Violation {
    /// Status of the close frame (RFC 6455 §7.4.1).
    pub(crate) fn close_code(self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::NotUtf8 => 1007,
            Self::TooLarge => 1009,
        }
    }

    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Protocol(why) => why,
            Self::NotUtf8 => "text is not UTF-8",
            Self::TooLarge => "frame too large",
        }
    }
}

/// Takes the first frame of `buf`, unmasking its payload. `None` when it is not complete yet; a frame that can never be
/// accepted is refused as soon as its header is there.
pub(crate) fn parse(buf: &mut [u8], limit: usize) -> Result<Option<Incoming>, Violation> {
    let mut cursor = Cursor::new(&*buf);
    let parsed = FrameHeader::parse(&mut cursor).map_err(|_| Violation::Protocol("unknown opcode"))?;
    let Some((header, length)) = parsed else { return Ok(None) };
    let op = check(&header, length)?;
    if length > limit as u64 {
        return Err(Violation::TooLarge);
    }
    let mask = header.mask.ok_or(Violation::Protocol("client frames must be masked"))?;
    let start = usize::try_from(cursor.position()).map_err(|_| Violation::TooLarge)?;
    let end = start + usize::try_from(length).map_err(|_| Violation::TooLarge)?;
    let Some(payload) = buf.get_mut(start..end) else { return Ok(None) };
    unmask(payload, mask);
    Ok(Some(Incoming { op, last: header.is_final, payload: start..end }))
}

fn check(header: &FrameHeader, length: u64) -> Result<Op, Violation> {
    if header.rsv1 || header.rsv2 || header.rsv3 {
        return Err(Violation::Protocol("reserved bits are set"));
    }
    if header.mask.is_none() {
        return Err(Violation::Protocol("client frames must be masked"));
    }
    let op = match header.opcode {
        OpCode::Data(Data::Continue) => Op::Continue,
        OpCode::Data(Data::Text) => Op::Text,
        OpCode::Data(Data::Binary) => Op::Binary,
        OpCode::Control(Control::Close) => Op::Close,
        OpCode::Control(Control::Ping) => Op::Ping,
        OpCode::Control(Control::Pong) => Op::Pong,
        OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => {
            return Err(Violation::Protocol("unknown opcode"));
        }
    };
    let control = matches!(op, Op::Close | Op::Ping | Op::Pong);
    if control && (!header.is_final || length > CONTROL_BYTES) {
        return Err(Violation::Protocol("a control frame is fragmented or too long"));
    }
    Ok(op)
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let wide = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
    let mut chunks = payload.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let word = u64::from_ne_bytes(chunk.try_into().expect("chunks of eight")) ^ wide;
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= key;
    }
}

/// A message put together from fragments.
#[derive(Debug)]
pub(crate) struct Fragments {
    text: bool,
    payload: Vec<u8>,
}

/// A complete message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Whole<'a> {
    pub(crate) text: bool,
    pub(crate) payload: std::borrow::Cow<'a, [u8]>,
}

/// Adds a data frame to what came before; gives the message when it is complete.
pub(crate) fn assemble<'a>(
    fragments: &mut Option<Box<Fragments>>,
    frame: &Incoming,
    payload: &'a [u8],
    limit: usize,
) -> Result<Option<Whole<'a>>, Violation> {
    let whole = match (frame.op, fragments.take()) {
        (Op::Continue, None) => return Err(Violation::Protocol("nothing to continue")),
        (Op::Text | Op::Binary, Some(_)) => return Err(Violation::Protocol("a message begins inside another")),
        (Op::Continue, Some(mut before)) => {
            if before.payload.len() + payload.len() > limit {
                return Err(Violation::TooLarge);
            }
            before.payload.extend_from_slice(payload);
            if !frame.last {
                *fragments = Some(before);
                return Ok(None);
            }
            Whole { text: before.text, payload: before.payload.into() }
        }
        (op, None) => {
            let text = op == Op::Text;
            if !frame.last {
                *fragments = Some(Box::new(Fragments { text, payload: payload.to_vec() }));
                return Ok(None);
            }
            Whole { text, payload: payload.into() }
        }
        (Op::Close | Op::Ping | Op::Pong, kept) => {
            *fragments = kept;
            return Ok(None);
        }
    };
    if whole.text && std::str::from_utf8(&whole.payload).is_err() {
        return Err(Violation::NotUtf8);
    }
    Ok(Some(whole))
}

/// A complete frame of the server's: never masked, never fragmented.
pub(crate) fn frame(op: Op, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(payload.len() + 10);
    header(op, payload.len(), &mut out);
    out.extend_from_slice(payload);
    out.freeze()
}

/// Writes the header of a server frame of `length` payload bytes.
pub(crate) fn header(op: Op, length: usize, out: &mut BytesMut) {
    let code = match op {
        Op::Continue => 0,
        Op::Text => 1,
        Op::Binary => 2,
        Op::Close => 8,
        Op::Ping => 9,
        Op::Pong => 10,
    };
    out.put_u8(0x80 | code);
    match length {
        0..=125 => out.put_u8(length as u8),
        126..=0xffff => {
            out.put_u8(126);
            out.put_u16(length as u16);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(length as u64);
        }
    }
}

/// A close frame with a status and a reason (cut to what a control frame holds).
pub(crate) fn close(code: u16, reason: &str) -> Bytes {
    let reason = &reason[..reason.floor_char_boundary(123)];
    let mut payload = BytesMut::with_capacity(2 + reason.len());
    payload.put_u16(code);
    payload.extend_from_slice(reason.as_bytes());
    frame(Op::Close, &payload)
}

#[cfg(test)]
pub(crate) mod tests;
