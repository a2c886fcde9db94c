//! `spec/rest-accounts.md` §3.3.

use linnet_proto::account::profile_item::Value;
use linnet_proto::account::{ProfileItem, SetProfileRequest};
use linnet_types::{Refusal, code};

use crate::call::Call;
use crate::json::Object;
use crate::reply::Reply;

/// More items than there are tags.
const MOST: usize = 100;

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let bad = code::PROFILE_BAD_PARAM;
    let user = call.body.at("From_Account").user(code::ACCOUNT_TYPE, code::PROFILE_ACCOUNT_UNKNOWN)?.need(bad)?;
    let items = call.body.at("ProfileItem").objects(bad)?.need_within(MOST, bad, bad)?;
    let items = items.iter().map(item).collect::<Result<_, _>>()?;
    call.ask(SetProfileRequest { app: call.app_id(), user, items, origin: call.origin() }).await?;
    Ok(Reply::empty())
}

fn item(item: &Object<'_>) -> Result<ProfileItem, Refusal> {
    let tag = item.at("Tag").string(code::PROFILE_BAD_PARAM)?.need(code::PROFILE_BAD_PARAM)?;
    let value = item.at("Value");
    if !value.is_there() {
        return Err(Refusal::new(code::PROFILE_BAD_PARAM, format!("{tag} has no Value")));
    }
    let value = match value.string(code::PROFILE_TYPE) {
        Ok(text) => Value::Text(text.or_default()),
        Err(_) => Value::Number(value.number(code::PROFILE_TYPE)?.need(code::PROFILE_TYPE)?),
    };
    Ok(ProfileItem { tag, value: Some(value) })
}
