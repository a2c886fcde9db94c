//! Checks the engine's table files against the checksums in its manifests, before they are trusted.
//!
//! The engine checks a block when it reads it, and its manifests never, and names no file. A damaged block found at noon
//! by whoever happens to read it is too late, so files are checked as a whole at start, smallest trees first, up to a
//! budget of bytes; what is beyond the budget is checked by the sweeper.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3Default;

use super::open_error;
use crate::rows::Result;

/// A file and the checksum its manifest gives it.
#[derive(Clone, Debug)]
pub(super) struct TableFile {
    path: PathBuf,
    bytes: u64,
    checksum: u128,
}

/// Checks manifests and, up to `budget` bytes, table files; returns the files that were left for later.
///
/// # Errors
/// [`crate::Error::Open`], naming the file.
pub(super) fn check(dir: &Path, budget: u64) -> Result<Vec<TableFile>> {
    let mut files = Vec::new();
    let trees = dir.join("keyspaces");
    for tree in entries(&trees)? {
        if tree.is_file() {
            continue;
        }
        let number = tree.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u64>().ok());
        if number.is_none() {
            return Err(open_error(&tree, "not a folder of the store"));
        }
        if tree.join("current").exists() {
            manifest(&tree, &mut files)?;
        }
    }
    files.sort_by_key(|file| file.bytes);
    let mut spent = 0u64;
    let mut later = Vec::new();
    for file in files {
        spent = spent.saturating_add(file.bytes);
        if spent > budget {
            later.push(file);
        } else {
            check_file(&file)?;
        }
    }
    Ok(later)
}

/// Whether any tree below `trees` has table files.
pub(super) fn has_tables(trees: &Path) -> bool {
    let Ok(trees) = fs::read_dir(trees) else { return false };
    let tables = trees.flatten().map(|tree| tree.path().join("tables"));
    tables.filter_map(|tables| fs::read_dir(tables).ok()).any(|mut tables| tables.next().is_some())
}

/// Reads one table file through and compares; a file that compaction has removed meanwhile is fine.
///
/// # Errors
/// [`crate::Error::Open`], naming the file.
pub(super) fn check_file(file: &TableFile) -> Result<()> {
    match checksum(&file.path) {
        Ok(found) if found == file.checksum => Ok(()),
        Ok(_) => Err(open_error(&file.path, "damaged: its bytes are not those that were written")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(open_error(&file.path, e)),
    }
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let listing = fs::read_dir(dir).map_err(|e| open_error(dir, e))?;
    listing.map(|entry| entry.map(|entry| entry.path()).map_err(|e| open_error(dir, e))).collect()
}

fn manifest(tree: &Path, files: &mut Vec<TableFile>) -> Result<()> {
    let pointer = tree.join("current");
    let current = fs::read(&pointer).map_err(|e| open_error(&pointer, e))?;
    let (Some(version), Some(expected)) = (current.first_chunk(), current.get(8..).and_then(<[u8]>::first_chunk))
    else {
        return Err(open_error(&pointer, "damaged: too short"));
    };
    let path = tree.join(format!("v{}", u64::from_le_bytes(*version)));
    if checksum(&path).map_err(|e| open_error(&path, e))? != u128::from_le_bytes(*expected) {
        return Err(open_error(&path, "damaged: its bytes are not those that were written"));
    }
    let reader = sfa::Reader::new(&path).map_err(|e| open_error(&path, format!("{e:?}")))?;
    let Some(section) = reader.toc().section(b"tables") else {
        return Err(open_error(&path, "damaged: it names no tables"));
    };
    let mut input = section.buf_reader(&path).map_err(|e| open_error(&path, e))?;
    read_tables(tree, &mut input, files).map_err(|e| open_error(&path, e))?;
    match files.iter().find(|file| file.bytes == u64::MAX) {
        Some(missing) => Err(open_error(&missing.path, "missing")),
        None => Ok(()),
    }
}

fn read_tables(tree: &Path, input: &mut impl Read, files: &mut Vec<TableFile>) -> std::io::Result<()> {
    let levels = read::<1>(input)?[0];
    for _ in 0..levels {
        let runs = read::<1>(input)?[0];
        for _ in 0..runs {
            let tables = u32::from_le_bytes(read(input)?);
            for _ in 0..tables {
                let id = u64::from_le_bytes(read(input)?);
                let _checksum_type = read::<1>(input)?;
                let checksum = u128::from_le_bytes(read(input)?);
                let _global_seqno = read::<8>(input)?;
                let path = tree.join("tables").join(id.to_string());
                let bytes = fs::metadata(&path).map_or(u64::MAX, |meta| meta.len());
                files.push(TableFile { path, bytes, checksum });
            }
        }
    }
    Ok(())
}

fn read<const N: usize>(input: &mut impl Read) -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn checksum(path: &Path) -> std::io::Result<u128> {
    let mut file = File::open(path)?;
    let mut hasher = Xxh3Default::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.digest128()),
            n => hasher.update(&buffer[..n]),
        }
    }
}
