//! What can go wrong, and what the caller is told.

use linnet_store::embedded::DISK_FULL;
use linnet_types::{Refusal, code};

/// Wait told to a caller while a group moves or its store settles.
pub(crate) const RETRY_MS: u32 = 200;

/// Result of this crate: everything a caller sees is a public refusal.
pub type Result<T, E = Refusal> = std::result::Result<T, E>;

/// The group is being activated, moved or is overloaded: the same call may succeed shortly.
pub(crate) fn busy(why: &str) -> Refusal {
    Refusal::retry(code::BUSY, why, RETRY_MS)
}

/// No such group, or not any more.
pub(crate) fn unknown() -> Refusal {
    Refusal::new(code::GROUP_UNKNOWN, "no such group, or it was dismissed")
}

/// Not allowed.
pub(crate) fn no_right(why: &str) -> Refusal {
    Refusal::new(code::GROUP_NO_RIGHT, why)
}

/// A parameter is wrong.
pub(crate) fn bad(why: &str) -> Refusal {
    Refusal::new(code::GROUP_BAD_PARAM, why)
}

/// A fault of the store as the caller sees it, and whether the holder of a claim must let go of it.
pub(crate) fn from_store(error: &linnet_store::Error) -> (Refusal, bool) {
    match error {
        linnet_store::Error::Stale { .. } => (busy("the group is moving"), true),
        linnet_store::Error::Unknown { .. } => (busy("the outcome is not known yet"), true),
        linnet_store::Error::Unavailable { why, .. } if why.starts_with(DISK_FULL) => {
            (busy("the disk of the store is full"), false)
        }
        linnet_store::Error::Unavailable { .. } => (busy("the store did not answer"), false),
        linnet_store::Error::Corrupt { .. } | linnet_store::Error::Open { .. } => {
            tracing::error!(%error, "group store");
            (Refusal::new(code::GROUP_INTERNAL, "internal error"), false)
        }
    }
}
