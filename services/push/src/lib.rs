//! Offline push: devices and tokens, what a receiver wants, plans, and delivery to providers.
#![warn(missing_docs)]
