//! Makes delivery over a bus that loses messages dependable: numbers, interest, registration, repetition, resending.
//!
//! Owners of conversations (group, message-store) publish through [`Publisher`]; gateways receive through [`Receiver`].
//! Neither knows what a message means. The bus is at most once; the log is the truth; what is lost for good is *said*.
//!
//! ```text
//! owner                                                            gateway
//! Stream::publish --numbered Batch--> fan.<site>.<conv> ---------> conversation: in order, holes seen --+
//!        |                                                             |  Missing, Register (Rpc)       +--> Delivered
//!        +--users -> gateways (cache) --numbered Frame--> gw.<id> --> link: in order, holes seen -------+
//!                                                                      |  MissingFrames (Rpc)
//!        quiet for 0.25, 0.5, 1, 2, 4, 15 s: LastNumbers --> gw.<id>     not kept any more: Advanced / Resync
//! ```
//!
//! Invariants:
//! - Batches of a conversation carry (tenure, no, prev), frames of an owner to a gateway (incarnation, no, prev); a
//!   receiver hands on in order or says what it could not get ([`Delivered::Advanced`], [`Delivered::Resync`]).
//! - A tenure is an owner's epoch. Batches of a lower epoch than seen are dropped: a deposed owner reaches nobody.
//! - After a loss that cannot be made good, membership is unknown: the conversation is registered again, and the answer
//!   names those who are no members any more, before anything else is handed on.
//! - Publishing never blocks; every queue is bounded; what a full queue drops is a loss like any other, seen by numbers.
#![warn(missing_docs)]

mod error;
mod keep;
mod metrics;
mod places;
mod publisher;
mod quiet;
mod receiver;
mod remote;
mod wire;

use std::sync::Arc;

use linnet_types::{GroupId, UserId};

pub use error::{Error, Result};
pub use publisher::{Grpc, Publisher, PublisherDeps, Registrar, Stream};
pub use receiver::{Delivered, Interest, LinkCount, Local, Locals, Receiver, ReceiverDeps, Which};

/// The public name of a conversation, by which its owner is found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ConvName {
    /// A group.
    Group(GroupId),
    /// The two users of a pair, smaller id first.
    Pair(UserId, UserId),
}

/// Whom a batch is for.
#[derive(Clone, Debug)]
pub enum Audience {
    /// These users, wherever they are: pairs, small groups, targeted messages. On gateways that registered for the
    /// conversation too, so use it alone only while none can be ([`Stream::registered`]).
    Users(Arc<[UserId]>),
    /// Local members of every gateway that registered: large groups, communities, live rooms.
    Registered,
    /// Both ways, for 30 s after a group crossed the limit; a receiver hands on one of the two.
    Both(Arc<[UserId]>),
}

impl Audience {
    /// Users by name.
    pub fn users(users: impl IntoIterator<Item = UserId>) -> Self {
        Self::Users(users.into_iter().collect())
    }

    fn named(&self) -> Option<&Arc<[UserId]>> {
        match self {
            Self::Users(users) | Self::Both(users) => Some(users),
            Self::Registered => None,
        }
    }

    fn is_registered(&self) -> bool {
        matches!(self, Self::Registered | Self::Both(_))
    }
}

/// What goes with a batch.
#[derive(Clone, Debug, Default)]
pub struct PublishOptions {
    /// A live room: gateways shape and may drop.
    pub live: bool,
    /// Live rooms: messages the owner dropped since the last batch, by priority (High, Normal, Low, Lowest).
    pub shaped: [u32; 4],
    /// The conversation outgrew delivery by name: gateways with a local member register.
    pub register: bool,
}
