//! `spec/rest-messages.md` §4.2.

use linnet_proto::messages::DeleteConversationRequest;
use linnet_types::{ConversationKey, GroupId, Refusal, UserId, code};

use super::{C2C, GROUP};
use crate::call::Call;
use crate::commands::accounts;
use crate::reply::Reply;

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let (body, bad) = (&call.body, code::CONTACT_BAD_PARAM);
    let user = body.at("From_Account").user(code::ACCOUNT_TYPE, code::CONTACT_ACCOUNT_UNKNOWN)?.need(bad)?;
    let key = match body.any(&["Type", "type"]).number(bad)?.need(bad)? {
        C2C => {
            let peer = body.at("To_Account").user(code::ACCOUNT_TYPE, code::CONTACT_ACCOUNT_UNKNOWN)?.need(bad)?;
            ConversationKey::C2c(UserId::trusted(peer))
        }
        GROUP => {
            let named = body.any_case("ToGroupid");
            // A published library has one field for both kinds.
            let named = if named.is_there() { named } else { body.any(&["ToGroupid", "To_Account"]) };
            let group = named.string(bad)?.need(bad)?;
            let possible = GroupId::parse(&group).map_err(|refusal| Refusal { code: bad, ..refusal })?;
            ConversationKey::Group(possible)
        }
        _ => return Err(Refusal::new(bad, "Type must be 1 (user) or 2 (group)")),
    };
    accounts::must_exist(call, &user, code::CONTACT_ACCOUNT_UNKNOWN).await?;
    let request = DeleteConversationRequest {
        app: call.app_id(),
        user,
        key: key.to_string(),
        clear_history: body.at("ClearRamble").switch(bad)?,
        origin: call.origin(),
    };
    call.ask(request).await?;
    Ok(Reply::empty())
}
