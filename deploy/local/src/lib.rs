//! A Linnet cluster on one machine: real servers, relays between processes, faults.
#![warn(missing_docs)]
