//! The first stage of a live room's rate: in no second does a gateway forward more than the room's cap.
//!
//! Under the cap a message goes at once. Above it messages wait, at most a second's worth, for at most half a second (the
//! most important for a whole one), and the most important go first.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::sync::oneshot;

/// Longest wait for a place, and that of the most important.
const PATIENCE: Duration = Duration::from_millis(500);
const PATIENCE_HIGH: Duration = Duration::from_millis(1_000);
const WINDOW: Duration = Duration::from_secs(1);

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
    /// (time, how many) forwarded in the last second.
    sent: VecDeque<(Duration, u32)>,
    in_window: u32,
    /// By rank (0 first) and order of arrival.
    waiting: BTreeMap<(u8, u64), Waiting>,
    arrived: u64,
}

impl Pace {
    pub(crate) fn set_rate(&mut self, rate: u32) {
        self.rate = rate;
    }

    fn forget(&mut self, now: Duration) {
        while let Some(&(at, count)) = self.sent.front()
            && now.saturating_sub(at) >= WINDOW
        {
            self.sent.pop_front();
            self.in_window -= count;
        }
    }

    fn count(&mut self, now: Duration) {
        self.in_window += 1;
        match self.sent.back_mut() {
            Some((at, count)) if *at == now => *count += 1,
            _ => self.sent.push_back((now, 1)),
        }
    }

    pub(crate) fn offer(&mut self, rank: u8, now: Duration) -> Offer {
        if self.rate == 0 {
            return Offer::Forward;
        }
        self.forget(now);
        if self.in_window < self.rate && self.waiting.is_empty() {
            self.count(now);
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
        self.forget(now);
        while (self.in_window < self.rate || self.rate == 0)
            && let Some((_, first)) = self.waiting.pop_first()
        {
            // A caller who gave up takes no place.
            if first.go.send(true).is_ok() {
                self.count(now);
            }
        }
        let patience = |rank: u8| if rank == 0 { PATIENCE_HIGH } else { PATIENCE };
        let late = self.waiting.iter().filter(|((rank, _), waiting)| now >= waiting.since + patience(*rank));
        let late: Vec<_> = late.map(|(key, _)| *key).collect();
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
        pace.release(ms(500));
        assert!(high.try_recv().is_err(), "the second is not over");
        assert_eq!(normal.try_recv(), Ok(false), "waited half a second");
        pace.release(ms(1_000));
        assert_eq!(high.try_recv(), Ok(true));
    }

    #[test]
    fn never_more_than_the_rate_in_any_second() {
        let mut pace = Pace::default();
        pace.set_rate(40);
        let mut passed = Vec::new();
        let mut waiting = Vec::new();
        for at in 0..10_000 {
            match pace.offer((at % 4) as u8, ms(at)) {
                Offer::Forward => passed.push(at),
                Offer::Wait(answer) => waiting.push(answer),
                Offer::Shed => {}
            }
            if at % 100 == 0 {
                pace.release(ms(at));
                passed.extend(
                    waiting.iter_mut().filter_map(|answer| answer.try_recv().ok()).filter(|go| *go).map(|_| at),
                );
            }
        }
        for start in 0..9_000 {
            let count = passed.iter().filter(|at| (start..start + 1_000).contains(*at)).count();
            assert!(count <= 40, "{count} in the second from {start}");
        }
        assert!((380..=400).contains(&passed.len()), "{}", passed.len());
    }

    #[test]
    fn no_limit_at_zero() {
        let mut pace = Pace::default();
        assert!((0..1000).all(|_| matches!(pace.offer(3, ms(0)), Offer::Forward)));
    }
}
