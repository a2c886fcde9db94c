//! `im_open_login_svc`: accounts and their sign-in state (`spec/rest-accounts.md` §2).

pub(crate) mod account_check;
pub(crate) mod account_delete;
pub(crate) mod account_import;
pub(crate) mod kick;
pub(crate) mod multiaccount_import;

use linnet_types::{Refusal, code};

use crate::json::{Field, Object};

/// Longest nick and avatar address in bytes.
const PROFILE_BYTES: usize = 500;

fn nick_or_face(field: Field<'_>) -> Result<Option<String>, Refusal> {
    let text = field.string_within(PROFILE_BYTES, code::ACCOUNT_BAD_PARAM, code::PROFILE_LENGTH)?;
    Ok(text.value)
}

/// The `UserID`s of an array of objects, whatever they look like.
fn user_ids(items: Vec<Object<'_>>) -> Result<Vec<String>, Refusal> {
    let id = |item: Object<'_>| item.at("UserID").string(code::ACCOUNT_TYPE)?.need(code::ACCOUNT_BAD_PARAM);
    items.into_iter().map(id).collect()
}
