use linnet_runtime::{Clock, Rng};
use proptest::prelude::*;

use super::*;
use crate::sim::{Faults, SimRows};

const APP: SdkAppId = SdkAppId(1_400_000_000);
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn positions() -> Positions {
    Positions::new(SimRows::new(Rng::seeded(1), Clock::simulated(NOW), Faults::none()).store())
}

fn at(conv: u64, seq: u64) -> Placed {
    let position = Position { read_seq: Seq(seq), read_ord: seq, read_at: NOW, ..Position::default() };
    Placed { user: UserId::trusted("ann"), conv: ConvId(conv), position }
}

#[tokio::test(start_paused = true)]
async fn reading_moves_forward_and_setting_anywhere() {
    let positions = positions();
    let ann = UserId::trusted("ann");
    assert_eq!(positions.get(APP, &ann, ConvId(1)).await.unwrap(), None);
    positions.merge(APP, &[at(1, 10), at(2, 5)]).await.unwrap();
    let stored = positions.merge(APP, &[at(1, 7), at(2, 6)]).await.unwrap();
    assert_eq!(stored, [at(1, 10).position, at(2, 6).position]);
    assert_eq!(
        positions.get_many(APP, &ann, &[ConvId(2), ConvId(9), ConvId(1)]).await.unwrap(),
        [Some(at(2, 6).position), None, Some(at(1, 10).position)]
    );
    positions.set(APP, &[at(1, 3)]).await.unwrap();
    let all = positions.all(APP, &ann).await.unwrap();
    assert_eq!(all, [(ConvId(1), at(1, 3).position), (ConvId(2), at(2, 6).position)]);
    positions.remove(APP, &ann, ConvId(1)).await.unwrap();
    assert_eq!(positions.get(APP, &ann, ConvId(1)).await.unwrap(), None);
}

#[test]
fn a_new_generation_of_the_log_drops_the_old_numbers() {
    let old = at(1, 500).position;
    let new = Position { generation: 1, ..at(1, 2).position };
    assert_eq!(old.merge(new), new);
    assert_eq!(new.merge(old), new);
}

#[test]
fn reading_at_the_same_place_drops_a_count_set_from_outside() {
    let marked = Position { adjust: 4, own_since: 2, ..at(1, 9).position };
    let read = marked.merge(at(1, 9).position);
    assert_eq!((read.adjust, read.own_since), (0, 2));
}

fn any_position() -> impl Strategy<Value = Position> {
    (0..4u64, 0..4u64, 0..4u64, 0..4u64, -2..3i64, 0..2u32, 0..4u64).prop_map(
        |(seq, ord, own, own_to, adjust, generation, ms)| Position {
            read_seq: Seq(seq),
            read_ord: ord,
            own_since: own,
            own_to: Seq(own_to),
            adjust,
            generation,
            read_at: UnixMillis(ms),
        },
    )
}

proptest! {
    #[test]
    fn merging_never_goes_back_and_repeating_changes_nothing(a in any_position(), b in any_position()) {
        let merged = a.merge(b);
        let place = |position: Position| (position.generation, position.read_seq);
        prop_assert_eq!(place(merged), place(a).max(place(b)));
        prop_assert_eq!(merged.merge(b), merged);
    }
}
