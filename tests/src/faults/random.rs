//! The random runner: faults drawn by seed on one cluster under one load, and a verdict.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use linnet_runtime::Rng;

use super::check::Law;
use super::fault::{self, Fault};
use super::ground::Ground;
use super::run::{Lane, Report};

/// A run is checked at least this often: what is written down meanwhile is held in memory.
const ROUND: Duration = Duration::from_secs(240);

/// What a runner was told.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// How long faults strike.
    pub minutes: f64,
    /// Everything is drawn from it.
    pub seed: u64,
    /// There are replicas of the store to lose.
    pub replicas: bool,
}

/// How it went.
#[derive(Debug, Default)]
pub struct Verdict {
    seed: u64,
    acknowledged: u64,
    delivered: u64,
    lost: usize,
    duplicated: usize,
    reordered: usize,
    reused: usize,
    other: usize,
    faults: BTreeMap<&'static str, u32>,
    longest_ms: u64,
    undone: Vec<String>,
}

impl Verdict {
    /// Zeros where zeros must be.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.lost + self.duplicated + self.reordered + self.reused + self.other == 0 && self.undone.is_empty()
    }

    fn add(&mut self, report: &Report) {
        self.acknowledged +=
            ["stored", "published", "shaped"].iter().filter_map(|fate| report.fates.get(fate)).sum::<u64>();
        self.delivered += report.delivered;
        self.lost += report.count(Law::Lost);
        self.duplicated += report.count(Law::Duplicated);
        self.reordered += report.count(Law::Reordered);
        self.reused += report.count(Law::SeqReused);
        let counted = [Law::Lost, Law::Duplicated, Law::Reordered, Law::SeqReused];
        self.other += report.violations.iter().filter(|violation| !counted.contains(&violation.law)).count();
        self.longest_ms = self.longest_ms.max(report.stalls.worst_ms());
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self.faults.iter().map(|(name, count)| format!("{name} {count}")).collect();
        write!(
            f,
            "verdict: {}; seed {}; messages acknowledged {}, delivered {}, lost {}, duplicated {}, reordered {}, \
             seqs reused {}, other violations {}; faults: {}; longest stall {} ms",
            if self.is_good() { "good" } else { "BAD" },
            self.seed,
            self.acknowledged,
            self.delivered,
            self.lost,
            self.duplicated,
            self.reordered,
            self.reused,
            self.other,
            if faults.is_empty() { "none".to_owned() } else { faults.join(", ") },
            self.longest_ms
        )?;
        self.undone.iter().try_for_each(|why| write!(f, "; {why}"))
    }
}

/// Draws faults until the time is over; all is well again after each.
///
/// # Errors
/// When a run cannot begin or be read; what does not hold is in the verdict.
pub async fn run(ground: &Ground, lane: &mut Lane, ask: Ask) -> Result<Verdict> {
    let end = Instant::now() + Duration::from_secs_f64(ask.minutes * 60.0);
    let rng = Rng::seeded(ask.seed).fork("faults");
    let mut verdict = Verdict { seed: ask.seed, ..Verdict::default() };
    let mut deck = Vec::new();
    for round in 1.. {
        let name = format!("round {round}");
        println!("{name}");
        let mut running = lane.begin(&name).await?;
        let checked = end.min(Instant::now() + ROUND);
        while Instant::now() < checked {
            let fault = draw(&mut deck, ask.replicas, &rng);
            let spell = Duration::from_millis(2_000 + rng.below(18_000));
            *verdict.faults.entry(fault.name()).or_default() += 1;
            let inflicted = match fault.inflict(ground, &mut running, &rng, spell).await {
                Ok(()) => ground.whole().await,
                Err(why) => Err(why),
            };
            if let Err(why) = inflicted {
                running.note(&format!("failed: {why:#}"));
                verdict.undone.push(format!("{} failed: {why:#}", fault.name()));
                ground.mend().await?;
                break;
            }
        }
        running.door.sound();
        let report = lane.finish(running).await?;
        fault::clear(ground).await?;
        println!("{report}");
        verdict.add(&report);
        verdict.undone.extend(ground.hurt()?);
        if Instant::now() >= end || !verdict.is_good() {
            return Ok(verdict);
        }
    }
    bail!("rounds never end")
}

/// A fault from a shuffled deck of all of them, so that none is drawn twice before each was drawn once.
fn draw(deck: &mut Vec<Fault>, replicas: bool, rng: &Rng) -> Fault {
    if deck.is_empty() {
        deck.extend(Fault::COMMON);
        deck.extend(Fault::CQL.into_iter().filter(|fault| replicas || *fault == Fault::CqlSlow));
        rng.shuffle(deck);
    }
    deck.pop().expect("a deck was just made")
}
