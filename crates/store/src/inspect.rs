//! Reads any table for people, on any backend: what `linnet inspect TABLE KEY` prints.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::keys::Key;
use crate::rows::{Kind, Range, Result, Store, Table};
use crate::{accounts, apps, conversations, groups, ids, logs, positions, push, queues, relations};

/// Partition keys read at a time.
const PAGE: usize = 256;
/// Partition keys looked at for one beginning: where they are not in key order, those of the whole table are gone through.
const MOST_LOOKED_AT: usize = 200_000;

/// Turns a row (table, partition, clustering, value) into JSON.
type Describe = fn(Table, &[u8], &[u8], &[u8]) -> Result<Value>;

/// Every table of the store, with what reads its rows.
fn registry() -> Vec<(Table, Describe)> {
    fn of(tables: &[Table], describe: Describe) -> Vec<(Table, Describe)> {
        tables.iter().map(|table| (*table, describe)).collect()
    }
    fn no_rows(_: Table, _: &[u8], _: &[u8], _: &[u8]) -> Result<Value> {
        Ok(Value::Null)
    }
    [
        of(&apps::tables(), apps::describe),
        of(&accounts::tables(), accounts::describe),
        of(&relations::tables(), relations::describe),
        of(&groups::tables(), groups::describe),
        of(&conversations::tables(), conversations::describe),
        of(&positions::tables(), positions::describe),
        of(&push::tables(), push::describe),
        of(&queues::tables(), queues::describe),
        of(&logs::tables(), logs::describe),
        of(&[ids::CONV_IDS], no_rows),
    ]
    .concat()
}

/// Every table of the store.
pub(crate) fn registry_tables() -> Vec<Table> {
    registry().into_iter().map(|(table, _)| table).collect()
}

/// Names of all tables, sorted.
#[must_use]
pub fn tables() -> Vec<&'static str> {
    let mut names: Vec<_> = registry().into_iter().map(|(table, _)| table.name).collect();
    names.sort_unstable();
    names
}

/// A partition for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Partition {
    /// The key in hex, which [`inspect`] takes back as `0x…`.
    pub key: String,
    /// Epoch, rev and the aggregate's data; `None` in plain tables.
    pub guard: Option<Value>,
    /// The rows, in key order.
    pub rows: Vec<Value>,
}

/// Reads partitions of `table` whose key begins with the parts in `key` (numbers or text, in the order of the key, or the
/// whole key as one part in hex, `0x…`), at most `limit` of them with at most `limit` rows each. `None`: no such table.
///
/// # Errors
/// [`crate::Error`] of the store, or of a row that cannot be read.
pub async fn inspect(store: &Store, table: &str, key: &[String], limit: usize) -> Result<Option<Vec<Partition>>> {
    let Some((table, describe)) = registry().into_iter().find(|(known, _)| known.name == table) else {
        return Ok(None);
    };
    let mut found = Vec::new();
    for candidate in candidates(key) {
        for partition in beginning_with(store, table, &candidate, limit).await? {
            if found.len() < limit && !found.contains(&partition) {
                found.push(partition);
            }
        }
    }
    let mut partitions = Vec::new();
    for partition in found {
        partitions.push(read(store, table, describe, &partition, limit).await?);
    }
    Ok(Some(partitions))
}

async fn read(store: &Store, table: Table, describe: Describe, partition: &[u8], limit: usize) -> Result<Partition> {
    let guard = match table.kind {
        Kind::Plain => None,
        Kind::Guarded => store.guard(table, partition).await?,
    };
    let mut rows = Vec::new();
    for row in store.scan(table, partition, Range { limit, ..Range::default() }).await? {
        rows.push(describe(table, partition, &row.clustering, &row.value)?);
    }
    let guard = match &guard {
        Some(guard) => {
            let data = match logs::describe_guard(table, guard)? {
                None => groups::describe_guard(table, guard)?,
                data => data,
            };
            Some(json!({ "epoch": guard.epoch, "rev": guard.rev, "data": data, "bytes": guard.data.len() }))
        }
        None => None,
    };
    Ok(Partition { key: format!("0x{}", hex::encode(partition)), guard, rows })
}

/// The partitions that begin with `start`; itself among them if anything is there.
async fn beginning_with(store: &Store, table: Table, start: &[u8], limit: usize) -> Result<Vec<Bytes>> {
    let mut found = Vec::new();
    let guarded = table.kind == Kind::Guarded && store.guard(table, start).await?.is_some();
    if guarded || !store.scan(table, start, Range { limit: 1, ..Range::default() }).await?.is_empty() {
        found.push(Bytes::copy_from_slice(start));
    }
    let mut after = store.in_key_order().then(|| Bytes::copy_from_slice(start));
    let mut looked_at = 0;
    while found.len() < limit && looked_at < MOST_LOOKED_AT {
        let page = store.partitions(table, after.as_deref(), PAGE).await?;
        let last_page = page.len() < PAGE;
        looked_at += page.len();
        after = page.last().cloned();
        for partition in page {
            let begins = partition.starts_with(start);
            if !begins && store.in_key_order() {
                return Ok(found);
            }
            if begins && found.len() < limit && !found.contains(&partition) {
                found.push(partition);
            }
        }
        if last_page {
            break;
        }
    }
    Ok(found)
}

/// A part is written as a number of one of three widths or as text, and only the table knows which: every reading is
/// tried. A key has at most four parts.
fn candidates(key: &[String]) -> Vec<Bytes> {
    if let [whole] = key
        && let Some(Ok(bytes)) = whole.strip_prefix("0x").map(hex::decode)
    {
        return vec![bytes.into()];
    }
    let mut built = vec![Key::new()];
    for part in key.iter().take(4) {
        let readings = |key: &Key| {
            let mut readings = vec![key.clone().text(part)];
            if let Ok(number) = part.parse::<u64>() {
                readings.push(key.clone().u64(number));
                readings.extend(u32::try_from(number).map(|number| key.clone().u32(number)));
                readings.extend(u8::try_from(number).map(|number| key.clone().u8(number)));
            }
            readings
        };
        built = built.iter().flat_map(readings).collect();
    }
    built.into_iter().map(Key::done).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_table_has_one_name_and_one_reader() {
        let mut names = tables();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(count > 30, "{names:?}");
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_table_are_read_or_refused(
            partition: Vec<u8>, clustering: Vec<u8>, value: Vec<u8>, as_key in any::<(u32, u64, u64)>(),
        ) {
            let key = Key::new().u32(as_key.0).u64(as_key.1).u64(as_key.2).done();
            for (table, describe) in registry() {
                let _ = describe(table, &partition, &clustering, &value);
                let _ = describe(table, &key, &clustering, &value);
                let guard = crate::Guard { epoch: linnet_types::Epoch(1), rev: 1, data: value.clone().into() };
                let _ = logs::describe_guard(table, &guard);
            }
        }

        #[test]
        fn any_key_on_the_command_line_gives_a_few_candidates(key in prop::collection::vec(".{0,20}", 0..6)) {
            prop_assert!(candidates(&key).len() <= 256);
        }
    }
}
