//! The bus in each of its forms.
#![allow(clippy::disallowed_methods, reason = "tests of real servers run in real time")]

mod access;
mod faulty;
mod local;
mod nats;
mod relay;
mod suite;
