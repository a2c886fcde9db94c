//! Sizes and shapes of what callers may put into a group (`spec/rest-groups.md` §1.6). Sizes are bytes of UTF-8.

use linnet_proto::group::KeyValue;
use linnet_types::{AppSettings, GroupType, Refusal, code};

/// Longest introduction.
pub const INTRODUCTION_BYTES: usize = 240;
/// Longest notification.
pub const NOTIFICATION_BYTES: usize = 300;
/// Longest face URL.
pub const FACE_URL_BYTES: usize = 500;
/// Longest name card.
pub const NAME_CARD_BYTES: usize = 50;
/// Longest value of a group's custom field.
pub const GROUP_VALUE_BYTES: usize = 512;
/// Longest value of a member's custom field.
pub const MEMBER_VALUE_BYTES: usize = 64;
/// Longest reason of a recall.
pub const RECALL_REASON_BYTES: usize = 100;
/// Longest description of a ban.
pub const BAN_DESCRIPTION_BYTES: usize = 1_000;
/// Longest words of an application or reason of a kick.
pub const WORDING_BYTES: usize = 1_000;
/// Members named when a group is created.
pub const CREATE_MEMBERS: usize = 100;
/// Members added by one REST call.
pub const ADD_MEMBERS: usize = 300;
/// Members invited by one client call.
pub const INVITE_MEMBERS: usize = 20;
/// Members removed by one call.
pub const REMOVE_MEMBERS: usize = 100;
/// Roles asked for by one call.
pub const ROLES: usize = 500;
/// Users muted by one call.
pub const MUTES: usize = 500;
/// Users banned or unbanned by one call.
pub const BANS: usize = 20;
/// Banned users shown by one call.
pub const BANNED_PAGE: usize = 100;
/// Members shown by one call.
pub const MEMBERS_PAGE: u32 = 6_000;
/// Members asked for by name in one call.
pub const MEMBERS_NAMED: usize = 50;
/// Messages recalled by one call.
pub const RECALLS: usize = 10;
/// Receivers named by one system notice.
pub const NOTIFY_TO: usize = 500;
/// Receivers of a targeted message.
pub const TARGETS: usize = 50;
/// Mentions of one message.
pub const MENTIONS: usize = 30;
/// Open applications a group keeps; the oldest fall off.
pub const APPLICATIONS: usize = 500;
/// Open applications of one user in one group's list.
pub const APPLICATIONS_PER_USER: usize = 50;

fn bad(info: String) -> Refusal {
    Refusal::new(code::GROUP_BAD_PARAM, info)
}

/// Checks the size of one text.
///
/// # Errors
/// [`code::GROUP_BAD_PARAM`] naming the field and its cap.
pub fn text(field: &str, value: &str, cap: usize) -> Result<(), Refusal> {
    if value.len() > cap {
        return Err(bad(format!("{field} is longer than {cap} bytes")));
    }
    Ok(())
}

/// Checks a group's name: 1 byte to the app's cap.
///
/// # Errors
/// [`code::GROUP_BAD_PARAM`].
pub fn name(value: &str, settings: &AppSettings) -> Result<(), Refusal> {
    if value.is_empty() {
        return Err(bad("Name is empty".to_owned()));
    }
    text("Name", value, settings.name_bytes as usize)
}

/// Checks custom fields of a group: only keys the app declared.
///
/// # Errors
/// [`code::GROUP_BAD_PARAM`].
pub fn group_custom(fields: &[KeyValue], settings: &AppSettings) -> Result<(), Refusal> {
    custom(fields, &settings.group_keys, GROUP_VALUE_BYTES, "AppDefinedData")
}

/// Checks custom fields of a member: only keys the app declared; none in live rooms.
///
/// # Errors
/// [`code::GROUP_BAD_PARAM`].
pub fn member_custom(fields: &[KeyValue], settings: &AppSettings) -> Result<(), Refusal> {
    custom(fields, &settings.member_keys, MEMBER_VALUE_BYTES, "AppMemberDefinedData")
}

fn custom(fields: &[KeyValue], declared: &str, cap: usize, what: &str) -> Result<(), Refusal> {
    for field in fields {
        if !declared.split(',').any(|key| !field.key.is_empty() && key.trim() == field.key) {
            return Err(bad(format!("{what}: a key is not declared for this app")));
        }
        if field.value.len() > cap {
            return Err(bad(format!("{what}: a value is longer than {cap} bytes")));
        }
    }
    Ok(())
}

/// Refuses more than `cap` accounts in one call, or none.
///
/// # Errors
/// [`code::GROUP_TOO_MANY`], [`code::GROUP_BAD_PARAM`].
pub fn accounts(field: &str, count: usize, cap: usize) -> Result<(), Refusal> {
    if count == 0 {
        return Err(bad(format!("{field} is empty")));
    }
    if count > cap {
        return Err(Refusal::new(code::GROUP_TOO_MANY, format!("{field} holds more than {cap} accounts")));
    }
    Ok(())
}

/// Most members a group of the kind may have in the app; 0 = no limit.
#[must_use]
pub fn member_cap(kind: GroupType, settings: &AppSettings) -> u32 {
    match kind {
        GroupType::Work => settings.members_work,
        GroupType::Public => settings.members_public,
        GroupType::Meeting => settings.members_meeting,
        GroupType::Community => settings.members_community,
        GroupType::AVChatRoom => 0,
    }
}

/// The cap a creator asked for, checked: 0 = the kind's.
///
/// # Errors
/// [`code::GROUP_MEMBER_CAP`] above what the kind allows.
pub fn chosen_cap(kind: GroupType, asked: u32, settings: &AppSettings) -> Result<u32, Refusal> {
    let cap = member_cap(kind, settings);
    match asked {
        _ if kind.is_live() => Ok(0),
        0 => Ok(cap),
        n if n <= cap => Ok(n),
        _ => Err(Refusal::new(code::GROUP_MEMBER_CAP, format!("more than {cap} members"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(key: &str, value: &[u8]) -> KeyValue {
        KeyValue { key: key.to_owned(), value: value.to_vec().into() }
    }

    #[test]
    fn sizes_are_counted_in_bytes() {
        let settings = AppSettings { name_bytes: 30, ..AppSettings::default() };
        assert!(name(&"名".repeat(10), &settings).is_ok());
        assert_eq!(name(&"名".repeat(11), &settings).map_err(|refusal| refusal.code), Err(10004));
        assert_eq!(name("", &settings).map_err(|refusal| refusal.code), Err(10004));
    }

    #[test]
    fn only_declared_keys_are_taken() {
        let settings = AppSettings { group_keys: "rank, colour".to_owned(), ..AppSettings::default() };
        assert!(group_custom(&[field("rank", b"1"), field("colour", &[0xff; 512])], &settings).is_ok());
        assert!(group_custom(&[field("", b"1")], &settings).is_err());
        assert!(group_custom(&[field("size", b"1")], &settings).is_err());
        assert!(group_custom(&[field("rank", &[0; 513])], &settings).is_err());
        assert!(member_custom(&[field("rank", b"1")], &settings).is_err());
    }

    #[test]
    fn caps_of_members() {
        let settings = AppSettings::default();
        assert_eq!(chosen_cap(GroupType::Public, 0, &settings), Ok(6_000));
        assert_eq!(chosen_cap(GroupType::Public, 5, &settings), Ok(5));
        assert_eq!(chosen_cap(GroupType::Public, 6_001, &settings).map_err(|refusal| refusal.code), Err(10038));
        assert_eq!(chosen_cap(GroupType::AVChatRoom, 7, &settings), Ok(0));
    }

    #[test]
    fn too_many_accounts_is_its_own_code() {
        assert_eq!(accounts("MemberList", 301, ADD_MEMBERS).map_err(|refusal| refusal.code), Err(10005));
        assert_eq!(accounts("MemberList", 0, ADD_MEMBERS).map_err(|refusal| refusal.code), Err(10004));
        assert!(accounts("MemberList", 300, ADD_MEMBERS).is_ok());
    }
}
