//! The bus in each of its forms.

mod access;
mod faulty;
mod local;
mod nats;
mod relay;
mod suite;
