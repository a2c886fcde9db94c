//! `spec/rest-groups.md` §3.1.

use linnet_proto::group::DestroyRequest;
use linnet_types::Refusal;

use crate::call::Call;
use crate::reply::Reply;

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let group_id = call.body.at("GroupId").group()?;
    call.ask(DestroyRequest { app: call.app_id(), group_id, origin: call.origin() }).await?;
    Ok(Reply::empty())
}
