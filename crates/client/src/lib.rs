//! The client protocol in Rust: for tests, the `chat` command and load.
//!
//! Hides the socket, reconnecting, the two encodings, and the closing of gaps. Knows no service. Invariants:
//!
//! - Stored messages of a conversation are shown in order of their `seq`, each once; a hole is closed from history before
//!   what follows it is shown, and closing always ends: every answer moves the position or ends the search.
//! - A message that was not answered is sent again after a reconnect with the same `random`, so it is stored once.
//! - `kicked` ends the client: it does not come back by itself.
//!
//! ```text
//! Client --request--> driver (owns the socket) <--> gateway         dropped: back-off, resume, sync, resend
//!                        +--items, in order--> Events
//! ```
#![warn(missing_docs)]

mod driver;
mod error;
mod gaps;
mod handle;
mod options;
mod transport;

pub use error::{Error, Result};
pub use handle::{Client, Events};
pub use linnet_proto::client as proto;
pub use options::{Dial, Encoding, Options, Stream};

use linnet_proto::client;

/// What a client is told, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Signed in, for the first time or again.
    SignedIn(client::SignedIn),
    /// A message, in order of its conversation; one's own from other devices too.
    Message {
        /// `C2C:<peer>` or `GROUP:<group>`.
        conv: String,
        /// The message.
        message: client::Message,
    },
    /// Anything else that happened: recalls, receipts, notices, changes, room states.
    Item(client::Item),
    /// The connection was lost; the client is coming back by itself.
    Disconnected,
    /// The session is over.
    Kicked(client::Kicked),
    /// The client gave up: the server refused to sign it in.
    Refused(client::Error),
}
