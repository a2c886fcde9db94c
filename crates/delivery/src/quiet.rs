//! When a stream that fell quiet repeats its last number.

use std::time::Duration;

/// Time since the last publish at which the last number is said again: at 10 % loss, three repeats leave one stream in a
/// thousand late, all six one in a million.
pub(crate) const REPEATS: [Duration; 6] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(15),
];

/// The repeats of one stream. Its owner keeps one queue of due times; `touched` says when to add to it.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    last: Duration,
    step: usize,
    /// Its one valid place in the queue; other entries are left over.
    queued: Option<Duration>,
}

/// What to do with a stream whose time has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// A left-over entry: it has another place in the queue.
    Elsewhere,
    /// Published again meanwhile: look again then.
    Later(Duration),
    /// Say the number; look again then.
    Repeat(Duration),
    /// Say the number for the last time.
    Last,
}

impl Quiet {
    /// Something was published at `now`. Answers when to look at this stream, unless it is in the queue early enough.
    pub(crate) fn touched(&mut self, now: Duration) -> Option<Duration> {
        self.last = now;
        self.step = 0;
        let first = now + REPEATS[0];
        if self.queued.is_some_and(|at| at <= first) {
            return None;
        }
        self.queued = Some(first);
        self.queued
    }

    /// Its place `at` in the queue came up.
    pub(crate) fn due(&mut self, at: Duration, now: Duration) -> Due {
        if self.queued != Some(at) {
            return Due::Elsewhere;
        }
        let wanted = self.last + REPEATS[self.step];
        if wanted > now {
            self.queued = Some(wanted);
            return Due::Later(wanted);
        }
        self.step += 1;
        self.queued = REPEATS.get(self.step).map(|next| (self.last + *next).max(now));
        match self.queued {
            Some(next) => Due::Repeat(next),
            None => {
                self.step = 0;
                Due::Last
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
    fn a_quiet_stream_repeats_six_times_and_stops() {
        let mut quiet = Quiet::default();
        let mut at = quiet.touched(ms(100)).unwrap();
        let mut said = Vec::new();
        loop {
            match quiet.due(at, at) {
                Due::Later(_) | Due::Elsewhere => panic!("nothing was published"),
                Due::Repeat(next) => {
                    said.push(at - ms(100));
                    at = next;
                }
                Due::Last => {
                    said.push(at - ms(100));
                    break;
                }
            }
        }
        assert_eq!(said, REPEATS);
        assert!(quiet.touched(ms(99_000)).is_some(), "it can be queued again");
    }

    #[test]
    fn a_busy_stream_waits() {
        let mut quiet = Quiet::default();
        let at = quiet.touched(ms(0)).unwrap();
        assert_eq!(quiet.touched(ms(200)), None);
        assert_eq!(quiet.due(at, at), Due::Later(ms(450)));
        assert_eq!(quiet.due(ms(450), ms(450)), Due::Repeat(ms(700)));
    }

    #[test]
    fn a_publish_after_a_pause_is_repeated_soon() {
        let mut quiet = Quiet::default();
        let mut at = quiet.touched(ms(0)).unwrap();
        while let Due::Repeat(next) = quiet.due(at, at) {
            at = next;
            if at == ms(15_000) {
                break;
            }
        }
        assert_eq!(quiet.touched(ms(5_000)), Some(ms(5_250)), "not only at 15 s");
        assert_eq!(quiet.due(ms(5_250), ms(5_250)), Due::Repeat(ms(5_500)));
        assert_eq!(quiet.due(at, ms(15_000)), Due::Elsewhere);
    }
}
