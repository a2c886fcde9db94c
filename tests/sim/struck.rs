//! What struck over a run, so that a run that tested nothing fails.

use std::collections::BTreeMap;
use std::fmt;

/// Counts by kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Struck {
    counts: BTreeMap<&'static str, u64>,
}

impl Struck {
    pub(crate) fn count(&mut self, kind: &'static str, times: u64) {
        *self.counts.entry(kind).or_default() += times;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (kind, times) in &other.counts {
            self.count(kind, *times);
        }
    }

    /// Kinds that never struck.
    pub(crate) fn never(&self) -> Vec<&'static str> {
        self.counts.iter().filter(|(_, times)| **times == 0).map(|(kind, _)| *kind).collect()
    }
}

impl fmt::Display for Struck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, times) in &self.counts {
            writeln!(f, "  {kind:<34} {times}")?;
        }
        Ok(())
    }
}
