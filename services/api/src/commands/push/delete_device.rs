//! Removes devices by instance or token; all of the user's when none is named.

use linnet_proto::push::RemoveDevicesRequest;
use linnet_types::Refusal;
use serde::Serialize;

use super::BAD;
use crate::call::Call;
use crate::reply::Reply;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fields {
    removed: u32,
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = &call.body;
    let user = super::user(call).await?;
    let instances = body.at("Instances").strings(BAD, BAD)?.or_default();
    let tokens = body.at("Tokens").strings(BAD, BAD)?.or_default();
    let all = instances.is_empty() && tokens.is_empty();
    let removed = call.ask(RemoveDevicesRequest { app: call.app_id(), user, instances, tokens, all }).await?.removed;
    Reply::of(&Fields { removed })
}
