//! `recentcontact`: conversation lists (`spec/rest-messages.md` §4).

pub(crate) mod delete;
pub(crate) mod get_list;

/// `Type` of a conversation with a user.
const C2C: u32 = 1;
/// `Type` of a group.
const GROUP: u32 = 2;
