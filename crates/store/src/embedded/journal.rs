//! Looks through the engine's journals before the engine does.
//!
//! fjall 3.1 cuts a journal off at the first entry it cannot parse, silently: one flipped byte in the middle would take
//! every acknowledged write after it. And it refuses to open when the *last*, torn batch has its end on the disk but not
//! its middle. So every journal is parsed here first, by fjall's format: batches of `Start(count, seqno) item* End(xxh3)`.
//! There is one committer and it syncs each batch before the next is begun, so only the last batch of the newest journal
//! can be torn: that one is cut off. Anything unreadable with a readable batch behind it, or in an older journal (synced
//! when it was sealed), is damage.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::open_error;
use crate::rows::Result;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: &[u8; 4] = b"FJL\x03";
/// Seqnos the engine may use between two batches, for its own tables.
const MAX_LEAP: u64 = 1 << 32;
const ITEM_HEADER: usize = 1 + 1 + 1 + 8 + 2 + 4 + 4;

/// The journals of a folder.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Journals {
    pub(super) count: usize,
    /// Number of the newest.
    pub(super) newest: u64,
    /// Any of them holds a batch.
    pub(super) has_batches: bool,
}

/// Checks every journal in `dir` and cuts a torn last batch off.
///
/// # Errors
/// [`crate::Error::Open`], naming the file and the place, when there is damage before valid data.
pub(super) fn repair(dir: &Path) -> Result<Journals> {
    let journals = list(dir)?;
    let newest = journals.last().map_or(0, |(number, _)| *number);
    let mut last = None;
    for (number, path) in &journals {
        check(path, *number == newest, &mut last)?;
    }
    Ok(Journals { count: journals.len(), newest, has_batches: last.is_some() })
}

/// Whether anything was ever written to a journal in `dir`.
pub(super) fn any_written(dir: &Path) -> Result<bool> {
    for path in paths(dir)? {
        let bytes = fs::read(&path).map_err(|e| open_error(&path, e))?;
        if written(&bytes) > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The journals in `dir`, oldest first.
pub(super) fn paths(dir: &Path) -> Result<Vec<PathBuf>> {
    Ok(list(dir)?.into_iter().map(|(_, path)| path).collect())
}

fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| open_error(dir, e))? {
        let path = entry.map_err(|e| open_error(dir, e))?.path();
        if path.extension().is_none_or(|ext| ext != "jnl") {
            continue;
        }
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        let Some(number) = number else {
            return Err(open_error(&path, "not the name of a journal"));
        };
        found.push((number, path));
    }
    found.sort();
    Ok(found)
}

/// Checks one journal, which goes on after the batch numbered `last`.
fn check(path: &Path, newest: bool, last: &mut Option<u64>) -> Result<()> {
    let bytes = fs::read(path).map_err(|e| open_error(path, e))?;
    // A journal is allocated in full; what was never written is zero.
    let written = written(&bytes);
    let valid = valid_prefix(&bytes, last);
    if valid >= written {
        return Ok(());
    }
    if batch(&bytes[valid..]).is_some() {
        return Err(open_error(path, format!("damaged before byte {valid}: the batch there is out of order")));
    }
    if let Some(later) = later_batch(&bytes[..written], valid) {
        return Err(open_error(
            path,
            format!("damaged at byte {valid}: the batch there cannot be read, but the one at byte {later} can"),
        ));
    }
    if !newest {
        return Err(open_error(path, format!("damaged at byte {valid} of a journal that was complete")));
    }
    let torn = written - valid;
    tracing::warn!(path = %path.display(), at = valid, torn, "cutting off a write that was not finished");
    cut(path, valid as u64).map_err(|e| open_error(path, e))
}

/// Length without the zeros at the end. By blocks: a byte at a time takes a second for an empty journal when not optimised.
fn written(bytes: &[u8]) -> usize {
    const BLOCK: usize = 4096;
    let empty =
        bytes.rchunks(BLOCK).take_while(|block| **block == [0; BLOCK][..block.len()]).map(<[u8]>::len).sum::<usize>();
    let rest = &bytes[..bytes.len() - empty];
    rest.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1)
}

fn cut(path: &Path, len: u64) -> std::io::Result<()> {
    let file: File = OpenOptions::new().write(true).open(path)?;
    file.set_len(len)?;
    file.sync_all()
}

/// Length of the run of readable batches from the start. A batch's seqno is in no checksum, so it must rise, and not by leaps.
fn valid_prefix(bytes: &[u8], last: &mut Option<u64>) -> usize {
    let mut at = 0;
    while let Some((len, seqno)) = batch(&bytes[at..]) {
        if last.is_some_and(|last| seqno <= last || seqno > last + MAX_LEAP) {
            break;
        }
        at += len;
        *last = Some(seqno);
    }
    at
}

/// The place of a whole batch somewhere after `from`.
fn later_batch(bytes: &[u8], from: usize) -> Option<usize> {
    (from + 1..bytes.len()).find(|&at| bytes[at] == START && batch(&bytes[at..]).is_some())
}

/// Parses one batch at the start of `bytes`: its length and seqno, if it is whole and its checksum right.
fn batch(bytes: &[u8]) -> Option<(usize, u64)> {
    let (&[START], rest) = bytes.split_first_chunk::<1>()? else { return None };
    let (count, rest) = rest.split_first_chunk::<4>()?;
    let (seqno, items) = rest.split_first_chunk::<8>()?;
    let mut at = 0;
    for _ in 0..u32::from_le_bytes(*count) {
        at += entry(&items[at..])?;
    }
    let (&[END], rest) = items[at..].split_first_chunk::<1>()? else { return None };
    let (sum, rest) = rest.split_first_chunk::<8>()?;
    let (trailer, _) = rest.split_first_chunk::<4>()?;
    let whole = trailer == TRAILER && u64::from_le_bytes(*sum) == xxh3_64(&items[..at]);
    whole.then(|| (13 + at + 13, u64::from_le_bytes(*seqno)))
}

/// Length of one entry inside a batch.
fn entry(bytes: &[u8]) -> Option<usize> {
    match *bytes.first()? {
        CLEAR => (bytes.len() >= 9).then_some(9),
        ITEM => {
            let header = bytes.first_chunk::<ITEM_HEADER>()?;
            let key = u16::from_le_bytes([header[11], header[12]]) as usize;
            let value = u32::from_le_bytes([header[17], header[18], header[19], header[20]]) as usize;
            let len = ITEM_HEADER.checked_add(key)?.checked_add(value)?;
            (bytes.len() >= len).then_some(len)
        }
        _ => None,
    }
}
