//! Every command in one table: what the edge dispatches by, `linnet call --list` prints and the documentation lists.
//!
//! A command is a file below `commands/` (request fields, reply struct, `handle`) and one line here.

use futures::future::BoxFuture;
use linnet_types::{Refusal, code};

use crate::call::Call;
use crate::commands::{contact, group, login, openim, profile, push};
use crate::reply::Reply;

/// One command of the public REST surface.
#[derive(Clone, Copy)]
pub struct Entry {
    /// `SERVICE/COMMAND`.
    pub name: &'static str,
    /// Documented calls a second of one app; `None` = the app's `rest.command_rate`.
    pub rate: Option<u32>,
    /// Caps on one call, for people; empty = none.
    pub limits: &'static str,
    /// What it does, a few words.
    pub doc: &'static str,
    /// What of the documented behaviour is there.
    pub status: Status,
    pub(crate) family: Family,
    pub(crate) handler: Handler,
}

/// How much of a command is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Everything documented.
    Full,
    /// All but this.
    Without(&'static str),
    /// Another spelling of this command.
    AliasOf(&'static str),
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full => f.write_str("full"),
            Self::Without(what) => write!(f, "without {what}"),
            Self::AliasOf(name) => write!(f, "is {}", name.rsplit('/').next().unwrap_or(name)),
        }
    }
}

pub(crate) type Handler = for<'a> fn(&'a Call<'a>) -> BoxFuture<'a, Result<Reply, Refusal>>;

impl Entry {
    /// The service, the first half of the name.
    #[must_use]
    pub fn service(&self) -> &'static str {
        self.name.split_once('/').map_or(self.name, |(service, _)| service)
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("name", &self.name).field("status", &self.status).finish_non_exhaustive()
    }
}

/// Commands that share codes and envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Login,
    OpenIm,
    Profile,
    Contact,
    Group,
}

impl Family {
    /// "Internal error, retry".
    pub(crate) fn internal(self) -> u32 {
        match self {
            Self::Login => code::ACCOUNT_INTERNAL,
            Self::OpenIm => code::OPENIM_INTERNAL,
            Self::Profile => code::PROFILE_INTERNAL,
            Self::Contact => code::CONTACT_INTERNAL,
            Self::Group => code::GROUP_INTERNAL,
        }
    }

    fn bad_param(self) -> u32 {
        match self {
            Self::Login => code::ACCOUNT_BAD_PARAM,
            Self::OpenIm => code::OPENIM_BAD_JSON,
            Self::Profile => code::PROFILE_BAD_PARAM,
            Self::Contact => code::CONTACT_BAD_PARAM,
            Self::Group => code::GROUP_BAD_PARAM,
        }
    }

    fn no_user(self) -> u32 {
        match self {
            Self::Login => code::ACCOUNT_UNKNOWN,
            Self::OpenIm => code::MSG_ACCOUNT_UNKNOWN,
            Self::Profile => code::PROFILE_ACCOUNT_UNKNOWN,
            Self::Contact => code::CONTACT_ACCOUNT_UNKNOWN,
            Self::Group => code::GROUP_NO_USER,
        }
    }

    /// The reply is over 1 MB.
    pub(crate) fn reply_large(self) -> u32 {
        match self {
            Self::Group => code::GROUP_REPLY_LARGE,
            Self::Login | Self::OpenIm | Self::Profile | Self::Contact => code::REPLY_TOO_LARGE,
        }
    }

    /// Replies carry `ErrorDisplay` (`spec/rest-accounts.md` §1.4).
    pub(crate) fn has_display(self) -> bool {
        matches!(self, Self::Profile | Self::Contact)
    }

    /// The refusal of an inner service in this family's own codes: the account service's and the client protocol's are
    /// not documented here.
    pub(crate) fn own(self, mut refusal: Refusal) -> Refusal {
        refusal.code = match refusal.code {
            code::BUSY | code::GOING_AWAY => self.internal(),
            code::ACCOUNT_TIMEOUT | code::ACCOUNT_INTERNAL if self != Self::Login => self.internal(),
            code::ACCOUNT_BAD_PARAM => self.bad_param(),
            code::ACCOUNT_UNKNOWN => self.no_user(),
            other => other,
        };
        refusal
    }
}

use Status::{AliasOf, Full, Without};

const SLOW: u32 = 100;
const USUAL: u32 = 200;
const TOPICS: Status = Without("TopicId");

macro_rules! entries {
    ($($family:ident $name:literal $module:path, $rate:expr, $status:expr, $limits:literal, $doc:literal;)*) => {
        &[$(Entry {
            name: $name,
            rate: Some($rate),
            limits: $limits,
            doc: $doc,
            status: $status,
            family: Family::$family,
            handler: {
                use $module as command;
                |call| Box::pin(command::handle(call))
            },
        }),*]
    };
}

/// The commands served, by service. Rates and caps are the documents' (`spec/rest-accounts.md` §1.7, §2-3,
/// `spec/rest-messages.md` §3-4, `spec/rest-groups.md` §2).
#[rustfmt::skip]
static CATALOGUE: &[Entry] = entries! {
    Login "im_open_login_svc/account_import" login::account_import, USUAL, Full, "", "register an account or update its nick and avatar";
    Login "im_open_login_svc/multiaccount_import" login::multiaccount_import, SLOW, Full, "100 accounts", "register many accounts";
    Login "im_open_login_svc/account_delete" login::account_delete, SLOW, Full, "100 accounts", "delete accounts with what belongs to them";
    Login "im_open_login_svc/account_check" login::account_check, SLOW, Full, "100 accounts", "which accounts are registered";
    Login "im_open_login_svc/kick" login::kick, USUAL, Full, "", "end every session of a user and his UserSigs so far";

    OpenIm "openim/query_online_status" openim::query_online_status, USUAL, Full, "500 accounts", "who is online, by platform";
    OpenIm "openim/querystate" openim::query_online_status, USUAL, AliasOf("openim/query_online_status"), "500 accounts", "who is online, by platform";
    OpenIm "openim/sendmsg" openim::sendmsg, USUAL, Full, "", "send a message to a user";
    OpenIm "openim/batchsendmsg" openim::batchsendmsg, USUAL, Full, "500 receivers, 12,000 a minute", "send one message to many users";
    OpenIm "openim/admin_getroammsg" openim::admin_getroammsg, USUAL, Full, "100 messages", "read one side's history of a pair";
    OpenIm "openim/admin_msgwithdraw" openim::admin_msgwithdraw, USUAL, Full, "", "recall a message of a pair";
    OpenIm "openim/admin_set_msg_read" openim::admin_set_msg_read, USUAL, Full, "", "mark a conversation read for a user";
    OpenIm "openim/get_c2c_unread_msg_num" openim::get_c2c_unread_msg_num, USUAL, Full, "10 peers", "unread one-to-one messages of a user";

    Profile "profile/portrait_set" profile::portrait_set, USUAL, Full, "", "set fields of a profile";
    Profile "profile/portrait_get" profile::portrait_get, USUAL, Full, "100 accounts", "read fields of profiles";

    Contact "recentcontact/get_list" contact::get_list, USUAL, Full, "100 conversations a page", "a user's conversation list";
    Contact "recentcontact/delete" contact::delete, USUAL, Full, "", "remove a conversation from a user's list";

    OpenIm "linnet_push/set_device" push::set_device, USUAL, Full, "16 devices of a user", "register a device for offline pushes";
    OpenIm "linnet_push/delete_device" push::delete_device, USUAL, Full, "", "remove devices of a user";
    OpenIm "linnet_push/get_device" push::get_device, USUAL, Full, "", "devices of a user and the number on his icons";
    OpenIm "linnet_push/set_badge" push::set_badge, USUAL, Full, "", "set the number on a user's icons";
    OpenIm "linnet_push/set_receive_opt" push::set_receive_opt, USUAL, Full, "100 peers", "how messages of some users reach a user";
    OpenIm "linnet_push/get_receive_opt" push::get_receive_opt, USUAL, Full, "100 peers", "receive options of a user";
    OpenIm "linnet_push/set_quiet_time" push::set_quiet_time, USUAL, Full, "", "when a user is left alone";
    OpenIm "linnet_push/get_quiet_time" push::get_quiet_time, USUAL, Full, "", "when a user is left alone";

    Group "group_open_http_svc/get_appid_group_list" group::get_appid_group_list, 1, Full, "10,000 ids", "ids of the app's groups";
    Group "group_open_http_svc/create_group" group::create_group, USUAL, Without("topics"), "100 first members", "make a group";
    Group "group_open_http_svc/get_group_info" group::get_group_info, USUAL, Full, "50 groups", "profiles of groups, with members";
    Group "group_open_http_svc/get_group_member_info" group::get_group_member_info, USUAL, Full, "6,000 a page", "members of a group";
    Group "group_open_http_svc/get_specified_group_member_info" group::get_specified_group_member_info, USUAL, Full, "50 members", "given members of a group";
    Group "group_open_http_svc/modify_group_base_info" group::modify_group_base_info, USUAL, Without("permission groups"), "", "change a group's profile";
    Group "group_open_http_svc/add_group_member" group::add_group_member, USUAL, Full, "300 members", "add members";
    Group "group_open_http_svc/delete_group_member" group::delete_group_member, USUAL, Full, "100 members", "remove members";
    Group "group_open_http_svc/modify_group_member_info" group::modify_group_member_info, USUAL, Full, "", "change a member's role, name card or mute";
    Group "group_open_http_svc/destroy_group" group::destroy_group, USUAL, Full, "", "dismiss a group";
    Group "group_open_http_svc/get_joined_group_list" group::get_joined_group_list, USUAL, Full, "5,000 groups", "groups of a user";
    Group "group_open_http_svc/get_role_in_group" group::get_role_in_group, USUAL, Full, "500 members", "roles of users in a group";
    Group "group_open_http_svc/forbid_send_msg" group::forbid_send_msg, USUAL, TOPICS, "500 members", "mute or unmute members";
    Group "group_open_http_svc/get_group_muted_account" group::get_group_muted_account, USUAL, TOPICS, "", "who is muted";
    Group "group_open_http_svc/get_group_shutted_uin" group::get_group_muted_account, USUAL, AliasOf("group_open_http_svc/get_group_muted_account"), "", "who is muted";
    Group "group_open_http_svc/ban_group_member" group::ban_group_member, USUAL, Full, "20 members", "remove members and keep them out";
    Group "group_open_http_svc/unban_group_member" group::unban_group_member, USUAL, Full, "20 members", "let banned users in again";
    Group "group_open_http_svc/get_group_ban_member" group::get_group_ban_member, USUAL, Full, "100 a page", "who is banned";
    Group "group_open_http_svc/send_group_msg" group::send_group_msg, USUAL, TOPICS, "", "send a message to a group";
    Group "group_open_http_svc/send_group_system_notification" group::send_group_system_notification, USUAL, TOPICS, "500 receivers", "notify members who are online";
    Group "group_open_http_svc/group_msg_recall" group::group_msg_recall, USUAL, TOPICS, "10 messages", "recall messages of a group";
    Group "group_open_http_svc/group_msg_get_simple" group::group_msg_get_simple, USUAL, TOPICS, "20 messages", "read a group's history";
    Group "group_open_http_svc/set_unread_msg_num" group::set_unread_msg_num, USUAL, Full, "", "set a member's unread count";
    Group "group_open_http_svc/get_online_member_num" group::get_online_member_num, USUAL, Full, "", "viewers of a live room";
    Group "group_open_http_svc/change_group_owner" group::change_group_owner, USUAL, Full, "", "hand a group to another member";
};

/// Every command, by service.
#[must_use]
pub fn catalogue() -> &'static [Entry] {
    CATALOGUE
}

/// The catalogue as tables of Markdown, one per service, for the documentation.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::new();
    let mut service = "";
    for entry in CATALOGUE {
        if entry.service() != service {
            service = entry.service();
            out +=
                &format!("\n### `{service}`\n\n| command | does | calls/s | cap | status |\n|---|---|---|---|---|\n");
        }
        let command = entry.name.rsplit('/').next().unwrap_or(entry.name);
        let rate = entry.rate.map_or_else(|| "app setting".to_owned(), |rate| rate.to_string());
        out += &format!("| `{command}` | {} | {rate} | {} | {} |\n", entry.doc, entry.limits, entry.status);
    }
    out.trim_start().to_owned()
}

/// The command of this name.
pub(crate) fn find(name: &str) -> Option<&'static Entry> {
    CATALOGUE.iter().find(|entry| entry.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_aliases_lead_somewhere() {
        let names: HashSet<_> = CATALOGUE.iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), CATALOGUE.len());
        for entry in CATALOGUE {
            assert!(entry.name.split('/').count() == 2 && !entry.doc.is_empty(), "{entry:?}");
            if let AliasOf(other) = entry.status {
                assert!(names.contains(other), "{entry:?}");
            }
        }
    }

    #[test]
    fn the_documentation_has_a_table_per_service_and_a_row_per_command() {
        let text = markdown();
        let services: HashSet<_> = CATALOGUE.iter().map(Entry::service).collect();
        assert_eq!(text.matches("### ").count(), services.len());
        assert_eq!(text.lines().filter(|line| line.starts_with("| `")).count(), CATALOGUE.len());
        assert!(
            text.contains(
                "| `querystate` | who is online, by platform | 200 | 500 accounts | is query_online_status |"
            )
        );
    }

    #[test]
    fn inner_codes_become_the_familys_own() {
        let own = |family: Family, code| family.own(Refusal::new(code, "x")).code;
        assert_eq!(own(Family::Group, code::BUSY), code::GROUP_INTERNAL);
        assert_eq!(own(Family::Profile, code::ACCOUNT_UNKNOWN), code::PROFILE_ACCOUNT_UNKNOWN);
        assert_eq!(own(Family::OpenIm, code::C2C_NO_USER), code::C2C_NO_USER);
    }
}
