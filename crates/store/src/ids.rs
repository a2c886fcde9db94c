//! Allocation of [`ConvId`]s: unique for ever, never derived from a public id, below 2^53 so that JSON carries them.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use linnet_types::{ConvId, Epoch};
use tokio::sync::Mutex;

use crate::rows::{Applied, Error, Guard, GuardedBatch, Kind, Life, Result, Store, Table};

/// The counter blocks are taken from.
pub const CONV_IDS: Table = Table { name: "conv_ids", kind: Kind::Guarded };

const COUNTER: Bytes = Bytes::from_static(b"conv");
/// Ids taken at once; what a process does not use is never used.
const BLOCK: u64 = 256;
/// Claims lost in a row before a caller hears of it.
const TRIES: u32 = 32;

/// Hands out fresh ids; cheap to clone, clones share a block.
#[derive(Clone)]
pub struct ConvIds {
    store: Store,
    block: Arc<Mutex<Range<u64>>>,
}

impl ConvIds {
    /// Ids from the counter in `store`.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, block: Arc::new(Mutex::new(0..0)) }
    }

    /// An id nobody has had before. From memory, but for one write in 256.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and whatever the store says.
    pub async fn fresh(&self) -> Result<ConvId> {
        let mut block = self.block.lock().await;
        if block.is_empty() {
            *block = self.take().await?;
        }
        let id = block.next().expect("a fresh block has ids");
        Ok(ConvId(id))
    }

    /// The guard's rev is the first id not yet given away. A block whose write has an unknown outcome is left unused.
    async fn take(&self) -> Result<Range<u64>> {
        for _ in 0..TRIES {
            let guard = self.store.guard(CONV_IDS, &COUNTER).await?;
            let first = guard.as_ref().map_or(1, |guard| guard.rev);
            let batch = GuardedBatch {
                table: CONV_IDS,
                partition: COUNTER,
                expect: guard.map(|guard| (guard.epoch, guard.rev)),
                guard: Guard { epoch: Epoch(0), rev: first + BLOCK, data: Bytes::new() },
                writes: Vec::new(),
                life: Life::Forever,
                guard_life: Life::Forever,
            };
            match self.store.write(batch).await {
                Ok(Applied::Yes) => return Ok(first..first + BLOCK),
                Ok(Applied::No(_)) | Err(Error::Unknown { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Err(Error::Unavailable { table: CONV_IDS.name, why: "others keep taking ids".to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use linnet_runtime::{Clock, Rng};
    use linnet_types::UnixMillis;

    use super::*;
    use crate::sim::{Faults, SimRows};

    #[tokio::test(start_paused = true)]
    async fn no_id_is_given_twice_by_two_nodes_over_a_rough_store() {
        for seed in 0..20 {
            let sim = SimRows::new(Rng::seeded(seed), Clock::simulated(UnixMillis(1)), Faults::rough());
            let nodes = [ConvIds::new(sim.store()), ConvIds::new(sim.store())];
            let mut seen = HashSet::new();
            for turn in 0..600 {
                if let Ok(id) = nodes[turn % 2].fresh().await {
                    assert!(seen.insert(id), "seed {seed}: {id} given twice");
                }
            }
            assert!(seen.len() > 300, "seed {seed}: only {} ids", seen.len());
        }
    }
}
