use linnet_runtime::Rng;
use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

use super::*;

const T0: UnixMillis = UnixMillis(1_700_000_000_000);

#[test]
fn a_bucket_passes_its_rate_for_minutes_and_shapes_the_41st_at_once() {
    let mut bucket = Bucket::new(40, T0);
    let passed = (0..41).filter(|_| bucket.take(40, T0)).count();
    assert_eq!(passed, 40);
    let mut bucket = Bucket::new(40, T0);
    assert!((0..7_200_u64).all(|i| bucket.take(40, T0.plus_ms(i * 25 + i % 3))));
}

#[test]
fn a_bucket_of_zero_never_shapes() {
    let mut bucket = Bucket::new(0, T0);
    assert!((0..10_000).all(|_| bucket.take(0, T0)));
    assert!(bucket.take(1, T0), "switched on: full");
    assert!(!bucket.take(1, T0));
}

fn one<T>(priority: Priority, item: T) -> Offer<T> {
    Offer { priority, weight: 1, item }
}

/// Offers `per_second` messages of each class for `seconds` and returns admitted per class and the number dropped.
fn flood(rate: u32, per_second: [u32; 4], seconds: u64, seed: u64) -> ([u32; 4], u32) {
    let rng = Rng::seeded(seed);
    let mut shaper = LiveShaper::default();
    let mut admitted = [0; 4];
    let mut dropped = 0;
    let mut take = |slice: Slice<Priority>| {
        for priority in slice.admitted {
            admitted[priority as usize] += 1;
        }
        dropped += u32::try_from(slice.dropped.len()).expect("small");
    };
    for ms in 0..seconds * 1_000 {
        let now = T0.plus_ms(ms);
        for class in Priority::ALL {
            let n = u64::from(per_second[class as usize]);
            for _ in (ms * n / 1_000)..((ms + 1) * n / 1_000) {
                take(shaper.offer(rate, one(class, class), now, &rng));
            }
        }
        if shaper.next_tick().is_some_and(|at| at <= now) {
            take(shaper.tick(now));
        }
    }
    take(shaper.tick(T0.plus_ms(seconds * 1_000 + 2_000)));
    take(shaper.tick(T0.plus_ms(seconds * 1_000 + 4_000)));
    take(shaper.tick(T0.plus_ms(seconds * 1_000 + 6_000)));
    assert_eq!(shaper.waiting(), 0, "seed {seed}");
    (admitted, dropped)
}

#[test]
fn under_the_budget_everything_passes_at_once() {
    let rng = Rng::seeded(1);
    let mut shaper = LiveShaper::default();
    for i in 0..2_400_u64 {
        let slice = shaper.offer(40, one(Priority::Normal, i), T0.plus_ms(i * 25), &rng);
        assert_eq!(slice.admitted, [i]);
    }
    assert_eq!(shaper.next_tick(), None);
}

#[test]
fn a_burst_of_41_shapes_one() {
    let rng = Rng::seeded(2);
    let mut shaper = LiveShaper::default();
    let passed: usize = (0..41).map(|i| shaper.offer(40, one(Priority::Normal, i), T0, &rng).admitted.len()).sum();
    assert_eq!(passed, 40);
    let slice = shaper.tick(T0.plus_ms(SLICE_MS));
    assert_eq!((slice.admitted.len(), slice.dropped.len()), (0, 1));
}

#[test]
fn the_cap_holds_per_second_on_average() {
    let (admitted, dropped) = flood(40, [0, 500, 0, 0], 60, 3);
    let total: u32 = admitted.iter().sum();
    assert!((2_360..=2_440).contains(&total), "{total}");
    assert_eq!(total + dropped, 30_000);
}

#[test]
fn high_passes_whole_while_normal_floods() {
    let (admitted, _) = flood(40, [10, 500, 500, 0], 60, 4);
    assert!(admitted[0] >= 590, "{admitted:?}");
    assert!(admitted[1] >= 1_700, "{admitted:?}");
    // Low passes only before the shaping begins.
    assert!(admitted[2] <= 40, "{admitted:?}");
}

#[test]
fn more_high_than_the_cap_is_shaped_too() {
    let (admitted, dropped) = flood(40, [100, 0, 0, 0], 30, 5);
    assert!((1_160..=1_240).contains(&admitted[0]), "{admitted:?}");
    assert_eq!(admitted[0] + dropped, 3_000);
}

#[test]
fn survivors_inside_a_class_differ_by_seed() {
    let survivors = |seed| {
        let rng = Rng::seeded(seed);
        let mut shaper = LiveShaper::default();
        for i in 0..40 {
            shaper.offer(40, one(Priority::Normal, i), T0, &rng);
        }
        for i in 40..140 {
            shaper.offer(40, one(Priority::Normal, i), T0.plus_ms(999), &rng);
        }
        shaper.tick(T0.plus_ms(1_249)).admitted
    };
    assert_eq!(survivors(6), survivors(6));
    assert_ne!(survivors(6), survivors(7));
    assert_eq!(survivors(6).len(), 10);
}

#[test]
fn survivors_inside_a_class_are_drawn_by_what_they_stand_for() {
    // A gateway that had 400 and one that had 100, both thinned out to 40.
    let mut passed = [0_u32; 2];
    for seed in 0..200 {
        let rng = Rng::seeded(seed);
        let mut shaper = LiveShaper::default();
        for _ in 0..40 {
            shaper.offer(40, one(Priority::Normal, 9), T0, &rng);
        }
        let late = T0.plus_ms(999);
        for _ in 0..40 {
            shaper.offer(40, Offer { priority: Priority::Normal, weight: 10, item: 0 }, late, &rng);
            shaper.offer(40, Offer { priority: Priority::Normal, weight: 2, item: 1 }, late, &rng);
        }
        for gateway in shaper.tick(T0.plus_ms(1_249)).admitted {
            passed[gateway] += 1;
        }
    }
    assert_eq!(passed[0] + passed[1], 2_000);
    // Five to one while the heavy ones last: 10 of 80 are drawn.
    assert!((1_560..=1_700).contains(&passed[0]), "{passed:?}");
}

proptest! {
    #[test]
    fn nothing_is_lost_or_doubled(
        arrivals in prop::collection::vec((0_u64..40, 0_usize..4), 1..400),
        rate in 0_u32..60,
        seed in any::<u64>(),
    ) {
        let rng = Rng::seeded(seed);
        let mut shaper = LiveShaper::default();
        let mut now = T0;
        let mut seen = Vec::new();
        for (i, (gap, class)) in arrivals.iter().enumerate() {
            now = now.plus_ms(*gap);
            if shaper.next_tick().is_some_and(|at| at <= now) {
                let slice = shaper.tick(now);
                seen.extend(slice.admitted);
                seen.extend(slice.dropped.into_iter().map(|(_, item)| item));
            }
            let slice = shaper.offer(rate, one(Priority::ALL[*class], i), now, &rng);
            seen.extend(slice.admitted);
            seen.extend(slice.dropped.into_iter().map(|(_, item)| item));
        }
        for _ in 0..8 {
            now = now.plus_ms(1_000);
            let slice = shaper.tick(now);
            seen.extend(slice.admitted);
            seen.extend(slice.dropped.into_iter().map(|(_, item)| item));
        }
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..arrivals.len()).collect::<Vec<_>>());
    }

    #[test]
    fn no_second_carries_more_than_the_cap(rate in 1_u32..80, load in 1_u64..400, seed in any::<u64>()) {
        let rng = Rng::seeded(seed);
        let mut shaper = LiveShaper::default();
        let mut times = Vec::new();
        for ms in 0..3_000_u64 {
            let now = T0.plus_ms(ms);
            for i in (ms * load / 1_000)..((ms + 1) * load / 1_000) {
                times.extend(shaper.offer(rate, one(Priority::Normal, i), now, &rng).admitted.iter().map(|_| ms));
            }
            if shaper.next_tick().is_some_and(|at| at <= now) {
                times.extend(shaper.tick(now).admitted.iter().map(|_| ms));
            }
        }
        for start in (0..2_000).step_by(50) {
            let n = times.iter().filter(|&&at| (start..start + 1_000).contains(&at)).count();
            prop_assert!(n <= rate as usize, "{n} > {rate} in the second from {start}");
        }
    }
}
