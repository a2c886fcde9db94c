use proptest::prelude::*;

use super::*;

/// A frame as a client sends it.
pub(crate) fn client_frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut out = BytesMut::new();
    header(Op::Text, payload.len(), &mut out);
    let mut out = out.to_vec();
    out[0] = first;
    out[1] |= 0x80;
    out.extend_from_slice(&mask);
    out.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]));
    out
}

const MASK: [u8; 4] = [1, 2, 3, 4];

#[test]
fn rules_of_the_protocol_are_kept() {
    let broken = |bytes: &mut [u8]| matches!(parse(bytes, 100), Err(Violation::Protocol(_)));
    assert!(broken(&mut [0x81, 0x02, b'h', b'i']), "unmasked");
    assert!(broken(&mut client_frame(0xC1, b"hi", MASK)), "reserved bit");
    assert!(broken(&mut client_frame(0x83, b"hi", MASK)), "reserved opcode");
    assert!(broken(&mut client_frame(0x09, b"hi", MASK)), "fragmented ping");
    assert!(broken(&mut client_frame(0x89, &[0; 126], MASK)), "long ping");
}

#[test]
fn an_oversize_frame_is_refused_by_its_header() {
    let whole = client_frame(0x82, &[7; 101], MASK);
    assert_eq!(parse(&mut whole[..6].to_vec(), 100), Err(Violation::TooLarge));
    let huge = [0x82, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, 2, 3, 4];
    assert_eq!(parse(&mut huge.to_vec(), 100), Err(Violation::TooLarge));
}

#[test]
fn fragments_become_one_message_with_a_ping_between() {
    let mut fragments = None;
    let mut feed = |first, payload: &[u8]| {
        let mut bytes = client_frame(first, payload, MASK);
        let frame = parse(&mut bytes, 100).expect("valid").expect("complete");
        let payload = bytes[frame.payload.clone()].to_vec();
        assemble(&mut fragments, &frame, &payload, 10).map(|whole| whole.map(|w| (w.text, w.payload.into_owned())))
    };
    assert_eq!(feed(0x01, b"he"), Ok(None));
    assert_eq!(feed(0x89, b"ping"), Ok(None));
    assert_eq!(feed(0x00, b"ll"), Ok(None));
    assert_eq!(feed(0x80, b"o"), Ok(Some((true, b"hello".to_vec()))));
    assert_eq!(feed(0x80, b"o"), Err(Violation::Protocol("nothing to continue")));
    assert_eq!(feed(0x01, b"123456"), Ok(None));
    assert_eq!(feed(0x80, b"78901"), Err(Violation::TooLarge), "fragments count together");
}

#[test]
fn text_must_be_utf8_once_it_is_whole() {
    let frame = Incoming { op: Op::Text, last: true, payload: 0..1 };
    assert_eq!(assemble(&mut None, &frame, &[0xff], 10), Err(Violation::NotUtf8));
}

proptest! {
    #[test]
    fn any_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), limit in 0_usize..400) {
        if let Ok(Some(frame)) = parse(&mut bytes, limit) {
            prop_assert!(frame.payload.end <= bytes.len() && frame.payload.len() <= limit);
        }
    }

    #[test]
    fn a_stream_cut_anywhere_gives_the_same_frames(
        payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..400), 1..8),
        mask in any::<[u8; 4]>(),
        cut in 1_usize..50,
    ) {
        let stream: Vec<u8> = payloads.iter().flat_map(|payload| client_frame(0x82, payload, mask)).collect();
        let (mut kept, mut found) = (Vec::new(), Vec::new());
        for piece in stream.chunks(cut) {
            kept.extend_from_slice(piece);
            while let Some(frame) = parse(&mut kept, 1000).expect("valid") {
                found.push(kept[frame.payload.clone()].to_vec());
                kept.drain(..frame.payload.end);
            }
        }
        prop_assert!(kept.is_empty());
        prop_assert_eq!(found, payloads);
    }

    #[test]
    fn our_frames_are_read_by_tungstenite(payload in proptest::collection::vec(any::<u8>(), 0..70_000)) {
        let bytes = frame(Op::Binary, &payload);
        let mut cursor = Cursor::new(&bytes[..]);
        let (header, length) = FrameHeader::parse(&mut cursor).expect("valid").expect("complete");
        prop_assert!(header.is_final && header.mask.is_none());
        prop_assert_eq!(length as usize, payload.len());
        prop_assert_eq!(&bytes[cursor.position() as usize..], &payload[..]);
    }
}
