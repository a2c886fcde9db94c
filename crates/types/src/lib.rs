//! The words every Linnet crate shares: ids, limits, public error codes, message elements.
//!
//! Hides the spelling rules of ids (`spec` facts are cited at each rule) and the byte-faithful treatment of message
//! elements. Plain data: no async, no I/O, no wire library.
#![warn(missing_docs)]

pub mod code;
pub mod element;
pub mod group;
pub mod id;
pub mod key;
pub mod refusal;
pub mod settings;
pub mod time;

pub use element::MsgBody;
pub use group::{ApplyJoinOption, GroupType, InviteJoinOption, Role};
pub use id::{ConvId, Epoch, GroupId, NodeId, SdkAppId, Seq, UserId};
pub use key::{ConversationKey, MsgKey, Platform, Priority};
pub use refusal::Refusal;
pub use settings::AppSettings;
pub use time::UnixMillis;
