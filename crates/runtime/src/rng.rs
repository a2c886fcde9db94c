//! The only source of randomness.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng as _, RngCore, SeedableRng};

/// Random numbers and tokens; cloneable and thread safe. Clones draw from one stream, forks have their own.
///
/// A cryptographic generator in both forms: [`Rng::system`] is fit for tokens and keys, [`Rng::seeded`] for replay.
#[derive(Clone)]
pub struct Rng {
    seed: Option<u64>,
    stream: Arc<Mutex<StdRng>>,
}

impl Rng {
    /// Seeded by the operating system.
    #[must_use]
    pub fn system() -> Self {
        Self { seed: None, stream: Arc::new(Mutex::new(StdRng::from_os_rng())) }
    }

    /// Replays the same numbers for the same seed (and the same build).
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { seed: Some(seed), stream: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))) }
    }

    /// 32 random bits.
    #[must_use]
    pub fn u32(&self) -> u32 {
        self.stream.lock().next_u32()
    }

    /// 64 random bits.
    #[must_use]
    pub fn u64(&self) -> u64 {
        self.stream.lock().next_u64()
    }

    /// A number in `0..n`; 0 when `n` is 0.
    #[must_use]
    pub fn below(&self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.stream.lock().random_range(0..n) }
    }

    /// True in `percent` of 100 calls.
    #[must_use]
    pub fn chance(&self, percent: u32) -> bool {
        self.below(100) < u64::from(percent)
    }

    /// Between half of `span` and all of it, for retries and ticks that must not fall together.
    #[must_use]
    pub fn jitter(&self, span: Duration) -> Duration {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(nanos / 2 + self.below(nanos / 2 + 1))
    }

    /// Puts `items` into a random order, each order equally likely.
    pub fn shuffle<T>(&self, items: &mut [T]) {
        items.shuffle(&mut *self.stream.lock());
    }

    /// Fills `bytes`.
    pub fn fill(&self, bytes: &mut [u8]) {
        self.stream.lock().fill_bytes(bytes);
    }

    /// `bytes` random bytes in lower-case hex.
    #[must_use]
    pub fn token(&self, bytes: usize) -> String {
        use fmt::Write as _;
        let mut raw = vec![0; bytes];
        self.fill(&mut raw);
        raw.iter().fold(String::with_capacity(bytes * 2), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("writing to a String cannot fail");
            hex
        })
    }

    /// A stream of its own for the part named `label`. Forks of a seeded generator depend on seed and label only, not on
    /// what was drawn before, so one part's draws do not shift another's; equal labels give equal streams.
    #[must_use]
    pub fn fork(&self, label: &str) -> Self {
        match self.seed {
            None => Self::system(),
            Some(seed) => Self::seeded(mix(seed, label)),
        }
    }
}

/// FNV-1a over the label, then a splitmix64 finish.
fn mix(seed: u64, label: &str) -> u64 {
    let mut hash = seed ^ 0xcbf2_9ce4_8422_2325;
    for byte in label.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

impl fmt::Debug for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seed {
            Some(seed) => write!(f, "Rng(seed {seed})"),
            None => f.write_str("Rng(system)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_numbers() {
        let (a, b) = (Rng::seeded(7), Rng::seeded(7));
        assert_eq!((a.u64(), a.u32(), a.token(8)), (b.u64(), b.u32(), b.token(8)));
        assert_ne!(Rng::seeded(7).u64(), Rng::seeded(8).u64());
    }

    #[test]
    fn fork_depends_on_label_not_on_earlier_draws() {
        let (a, b) = (Rng::seeded(7), Rng::seeded(7));
        let _ = a.u64();
        assert_eq!(a.fork("bus").u64(), b.fork("bus").u64());
        assert_ne!(a.fork("bus").u64(), a.fork("net").u64());
    }

    #[test]
    fn below_stays_below() {
        let rng = Rng::seeded(1);
        assert!((0..1000).all(|_| rng.below(7) < 7));
        assert_eq!(rng.below(0), 0);
    }

    #[test]
    fn jitter_stays_in_the_upper_half_and_shuffle_keeps_all() {
        let rng = Rng::seeded(2);
        let span = Duration::from_millis(100);
        assert!((0..1000).all(|_| (span / 2..=span).contains(&rng.jitter(span))));
        assert_eq!(rng.jitter(Duration::ZERO), Duration::ZERO);
        let mut items: Vec<u32> = (0..100).collect();
        rng.shuffle(&mut items);
        assert!(!items.is_sorted());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn token_is_hex_of_the_asked_length_and_differs() {
        let rng = Rng::system();
        let (a, b) = (rng.token(8), rng.token(8));
        assert_eq!(a.len(), 16);
        assert!(a.bytes().all(|c| c.is_ascii_hexdigit()));
        assert_ne!(a, b);
    }
}
