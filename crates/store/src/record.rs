//! What the small aggregates share: one record in a guarded partition, changed by reading and writing back, and plain
//! rows written until they are there.

use bytes::Bytes;
use linnet_types::Epoch;
use prost::Message;

use crate::rows::{Applied, Error, Guard, GuardedBatch, Life, PlainBatch, Result, Store, Table, Write};

/// Writers that lose this often in a row give up: something is wrong, not busy.
const TRIES: u32 = 64;
/// Repeats of a plain write before its caller hears of it.
const REPEATS: u32 = 3;

/// Clustering key of the only row.
const RECORD: Bytes = Bytes::from_static(&[0]);

/// What a change wants done, with the answer for its caller.
pub(crate) enum Decision<T> {
    /// Nothing.
    Keep(T),
    /// The record afterwards.
    Write(Bytes, T),
}

/// Reads the record of `partition`.
pub(crate) async fn load(store: &Store, table: Table, partition: &[u8]) -> Result<Option<Bytes>> {
    store.get(table, partition, &RECORD).await
}

/// Changes the record of `partition`: `decide` sees what is stored and may run several times, once per lost race.
///
/// A write whose outcome is unknown is settled by a claim; it counts as done when the record then is what it wrote.
pub(crate) async fn change<T: Send>(
    store: &Store,
    table: Table,
    partition: Bytes,
    mut decide: impl FnMut(Option<&[u8]>) -> Result<Decision<T>> + Send,
) -> Result<T> {
    for _ in 0..TRIES {
        // The guard first: a record that is newer than its guard makes the write fail, never the reverse.
        let guard = store.guard(table, &partition).await?;
        let old = if guard.is_some() { load(store, table, &partition).await? } else { None };
        let (value, answer) = match decide(old.as_deref())? {
            Decision::Keep(answer) => return Ok(answer),
            Decision::Write(value, answer) => (value, answer),
        };
        match store.write(batch(table, &partition, guard.as_ref(), value.clone())).await {
            Ok(Applied::Yes) => return Ok(answer),
            Ok(Applied::No(_)) => {}
            Err(Error::Unknown { .. }) => {
                // Whatever stops the settling, the outcome stays unknown.
                let settled = settle(store, table, &partition).await;
                let unknown = |error: Error| Error::Unknown { table: table.name, why: error.to_string() };
                if settled.map_err(unknown)?.as_ref() == Some(&value) {
                    return Ok(answer);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::Unavailable { table: table.name, why: format!("lost {TRIES} races for one record") })
}

fn batch(table: Table, partition: &Bytes, old: Option<&Guard>, value: Bytes) -> GuardedBatch {
    let (epoch, rev) = old.map_or((Epoch(1), 0), |guard| (guard.epoch, guard.rev));
    let data = linnet_proto::store::RecordGuard { record_bytes: value.len() as u32 };
    GuardedBatch {
        table,
        partition: partition.clone(),
        expect: old.map(|guard| (guard.epoch, guard.rev)),
        guard: Guard { epoch, rev: rev + 1, data: data.encode_to_vec().into() },
        writes: vec![Write::Put { clustering: RECORD, value }],
        life: Life::Forever,
        guard_life: Life::Forever,
    }
}

/// Raises the epoch, so that nothing written before can land any more, and returns the record there is.
async fn settle(store: &Store, table: Table, partition: &Bytes) -> Result<Option<Bytes>> {
    for _ in 0..TRIES {
        let guard = store.guard(table, partition).await?;
        let claim = GuardedBatch {
            table,
            partition: partition.clone(),
            expect: guard.as_ref().map(|guard| (guard.epoch, guard.rev)),
            guard: guard.map_or(Guard { epoch: Epoch(2), rev: 0, data: Bytes::new() }, |guard| Guard {
                epoch: guard.epoch.next(),
                ..guard
            }),
            writes: Vec::new(),
            life: Life::Forever,
            guard_life: Life::Forever,
        };
        match store.write(claim).await {
            Ok(Applied::Yes) => return load(store, table, partition).await,
            Ok(Applied::No(_)) | Err(Error::Unknown { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::Unknown { table: table.name, why: "no claim went through".to_owned() })
}

/// Writes plain rows, repeating a few times what may have failed.
pub(crate) async fn put(store: &Store, table: Table, writes: Vec<(Bytes, Write)>, life: Life) -> Result<()> {
    if writes.is_empty() {
        return Ok(());
    }
    let batch = PlainBatch { table, writes, life };
    for _ in 1..REPEATS {
        match store.put(batch.clone()).await {
            Err(Error::Unknown { .. } | Error::Unavailable { .. }) => {}
            settled => return settled,
        }
    }
    store.put(batch).await
}

/// A row that holds `message`.
pub(crate) fn row(clustering: Bytes, message: &impl Message) -> Write {
    Write::Put { clustering, value: encode(message) }
}

/// The bytes of `message`.
pub(crate) fn encode(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

/// Reads a stored value back.
pub(crate) fn decode<M: Message + Default>(table: Table, value: &[u8]) -> Result<M> {
    M::decode(value).map_err(|error| corrupt(table, error))
}

/// A value of `table` that makes no sense.
pub(crate) fn corrupt(table: Table, why: impl std::fmt::Display) -> Error {
    Error::Corrupt { table: table.name, why: why.to_string() }
}

/// The partition a text id falls in, of `slots`.
pub(crate) fn slot(id: &str, slots: u16) -> u16 {
    // The remainder of a number below 65,536 fits.
    (crc32fast::hash(id.as_bytes()) % u32::from(slots.max(1))) as u16
}
