use linnet_runtime::Metrics;
use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { frames: 4, bytes: 100, hard_bytes: 400 };

fn stored(name: &str, seq: u64) -> Outgoing {
    let head = Some(Head { name: name.into(), seq });
    Outgoing { bytes: Bytes::from(vec![b's'; 10]), items: 1, class: Class::Stored, head }
}

fn live(rank: u8) -> Outgoing {
    Outgoing { bytes: Bytes::from(vec![b'0' + rank; 10]), items: 1, class: Class::Droppable(rank), head: None }
}

fn control() -> Outgoing {
    Outgoing::control(Bytes::from(vec![b'c'; 10]))
}

fn fill(frames: impl IntoIterator<Item = Outgoing>) -> (Queue, Ledger) {
    let ledger = Ledger::new(&Metrics::new());
    let mut queue = Queue::default();
    for frame in frames {
        queue.push(frame, LIMITS, &ledger);
    }
    (queue, ledger)
}

#[test]
fn live_messages_drop_lowest_priority_first() {
    let (mut queue, ledger) = fill([live(0), live(3), live(1), live(3), live(2)]);
    assert_eq!(queue.drain_all(&ledger), b"000000000011111111112222222222");
    assert_eq!(ledger.totals().dropped, 2);
}

#[test]
fn stored_conversations_collapse_and_control_frames_stay() {
    let (mut queue, ledger) = fill([stored("C2C:a", 1), control(), stored("C2C:a", 2), stored("C2C:b", 7), control()]);
    assert_eq!(queue.take_collapsed(), None, "not before the frames ahead are out");
    assert_eq!(queue.push(stored("C2C:a", 3), LIMITS, &ledger), Added::Squeezed, "goes on collapsing while blocked");
    assert_eq!(queue.push(stored("C2C:c", 1), LIMITS, &ledger), Added::Fits);
    assert_eq!(queue.drain_all(&ledger), b"ccccccccccccccccccccssssssssss");
    let told: Vec<_> = queue.take_collapsed().expect("two").into_iter().collect();
    assert_eq!(told, [("C2C:a".into(), 3), ("C2C:b".into(), 7)]);
    let totals = ledger.totals();
    assert_eq!((totals.collapsed, totals.written), (4, 1));
    assert!(queue.is_empty());
}

#[test]
fn a_frame_that_is_partly_written_is_finished() {
    let ledger = Ledger::new(&Metrics::new());
    let mut queue = Queue::begin(stored("C2C:a", 1), 4);
    for seq in 2..8 {
        queue.push(stored("C2C:a", seq), LIMITS, &ledger);
    }
    let mut slices = [IoSlice::new(&[]); 8];
    assert_eq!(queue.slices(&mut slices), 1);
    assert_eq!(slices[0].len(), 6);
}

#[test]
fn control_frames_alone_can_overflow() {
    let ledger = Ledger::new(&Metrics::new());
    let mut queue = Queue::default();
    let added: Vec<_> = (0..41).map(|_| queue.push(control(), LIMITS, &ledger)).collect();
    assert_eq!(added[3], Added::Fits);
    assert_eq!((added[4], added[39], added[40]), (Added::Squeezed, Added::Squeezed, Added::Overflow));
}

proptest! {
    #[test]
    fn every_delivery_has_one_fate(
        steps in proptest::collection::vec((0_u8..7, 0_usize..25), 0..200),
        offset in 1_usize..10,
    ) {
        let ledger = Ledger::new(&Metrics::new());
        let mut queue = Queue::begin(stored("C2C:a", 1), offset);
        let mut arrived = 1_u64;
        for (seq, (kind, write)) in steps.into_iter().enumerate() {
            let frame = match kind {
                0..=3 => live(kind),
                4 => stored("C2C:a", seq as u64),
                5 => stored("C2C:b", seq as u64),
                _ => control(),
            };
            arrived += u64::from(frame.items);
            queue.push(frame, LIMITS, &ledger);
            let waiting: usize = queue.frames.iter().map(|f| f.bytes.len()).sum::<usize>() - queue.offset;
            queue.advance(write.min(waiting), &ledger);
            prop_assert_eq!(queue.bytes, queue.frames.iter().map(|f| f.bytes.len()).sum::<usize>());
        }
        let pending = queue.items();
        let totals = ledger.totals();
        prop_assert_eq!(arrived, totals.written + totals.collapsed + totals.dropped + pending);
        queue.abandon(&ledger);
        prop_assert_eq!(ledger.totals().connection_closed, pending);
    }
}
