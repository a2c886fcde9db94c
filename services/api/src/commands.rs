//! The commands, a folder per service and a file per command.

pub(crate) mod contact;
pub(crate) mod group;
pub(crate) mod login;
pub(crate) mod openim;
pub(crate) mod profile;
pub(crate) mod push;

mod accounts;
mod message;
