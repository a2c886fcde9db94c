//! `spec/rest-groups.md` §3.3. Who is no member is muted too: a mute outlives membership.

use linnet_proto::group::MuteRequest;
use linnet_types::{Refusal, UserId, code};

use super::{BAD, accounts, no_topic};
use crate::call::Call;
use crate::reply::Reply;

const MOST: usize = 500;

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = &call.body;
    let group_id = body.at("GroupId").group()?;
    let users = accounts(body.at("Members_Account"), MOST)?;
    let mute_s: u32 = body.any(&["MuteTime", "ShutUpTime"]).number(BAD)?.need(BAD)?;
    no_topic(body)?;
    if users.iter().any(|user| UserId::parse(user).is_err()) {
        return Err(Refusal::new(code::GROUP_NO_USER, "no such account"));
    }
    let request = MuteRequest { app: call.app_id(), group_id, users, mute_s: mute_s.into(), origin: call.origin() };
    call.ask(request).await?;
    Ok(Reply::empty())
}
