//! The number on a user's icons, as his app shows it now: pushes count on from it.

use linnet_proto::push::SetBadgeRequest;
use linnet_types::Refusal;

use super::BAD;
use crate::call::Call;
use crate::reply::Reply;

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let user = super::user(call).await?;
    let badge = call.body.at("Badge").number(BAD)?.need(BAD)?;
    call.ask(SetBadgeRequest { app: call.app_id(), user, badge }).await?;
    Ok(Reply::empty())
}
