//! The stage before the loop: what an owner does with a message before its actor sees it.
//!
//! Hides de-duplication (with retries joining what is pending), the order of one sender's messages, and the app's
//! before-webhook; and, for every edge, the settings of the app an operation is admitted under ([`apps`]).
//!
//! ```text
//! Send --> de-duplicate --> before-webhook --> hand over, in the sender's order --> actor     done before: the first reply again
//!             |  pending: a retry waits for the same outcome                                 webhook: refused, dropped, rewritten
//! ```
//!
//! Invariants: nothing here is awaited by an actor; a slow app server delays only the sender it is asked about; what is
//! pending or done is found again under the same token until its window ends; every table has a bound.
#![warn(missing_docs)]

pub mod apps;
mod arrivals;
mod dedup;
mod line;
mod stage;

pub use arrivals::Place;
pub use dedup::Token;
pub use line::{Flight, Taken, Taker};
pub use stage::{Admission, Admit, Ask, Family, content_hash};
