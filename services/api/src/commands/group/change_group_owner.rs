//! `spec/rest-groups.md` §3.1.

use linnet_proto::group::ChangeOwnerRequest;
use linnet_types::Refusal;

use super::{BAD, account};
use crate::call::Call;
use crate::reply::Reply;

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = &call.body;
    let missing = || Refusal::new(BAD, "NewOwner_Account is missing");
    let request = ChangeOwnerRequest {
        app: call.app_id(),
        group_id: body.at("GroupId").group()?,
        new_owner: account(body.at("NewOwner_Account"))?.ok_or_else(missing)?,
        origin: call.origin_as(account(body.at("From_Account"))?),
    };
    call.ask(request).await?;
    Ok(Reply::empty())
}
