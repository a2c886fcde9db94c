//! Tips and notices: what members see of a group's life (`spec/rest-groups.md` §6).
//!
//! A tip is a message of one `TIMGroupTipElem` in the group; a notice goes to the users it concerns.

use linnet_proto::delivery::Notice;
use linnet_proto::group::KeyValue;
use linnet_proto::msg::{Message, MessageKind, Origin};
use linnet_types::{UnixMillis, UserId};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::rules::TipFamily;

/// A user as a tip shows him.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Person {
    /// Who.
    #[serde(rename = "userID")]
    pub user: String,
    /// Profile name; empty = unknown.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub nick: String,
    /// Profile picture; empty = unknown.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub avatar: String,
    /// Name in this group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name_card: String,
    /// Role afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// Seconds he is muted for; 0 = not any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mute_time: Option<u64>,
    /// When he came, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join_time: Option<u64>,
}

impl Person {
    /// Somebody of whom only the id is known.
    #[must_use]
    pub fn id(user: &UserId) -> Self {
        Self { user: user.to_string(), ..Self::default() }
    }
}

/// What a tip tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tip {
    /// Came on their own.
    Joined(Vec<Person>),
    /// Were brought in.
    Invited(Vec<Person>),
    /// Left.
    Left(Vec<Person>),
    /// Were removed.
    Kicked(Vec<Person>),
    /// Became admins.
    AdminSet(Vec<Person>),
    /// Are admins no more.
    AdminUnset(Vec<Person>),
    /// Fields of the profile changed: web names and new values.
    Profile(Map<String, Value>),
    /// Were muted or unmuted.
    Muted(Vec<Person>),
    /// Were banned from a live room.
    Banned(Vec<Person>),
    /// May come back into a live room.
    Unbanned(Vec<Person>),
}

impl Tip {
    /// The switch it hangs on.
    #[must_use]
    pub fn family(&self) -> TipFamily {
        match self {
            Self::Joined(_) | Self::Invited(_) | Self::Left(_) | Self::Kicked(_) => TipFamily::Members,
            // A live room's members must learn of a ban as of a kick.
            Self::Banned(_) | Self::Unbanned(_) => TipFamily::Members,
            Self::Profile(fields) if fields.keys().all(|key| OPTION_FIELDS.contains(&key.as_str())) => {
                TipFamily::Options
            }
            Self::Profile(_) => TipFamily::Face,
            Self::AdminSet(_) | Self::AdminUnset(_) | Self::Muted(_) => TipFamily::Standing,
        }
    }

    fn operation(&self) -> u32 {
        match self {
            Self::Joined(_) | Self::Invited(_) => 1,
            Self::Left(_) => 2,
            Self::Kicked(_) => 3,
            Self::AdminSet(_) => 4,
            Self::AdminUnset(_) => 5,
            Self::Profile(_) => 6,
            Self::Muted(_) => 7,
            Self::Banned(_) => 10,
            Self::Unbanned(_) => 11,
        }
    }

    fn people(&self) -> &[Person] {
        match self {
            Self::Joined(people)
            | Self::Invited(people)
            | Self::Left(people)
            | Self::Kicked(people)
            | Self::AdminSet(people)
            | Self::AdminUnset(people)
            | Self::Muted(people)
            | Self::Banned(people)
            | Self::Unbanned(people) => people,
            Self::Profile(_) => &[],
        }
    }
}

/// Names of profile fields whose change has no tip of its own.
const OPTION_FIELDS: [&str; 3] = ["muteAllMembers", "joinOption", "inviteOption"];
/// People shown by one tip; the count is always whole.
pub const TIP_PEOPLE: usize = 100;

/// Where a tip happens.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Public id.
    pub group: &'a str,
    /// Name of the group.
    pub name: &'a str,
    /// Members afterwards; live rooms: viewers.
    pub member_count: u32,
}

/// The message of a tip: no seq yet, from the operator, never counted as unread.
#[must_use]
pub fn message(tip: &Tip, place: Place<'_>, origin: &Origin, operator: &Person) -> Message {
    let mut content = Map::new();
    content.insert("operationType".into(), tip.operation().into());
    content.insert("operatorID".into(), operator.user.clone().into());
    content.insert("operatorInfo".into(), json!(operator));
    let profile = json!({"groupID": place.group, "groupName": place.name, "from": operator.user, "to": place.group});
    content.insert("groupProfile".into(), profile);
    content.insert("platform".into(), origin.platform.clone().into());
    match tip {
        Tip::Joined(_) => drop(content.insert("groupJoinType".into(), 1.into())),
        Tip::Invited(_) => drop(content.insert("groupJoinType".into(), 2.into())),
        Tip::Profile(fields) => drop(content.insert("newGroupProfile".into(), Value::Object(fields.clone()))),
        _ => {}
    }
    if matches!(tip, Tip::Joined(_) | Tip::Invited(_) | Tip::Left(_) | Tip::Kicked(_) | Tip::Banned(_)) {
        content.insert("memberCount".into(), place.member_count.into());
    }
    let shown = &tip.people()[..tip.people().len().min(TIP_PEOPLE)];
    if !shown.is_empty() {
        content.insert("userIDList".into(), shown.iter().map(|person| person.user.as_str()).collect());
        content.insert("memberList".into(), json!(shown));
    }
    let body = json!([{"MsgContent": content, "MsgType": "TIMGroupTipElem"}]).to_string();
    Message {
        from: operator.user.clone(),
        body: body.into_bytes().into(),
        kind: MessageKind::Tip.into(),
        no_unread: true,
        ..Message::default()
    }
}

/// What a notice tells, with the numbers of `spec/rest-groups.md` §6.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum NoticeKind {
    /// Somebody wants in.
    Application = 1,
    /// His application was accepted.
    Accepted = 2,
    /// His application was refused.
    Refused = 3,
    /// He was removed.
    Kicked = 4,
    /// The group is gone.
    Dismissed = 5,
    /// The group was created; for the creator's devices.
    Created = 6,
    /// He was brought in.
    Invited = 7,
    /// He left; for his other devices.
    Quit = 8,
    /// He became an admin.
    AdminSet = 9,
    /// He is an admin no more.
    AdminUnset = 10,
    /// Written by the app's backend.
    Custom = 255,
    /// He was muted.
    Muted = 17,
    /// He was banned.
    Banned = 22,
    /// He may come back.
    Unbanned = 23,
    /// An invitation waits for an admin's consent.
    InviteAsked = 24,
    /// What became of an application, for the admins.
    Decided = 25,
}

/// A notice and what belongs to it.
#[must_use]
pub fn notice(kind: NoticeKind, place: Place<'_>, operator: &str, now: UnixMillis, extra: Value) -> Notice {
    let mut content = Map::new();
    content.insert("operationType".into(), (kind as u32).into());
    content.insert("operatorID".into(), operator.into());
    content.insert("groupProfile".into(), json!({"groupID": place.group, "groupName": place.name}));
    content.insert("time".into(), now.secs().into());
    if let Value::Object(extra) = extra {
        content.extend(extra);
    }
    Notice { r#type: kind as u32, json: Value::Object(content).to_string().into_bytes().into() }
}

/// Custom fields as `newGroupProfile.groupCustomField` shows them.
#[must_use]
pub fn custom_fields(fields: &[KeyValue]) -> Value {
    fields.iter().map(|f| json!({"key": f.key, "value": String::from_utf8_lossy(&f.value)})).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'_> = Place { group: "g", name: "club", member_count: 3 };

    fn content(tip: &Tip) -> Value {
        let origin = Origin { platform: "RESTAPI".into(), ..Origin::default() };
        let message = message(tip, PLACE, &origin, &Person::id(&UserId::trusted("boss")));
        assert_eq!(message.kind(), MessageKind::Tip);
        let body: Value = serde_json::from_slice(&message.body).expect("JSON");
        assert_eq!(body[0]["MsgType"], "TIMGroupTipElem");
        body[0]["MsgContent"].clone()
    }

    #[test]
    fn an_invitation_names_people_operator_and_count() {
        let content = content(&Tip::Invited(vec![Person::id(&UserId::trusted("bob"))]));
        assert_eq!(content["operationType"], 1);
        assert_eq!(content["groupJoinType"], 2);
        assert_eq!(content["operatorID"], "boss");
        assert_eq!(content["userIDList"], json!(["bob"]));
        assert_eq!(content["memberList"], json!([{"userID": "bob"}]));
        assert_eq!(content["memberCount"], 3);
        assert_eq!(content["groupProfile"]["groupName"], "club");
    }

    #[test]
    fn option_changes_are_a_family_of_their_own() {
        let only = |key: &str| Tip::Profile(Map::from_iter([(key.to_owned(), Value::from(1))]));
        assert_eq!(only("muteAllMembers").family(), TipFamily::Options);
        assert_eq!(only("groupName").family(), TipFamily::Face);
        assert_eq!(content(&only("groupName"))["newGroupProfile"], json!({"groupName": 1}));
    }

    #[test]
    fn a_tip_about_thousands_shows_a_hundred_and_the_whole_count() {
        let people: Vec<_> = (0..5_000).map(|i| Person::id(&UserId::trusted(format!("u{i}")))).collect();
        assert_eq!(content(&Tip::Joined(people))["userIDList"].as_array().map(Vec::len), Some(TIP_PEOPLE));
    }

    #[test]
    fn a_custom_notice_is_255() {
        let notice = notice(NoticeKind::Custom, PLACE, "admin", UnixMillis(7_000), json!({"userDefinedField": "x"}));
        assert_eq!(notice.r#type, 255);
        let json: Value = serde_json::from_slice(&notice.json).expect("JSON");
        assert_eq!((&json["userDefinedField"], &json["time"]), (&json!("x"), &json!(7)));
    }
}
