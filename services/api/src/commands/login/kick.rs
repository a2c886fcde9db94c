//! `spec/rest-accounts.md` §2.5. The account service ends the sessions, and answers when the second of the kick is over,
//! so that a UserSig made after this reply is never one of before.

use linnet_proto::account::KickRequest;
use linnet_types::{Refusal, UserId, code};

use crate::call::Call;
use crate::reply::Reply;

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let user = call.body.any(&["UserID", "Identifier"]).user(code::ACCOUNT_TYPE, code::ACCOUNT_BAD_PARAM)?;
    let user = user.need(code::ACCOUNT_BAD_PARAM)?;
    call.ask(KickRequest { app: call.app_id(), user: user.clone() }).await?;
    call.world.admins.forget(call.tenant(), &UserId::trusted(user)).await;
    Ok(Reply::empty())
}
