//! Envelopes as bytes. Records are encoded once; what differs by receiver is written around them.

use bytes::{BufMut, Bytes, BytesMut};
use linnet_proto::delivery::{self, envelope};
use prost::Message as _;
use prost::encoding::{self, WireType};

// Field numbers of `linnet/delivery/v1/delivery.proto`, checked against the generated code below.
const ENVELOPE_FRAME: u32 = 1;
const ENVELOPE_BATCH: u32 = 2;
const ENVELOPE_SERVICE: u32 = 5;
const FRAME_OWNER: u32 = 1;
const FRAME_INCARNATION: u32 = 2;
const FRAME_NO: u32 = 3;
const FRAME_PREV: u32 = 4;
const FRAME_BATCHES: u32 = 5;
const BATCH_USERS: u32 = 12;

/// Who a frame comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender<'a> {
    pub(crate) owner: &'a str,
    pub(crate) incarnation: u64,
}

/// The envelope of a batch on its conversation's subject.
pub(crate) fn batch_envelope(batch: &Bytes, service: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(batch.len() + service.len() + 16);
    nested(ENVELOPE_BATCH, batch.len(), &mut out);
    out.put_slice(batch);
    text(ENVELOPE_SERVICE, service, &mut out);
    out.freeze()
}

/// A frame of one encoded batch for `users`, without its envelope: what is kept for resending.
pub(crate) fn frame(sender: Sender<'_>, no: u64, batch: &Bytes, users: &[&str]) -> Bytes {
    let named: usize = users.iter().map(|user| text_len(BATCH_USERS, user)).sum();
    let mut out = BytesMut::with_capacity(batch.len() + named + sender.owner.len() + 48);
    text(FRAME_OWNER, sender.owner, &mut out);
    number(FRAME_INCARNATION, sender.incarnation, &mut out);
    number(FRAME_NO, no, &mut out);
    number(FRAME_PREV, no - 1, &mut out);
    nested(FRAME_BATCHES, batch.len() + named, &mut out);
    out.put_slice(batch);
    for user in users {
        text(BATCH_USERS, user, &mut out);
    }
    out.freeze()
}

/// The envelope of an encoded frame.
pub(crate) fn frame_envelope(frame: &Bytes, service: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(frame.len() + service.len() + 16);
    nested(ENVELOPE_FRAME, frame.len(), &mut out);
    out.put_slice(frame);
    text(ENVELOPE_SERVICE, service, &mut out);
    out.freeze()
}

/// The envelope of repeated last numbers.
pub(crate) fn last_envelope(last: delivery::LastNumbers) -> Bytes {
    let service = last.service.clone();
    Bytes::from(delivery::Envelope { kind: Some(envelope::Kind::Last(last)), service }.encode_to_vec())
}

fn nested(field: u32, len: usize, out: &mut BytesMut) {
    encoding::encode_key(field, WireType::LengthDelimited, out);
    encoding::encode_varint(len as u64, out);
}

fn text_len(field: u32, value: &str) -> usize {
    encoding::key_len(field) + encoding::encoded_len_varint(value.len() as u64) + value.len()
}

fn text(field: u32, value: &str, out: &mut BytesMut) {
    if !value.is_empty() {
        nested(field, value.len(), out);
        out.put_slice(value.as_bytes());
    }
}

fn number(field: u32, value: u64, out: &mut BytesMut) {
    if value != 0 {
        encoding::encode_key(field, WireType::Varint, out);
        encoding::encode_varint(value, out);
    }
}

#[cfg(test)]
mod tests {
    use linnet_proto::delivery::{Batch, Envelope, Frame, Record};

    use super::*;

    fn batch() -> Batch {
        let record = Record { only: vec!["x".into()], ..Record::default() };
        Batch { app: 1, conv: 2, tenure: 3, no: 4, head_seq: 5, records: vec![record], ..Batch::default() }
    }

    #[test]
    fn a_written_frame_reads_as_the_generated_one() {
        let encoded = Bytes::from(batch().encode_to_vec());
        let sender = Sender { owner: "group-1", incarnation: 9 };
        let bytes = frame(sender, 7, &encoded, &["alice", "bob"]);
        let named = Batch { users: vec!["alice".into(), "bob".into()], ..batch() };
        let wanted = Frame { owner: "group-1".into(), incarnation: 9, no: 7, prev: 6, batches: vec![named] };
        assert_eq!(Frame::decode(bytes.clone()).unwrap(), wanted);
        let envelope = Envelope::decode(frame_envelope(&bytes, "group")).unwrap();
        assert_eq!(envelope, Envelope { kind: Some(envelope::Kind::Frame(wanted)), service: "group".into() });
    }

    #[test]
    fn a_written_batch_reads_as_the_generated_one() {
        let bytes = batch_envelope(&Bytes::from(batch().encode_to_vec()), "group");
        let wanted = Envelope { kind: Some(envelope::Kind::Batch(batch())), service: "group".into() };
        assert_eq!(Envelope::decode(bytes).unwrap(), wanted);
    }
}
