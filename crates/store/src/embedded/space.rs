//! Keeps a reserve of free space, so that a full disk is an answer and not a half-written file.

use std::path::{Path, PathBuf};

/// How the reason begins when the reserve of free space is reached: for answers that say so.
pub const DISK_FULL: &str = "the disk is full";

pub(super) struct Space {
    dir: PathBuf,
    reserve: u64,
}

impl Space {
    pub(super) fn new(dir: &Path, reserve: u64) -> Self {
        Self { dir: dir.to_owned(), reserve }
    }

    /// `Err` says why nothing can be written now. One system call, about a microsecond.
    pub(super) fn check(&self) -> Result<(), String> {
        let Ok(stat) = rustix::fs::statvfs(&self.dir) else { return Ok(()) };
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free >= self.reserve {
            return Ok(());
        }
        let (free, reserve) = (free >> 20, self.reserve >> 20);
        Err(format!("{DISK_FULL}: {free} MiB left at {}, {reserve} MiB are kept free", self.dir.display()))
    }
}
