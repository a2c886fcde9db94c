//! How long senders waited.

use std::collections::BTreeMap;
use std::fmt;

use super::record::Told;

/// Waiting of the senders of a run, in ms.
#[derive(Clone, Debug, Default)]
pub struct Stalls {
    /// The longest wait of each sender, shortest first.
    worst: Vec<u64>,
    /// Every wait, shortest first.
    all: Vec<u64>,
    /// Who waited longest, and for what.
    longest: Option<Told>,
}

impl Stalls {
    /// Of the sends under way at `from_ms` or begun later, up to `to_ms`, whose conversation `counts`.
    pub fn of<'a>(sends: impl Iterator<Item = &'a Told>, from_ms: u64, to_ms: u64) -> Self {
        let mut by_sender: BTreeMap<&str, u64> = BTreeMap::new();
        let mut stalls = Self::default();
        for told in sends.filter(|told| told.ended_ms >= from_ms && told.begun_ms <= to_ms) {
            let wait = told.ended_ms - told.begun_ms;
            stalls.all.push(wait);
            let worst = by_sender.entry(&told.from).or_default();
            *worst = (*worst).max(wait);
            let longest = stalls.longest.as_ref().map_or(0, |told| told.ended_ms - told.begun_ms);
            if wait >= longest {
                stalls.longest = Some(told.clone());
            }
        }
        stalls.worst = by_sender.into_values().collect();
        stalls.worst.sort_unstable();
        stalls.all.sort_unstable();
        stalls
    }

    /// The longest wait of any sender.
    #[must_use]
    pub fn worst_ms(&self) -> u64 {
        self.worst.last().copied().unwrap_or(0)
    }

    /// What half of the senders waited at most, each at worst.
    #[must_use]
    pub fn median_of_worst_ms(&self) -> u64 {
        middle(&self.worst)
    }

    /// The usual wait.
    #[must_use]
    pub fn median_ms(&self) -> u64 {
        middle(&self.all)
    }

    /// The send that waited longest.
    #[must_use]
    pub fn longest(&self) -> Option<&Told> {
        self.longest.as_ref()
    }
}

fn middle(sorted: &[u64]) -> u64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

impl fmt::Display for Stalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (median, half, worst) = (self.median_ms(), self.median_of_worst_ms(), self.worst_ms());
        write!(f, "{} sends of {} senders: median {median} ms; ", self.all.len(), self.worst.len())?;
        write!(f, "worst wait of a sender: median {half} ms, longest {worst} ms")?;
        match &self.longest {
            Some(told) => {
                let (begun, tries) = (told.begun_ms, told.tries);
                write!(f, " ({} to {} at {begun} ms, {tries} tries", told.from, told.conv)?;
                told.trail.iter().try_for_each(|step| write!(f, "; {step}"))?;
                write!(f, "; {} ms: {:?})", told.ended_ms, told.fate)
            }
            None => Ok(()),
        }
    }
}
