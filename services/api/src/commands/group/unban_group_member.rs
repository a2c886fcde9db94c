//! `spec/rest-groups.md` §3.4.

use linnet_proto::group::UnbanRequest;
use linnet_types::Refusal;

use super::{accounts, must_exist};
use crate::call::Call;
use crate::commands::accounts::possible;
use crate::reply::Reply;

const MOST: usize = 20;

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let group_id = call.body.at("GroupId").group()?;
    let asked = accounts(call.body.at("Members_Account"), MOST)?;
    let users = possible(asked.iter().map(String::as_str));
    if users.is_empty() {
        must_exist(call, &group_id).await?;
        return Ok(Reply::empty());
    }
    call.ask(UnbanRequest { app: call.app_id(), group_id, users, origin: call.origin() }).await?;
    Ok(Reply::empty())
}
