//! What may be done with the folder as it is found: go on, begin, or neither.
//!
//! The engine decides by its file `version` alone, and cannot begin where an earlier beginning was cut short. It also
//! passes over journal entries whose tree is gone, silently.

use std::fs;
use std::path::Path;

use super::verify::{self, TableFile};
use super::{journal, open_error};
use crate::rows::Result;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Something was committed here before: the engine must find the tree of rows.
    pub(super) has_data: bool,
    /// Table files left to check.
    pub(super) unchecked: Vec<TableFile>,
}

/// Repairs and checks what is in `dir` before the engine sees it. The caller holds the folder's lock.
///
/// # Errors
/// [`crate::Error::Open`], naming the file.
pub(super) fn prepare(dir: &Path, verify_bytes: u64) -> Result<Found> {
    let version = dir.join("version");
    // Written last of all when a store is made, so without it nothing was committed, unless it was lost.
    if fs::metadata(&version).map_or(0, |meta| meta.len()) == 0 {
        begin_again(dir, &version)?;
        return Ok(Found::default());
    }
    let journals = journal::repair(dir)?;
    if journals.count == 0 {
        return Err(open_error(&dir.join("*.jnl"), "the journal is missing"));
    }
    let trees = dir.join("keyspaces");
    let unchecked = if trees.exists() { verify::check(dir, verify_bytes)? } else { Vec::new() };
    Ok(Found { has_data: journals.has_batches || journals.newest > 0, unchecked })
}

/// Clears away what a beginning that was cut short left.
fn begin_again(dir: &Path, version: &Path) -> Result<()> {
    let trees = dir.join("keyspaces");
    if journal::any_written(dir)? || verify::has_tables(&trees) {
        return Err(open_error(version, "missing, and there is data beside it"));
    }
    for path in journal::paths(dir)? {
        fs::remove_file(&path).map_err(|e| open_error(&path, e))?;
    }
    for leftover in [version, &dir.join("lock")] {
        if leftover.exists() {
            fs::remove_file(leftover).map_err(|e| open_error(leftover, e))?;
        }
    }
    if trees.exists() {
        fs::remove_dir_all(&trees).map_err(|e| open_error(&trees, e))?;
    }
    Ok(())
}
