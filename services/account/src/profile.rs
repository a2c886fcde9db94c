//! What a profile may hold (`spec/rest-accounts.md` §3).

use linnet_proto::account::{ProfileItem, profile_item::Value};
use linnet_store::accounts::ProfileValue;
use linnet_types::settings::words;
use linnet_types::{AppSettings, Refusal, code};

/// Longest value in bytes.
const VALUE_BYTES: usize = 500;
/// Prefix of the app's own tags.
const CUSTOM: &str = "Tag_Profile_Custom_";

pub(crate) const NICK: &str = "Tag_Profile_IM_Nick";
pub(crate) const IMAGE: &str = "Tag_Profile_IM_Image";
const ADMIN_FORBID: &str = "Tag_Profile_IM_AdminForbidType";

enum Rule {
    Text(usize),
    OneOf(&'static [&'static str]),
    Number,
}

const GENDER: &[&str] = &["Gender_Type_Unknown", "Gender_Type_Female", "Gender_Type_Male"];
const ALLOW: &[&str] = &["AllowType_Type_NeedConfirm", "AllowType_Type_AllowAny", "AllowType_Type_DenyAny"];
const FORBID: &[&str] = &["AdminForbid_Type_None", "AdminForbid_Type_SendOut"];

fn standard(tag: &str) -> Option<Rule> {
    Some(match tag {
        NICK | IMAGE | "Tag_Profile_IM_SelfSignature" => Rule::Text(VALUE_BYTES),
        "Tag_Profile_IM_Location" => Rule::Text(16),
        "Tag_Profile_IM_Gender" => Rule::OneOf(GENDER),
        "Tag_Profile_IM_AllowType" => Rule::OneOf(ALLOW),
        ADMIN_FORBID => Rule::OneOf(FORBID),
        "Tag_Profile_IM_BirthDay"
        | "Tag_Profile_IM_Language"
        | "Tag_Profile_IM_MsgSettings"
        | "Tag_Profile_IM_Level"
        | "Tag_Profile_IM_Role" => Rule::Number,
        _ => return None,
    })
}

/// Whether a tag exists for this app.
pub(crate) fn known(tag: &str, settings: &AppSettings) -> bool {
    let custom = |keyword: &str| words(&settings.profile_tags).any(|word| word == keyword);
    standard(tag).is_some() || tag.strip_prefix(CUSTOM).is_some_and(custom)
}

/// Checks one item that `admin` (or the user himself) wants to set.
///
/// # Errors
/// 40008, 40009, 40601, 40605, 40610.
pub(crate) fn check(
    item: &ProfileItem,
    admin: bool,
    settings: &AppSettings,
) -> Result<(String, ProfileValue), Refusal> {
    let tag = item.tag.as_str();
    let refuse = |code, why: &str| Err(Refusal::new(code, format!("{tag}: {why}")));
    if !known(tag, settings) {
        return refuse(code::PROFILE_TAG, "no such tag");
    }
    if tag == ADMIN_FORBID && !admin {
        return refuse(code::PROFILE_NO_WRITE, "only an administrator may set it");
    }
    let rule = standard(tag).unwrap_or(Rule::Text(VALUE_BYTES));
    match (rule, &item.value) {
        (Rule::Text(most), Some(Value::Text(text))) => {
            if text.len() > most {
                let code = if most == VALUE_BYTES { code::PROFILE_LENGTH } else { code::PROFILE_VALUE };
                return refuse(code, "value too long");
            }
            Ok((item.tag.clone(), ProfileValue::Text(text.clone())))
        }
        (Rule::OneOf(allowed), Some(Value::Text(text))) => {
            if !allowed.contains(&text.as_str()) {
                return refuse(code::PROFILE_VALUE, "not one of the documented values");
            }
            Ok((item.tag.clone(), ProfileValue::Text(text.clone())))
        }
        (Rule::Number, Some(Value::Number(number))) => Ok((item.tag.clone(), ProfileValue::Number(*number))),
        // Some libraries send numbers as decimal strings (`spec/rest-accounts.md` §8).
        (Rule::Number, Some(Value::Text(text))) => match text.parse() {
            Ok(number) => Ok((item.tag.clone(), ProfileValue::Number(number))),
            Err(_) => refuse(code::PROFILE_TYPE, "must be a number"),
        },
        _ => refuse(code::PROFILE_TYPE, "must be a string"),
    }
}

/// Values of tags that were never set but have a documented default.
pub(crate) fn default_of(tag: &str) -> Option<&'static str> {
    match tag {
        "Tag_Profile_IM_Gender" => Some("Gender_Type_Unknown"),
        "Tag_Profile_IM_AllowType" => Some("AllowType_Type_AllowAny"),
        ADMIN_FORBID => Some("AdminForbid_Type_None"),
        _ => None,
    }
}

/// The item as it travels.
pub(crate) fn item(tag: &str, value: &ProfileValue) -> ProfileItem {
    let value = match value {
        ProfileValue::Text(text) => Value::Text(text.clone()),
        ProfileValue::Number(number) => Value::Number(*number),
    };
    ProfileItem { tag: tag.to_owned(), value: Some(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(tag: &str, text: &str) -> ProfileItem {
        ProfileItem { tag: tag.into(), value: Some(Value::Text(text.into())) }
    }
    fn number(tag: &str, number: u32) -> ProfileItem {
        ProfileItem { tag: tag.into(), value: Some(Value::Number(number)) }
    }

    #[test]
    fn rules_of_tags() {
        let settings = AppSettings { profile_tags: "Hobby".into(), ..AppSettings::default() };
        let code_of = |item: &ProfileItem, admin| check(item, admin, &settings).map_or_else(|r| r.code, |_| 0);
        assert_eq!(code_of(&text(NICK, "Al"), false), 0);
        assert_eq!(code_of(&text(NICK, &"x".repeat(501)), false), code::PROFILE_LENGTH);
        assert_eq!(code_of(&text("Tag_Profile_IM_Location", &"x".repeat(17)), false), code::PROFILE_VALUE);
        assert_eq!(code_of(&number(NICK, 1), false), code::PROFILE_TYPE);
        assert_eq!(code_of(&text("Tag_Profile_IM_Gender", "Male"), false), code::PROFILE_VALUE);
        assert_eq!(code_of(&text("Tag_Profile_IM_Level", "7"), false), 0);
        assert_eq!(code_of(&text("Tag_Profile_IM_Level", "high"), false), code::PROFILE_TYPE);
        assert_eq!(code_of(&text(ADMIN_FORBID, "AdminForbid_Type_SendOut"), false), code::PROFILE_NO_WRITE);
        assert_eq!(code_of(&text(ADMIN_FORBID, "AdminForbid_Type_SendOut"), true), 0);
        assert_eq!(code_of(&text("Tag_Profile_Custom_Hobby", "chess"), false), 0);
        assert_eq!(code_of(&text("Tag_Profile_Custom_Other", "x"), false), code::PROFILE_TAG);
        assert_eq!(code_of(&text("Tag_Profile_IM_Nope", "x"), true), code::PROFILE_TAG);
        assert_eq!(code_of(&ProfileItem { tag: NICK.into(), value: None }, true), code::PROFILE_TYPE);
    }
}
