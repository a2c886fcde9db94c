//! The first stage of a live room's rate: no gateway forwards more than the room's cap a second.
//!
//! Under the cap a message goes at once. Above it messages wait, at most a second's worth for at most half a second, and
//! the most important go first.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::oneshot;

/// Longest wait for a place.
const PATIENCE: Duration = Duration::from_millis(500);

/// What becomes of a message now.
#[derive(Debug)]
pub(crate) enum Offer {
    Forward,
    Shed,
    /// Answers true when it may go.
    Wait(oneshot::Receiver<bool>),
}

#[derive(Debug)]
struct Waiting {
    since: Duration,
    go: oneshot::Sender<bool>,
}

/// One room's share.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// 0 = no limit.
    rate: u32,
    tokens: f64,
    filled: Duration,
    /// By rank (0 first) and order of arrival.
    waiting: BTreeMap<(u8, u64), Waiting>,
    arrived: u64,
}

impl Pace {
    pub(crate) fn set_rate(&mut self, rate: u32) {
        if self.rate != rate {
            self.rate = rate;
            self.tokens = rate.into();
        }
    }

    fn fill(&mut self, now: Duration) {
        let earned = now.saturating_sub(self.filled).as_secs_f64() * f64::from(self.rate);
        self.tokens = (self.tokens + earned).min(self.rate.into());
        self.filled = now;
    }

    pub(crate) fn offer(&mut self, rank: u8, now: Duration) -> Offer {
        if self.rate == 0 {
            return Offer::Forward;
        }
        self.fill(now);
        if self.tokens >= 1.0 && self.waiting.is_empty() {
            self.tokens -= 1.0;
            return Offer::Forward;
        }
        if self.waiting.len() >= self.rate as usize {
            let last = self.waiting.last_key_value().map_or(0, |((rank, _), _)| *rank);
            if rank >= last {
                return Offer::Shed;
            }
            if let Some((_, least)) = self.waiting.pop_last() {
                let _ = least.go.send(false);
            }
        }
        let (go, answer) = oneshot::channel();
        self.arrived += 1;
        self.waiting.insert((rank, self.arrived), Waiting { since: now, go });
        Offer::Wait(answer)
    }

    /// Lets messages go as the rate allows; those that waited too long are shed.
    pub(crate) fn release(&mut self, now: Duration) {
        if self.waiting.is_empty() {
            return;
        }
        self.fill(now);
        while self.tokens >= 1.0
            && let Some((_, first)) = self.waiting.pop_first()
        {
            // A caller who gave up uses no token.
            if first.go.send(true).is_ok() {
                self.tokens -= 1.0;
            }
        }
        let late: Vec<_> =
            self.waiting.iter().filter(|(_, w)| now >= w.since + PATIENCE).map(|(key, _)| *key).collect();
        for key in late {
            if let Some(waiting) = self.waiting.remove(&key) {
                let _ = waiting.go.send(false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn above_the_rate_the_most_important_go_first() {
        let mut pace = Pace::default();
        pace.set_rate(2);
        assert!(matches!((pace.offer(3, ms(0)), pace.offer(3, ms(0))), (Offer::Forward, Offer::Forward)));
        let Offer::Wait(mut low) = pace.offer(3, ms(0)) else { panic!("no token left") };
        let Offer::Wait(mut high) = pace.offer(0, ms(0)) else { panic!("no token left") };
        let Offer::Wait(mut normal) = pace.offer(1, ms(0)) else { panic!("high over low") };
        assert_eq!(low.try_recv(), Ok(false), "pushed out by a more important one");
        assert!(matches!(pace.offer(1, ms(0)), Offer::Shed), "a second's worth waits already");
        pace.release(ms(499));
        assert!(high.try_recv().is_err(), "half a token");
        pace.release(ms(500));
        assert_eq!((high.try_recv(), normal.try_recv()), (Ok(true), Ok(false)));
    }

    #[test]
    fn never_more_than_the_rate_in_any_second_after_the_first() {
        let mut pace = Pace::default();
        pace.set_rate(40);
        let mut passed = 0;
        let mut waiting = Vec::new();
        for at in 0..10_000 {
            match pace.offer((at % 4) as u8, ms(at)) {
                Offer::Forward => passed += 1,
                Offer::Wait(answer) => waiting.push(answer),
                Offer::Shed => {}
            }
            if at % 100 == 0 {
                pace.release(ms(at));
            }
        }
        passed += waiting.iter_mut().filter_map(|answer| answer.try_recv().ok()).filter(|go| *go).count();
        assert!((400..=440).contains(&passed), "{passed}");
    }

    #[test]
    fn no_limit_at_zero() {
        let mut pace = Pace::default();
        assert!((0..1000).all(|_| matches!(pace.offer(3, ms(0)), Offer::Forward)));
    }
}
