//! Conversation logs, one-to-one sending, lists and read positions.
mod msgkey;
mod unread;
mod view;
mod webhook;
