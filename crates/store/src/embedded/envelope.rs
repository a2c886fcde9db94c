//! How a row lies in the engine: one flat key, one sealed value.
//!
//! Key: table name, partition (both ended, so prefixes are exact), a tag that puts the guard before the rows, then the
//! clustering key as it is. Value: version, expiry, checksum over key, expiry and data, data.

use bytes::{BufMut, Bytes};
use linnet_types::{Epoch, UnixMillis};

use crate::keys::{Key, Parts, after_prefix};
use crate::rows::{Error, Guard, Life, Range, Result, Table};

const VERSION: u8 = 1;
const HEADER: usize = 1 + 8 + 4;
const GUARD: u8 = 0;
const ROW: u8 = 1;

/// The engine stores key lengths in 16 bits.
pub(super) const MAX_KEY: usize = 60_000;

pub(super) fn table_prefix(table: Table) -> Bytes {
    Key::new().text(table.name).done()
}

pub(super) fn partition_prefix(table: Table, partition: &[u8]) -> Bytes {
    Key::new().text(table.name).bytes(partition).done()
}

pub(super) fn guard_key(table: Table, partition: &[u8]) -> Bytes {
    Key::new().text(table.name).bytes(partition).u8(GUARD).done()
}

fn rows_key(table: Table, partition: &[u8], extra: usize) -> Vec<u8> {
    let mut key = Vec::with_capacity(table.name.len() + 2 * partition.len() + 5 + extra);
    key.extend_from_slice(&partition_prefix(table, partition));
    key.push(ROW);
    key
}

pub(super) fn row_key(table: Table, partition: &[u8], clustering: &[u8]) -> Bytes {
    let mut key = rows_key(table, partition, clustering.len());
    key.extend_from_slice(clustering);
    key.into()
}

/// Length of what precedes the clustering key in every row key of the partition.
pub(super) fn clustering_at(table: Table, partition: &[u8]) -> usize {
    rows_key(table, partition, 0).len()
}

/// The engine's half-open key range that holds what `range` asks for.
pub(super) fn bounds(table: Table, partition: &[u8], range: &Range) -> (Bytes, Bytes) {
    let from = row_key(table, partition, range.from.as_deref().unwrap_or_default());
    let to = match &range.to {
        Some(to) => row_key(table, partition, to),
        None => after_prefix(&rows_key(table, partition, 0)).expect("the key ends in the row tag, which is not ff"),
    };
    (from, to)
}

/// Reads the partition out of any key of `table`.
pub(super) fn partition_of(table: Table, key: &[u8]) -> Result<Bytes> {
    let mut parts = Parts::new(table.name, key);
    parts.text()?;
    parts.bytes().map(Bytes::from)
}

/// When a row written now expires, in milliseconds; 0 = never.
pub(super) fn expiry(now: UnixMillis, life: Life) -> u64 {
    match life {
        Life::Forever => 0,
        Life::For(span) => now.plus_ms(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)).0.max(1),
    }
}

fn checksum(key: &[u8], expires: u64, data: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(key);
    crc.update(&expires.to_be_bytes());
    crc.update(data);
    crc.finalize()
}

pub(super) fn seal(key: &[u8], expires: u64, data: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(HEADER + data.len());
    out.put_u8(VERSION);
    out.put_u64(expires);
    out.put_u32(checksum(key, expires, data));
    out.put_slice(data);
    out.into()
}

/// Checks and opens a sealed value; `None` when it has expired.
pub(super) fn unseal(table: &'static str, key: &[u8], sealed: &Bytes, now: UnixMillis) -> Result<Option<Bytes>> {
    let corrupt = |why: String| Error::Corrupt { table, why };
    let Some((header, data)) = sealed.split_first_chunk::<HEADER>() else {
        return Err(corrupt(format!("a value of {} bytes", sealed.len())));
    };
    let [version, rest @ ..] = header;
    if *version != VERSION {
        return Err(corrupt(format!("value version {version}")));
    }
    let expires = u64::from_be_bytes(*rest.first_chunk().expect("the header holds eight bytes of expiry"));
    let expected = u32::from_be_bytes(*rest.last_chunk().expect("the header ends in four bytes of checksum"));
    if checksum(key, expires, data) != expected {
        return Err(corrupt(format!("checksum of the row with key {}", hex::encode(key))));
    }
    if is_expired(expires, now) {
        return Ok(None);
    }
    Ok(Some(sealed.slice(HEADER..)))
}

fn is_expired(expires: u64, now: UnixMillis) -> bool {
    expires != 0 && expires <= now.0
}

/// Whether a stored value may be dropped; damaged ones are kept for whoever repairs.
pub(super) fn may_drop(sealed: &[u8], now: UnixMillis) -> bool {
    match sealed.split_first_chunk::<9>() {
        Some(([VERSION, expires @ ..], _)) => is_expired(u64::from_be_bytes(*expires), now),
        _ => false,
    }
}

pub(super) fn encode_guard(guard: &Guard) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + guard.data.len());
    out.put_u64(guard.epoch.0);
    out.put_u64(guard.rev);
    out.put_slice(&guard.data);
    out
}

pub(super) fn decode_guard(table: &'static str, data: &Bytes) -> Result<Guard> {
    let (Some(epoch), Some(rev)) = (data.first_chunk(), data.get(8..).and_then(<[u8]>::first_chunk)) else {
        return Err(Error::Corrupt { table, why: format!("a guard of {} bytes", data.len()) });
    };
    Ok(Guard { epoch: Epoch(u64::from_be_bytes(*epoch)), rev: u64::from_be_bytes(*rev), data: data.slice(16..) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rows::Kind;

    const T: Table = Table { name: "t", kind: Kind::Guarded };

    proptest! {
        #[test]
        fn a_value_comes_back_and_any_flipped_bit_is_seen(key: Vec<u8>, data: Vec<u8>, flip: prop::sample::Index) {
            let mut sealed = seal(&key, 7, &data).to_vec();
            let now = UnixMillis(6);
            prop_assert_eq!(unseal("t", &key, &sealed.clone().into(), now).unwrap().unwrap(), data);
            let bit = flip.index(sealed.len() * 8);
            sealed[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(unseal("t", &key, &sealed.into(), now).is_err());
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(key: Vec<u8>, junk: Vec<u8>) {
            let _ = unseal("t", &key, &junk.clone().into(), UnixMillis(0));
            let _ = decode_guard("t", &junk.into());
        }

        #[test]
        fn a_partition_is_read_back_from_its_keys(partition: Vec<u8>, clustering: Vec<u8>) {
            let key = row_key(T, &partition, &clustering);
            prop_assert_eq!(&partition_of(T, &key).unwrap()[..], &partition[..]);
            prop_assert_eq!(&key[clustering_at(T, &partition)..], &clustering[..]);
            prop_assert!(guard_key(T, &partition) < key);
            let (from, to) = bounds(T, &partition, &Range::default());
            prop_assert!(from <= key && key < to);
        }
    }

    #[test]
    fn a_value_is_gone_at_its_expiry() {
        let sealed = seal(b"k", expiry(UnixMillis(1_000), Life::For(std::time::Duration::from_millis(5))), b"v");
        assert!(unseal("t", b"k", &sealed, UnixMillis(1_004)).unwrap().is_some());
        assert!(!may_drop(&sealed, UnixMillis(1_004)));
        assert!(unseal("t", b"k", &sealed, UnixMillis(1_005)).unwrap().is_none());
        assert!(may_drop(&sealed, UnixMillis(1_005)));
    }
}
