//! `spec/rest-groups.md` §3.4.

use linnet_proto::group::BanRequest;
use linnet_types::{Refusal, UserId, code};

use super::{BAD, accounts};
use crate::call::Call;
use crate::reply::Reply;

const MOST: usize = 20;
const DESCRIPTION_BYTES: usize = 1_000;

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = &call.body;
    let users = accounts(body.at("Members_Account"), MOST)?;
    let duration: u32 = body.at("Duration").number(BAD)?.need(BAD)?;
    if users.iter().any(|user| UserId::parse(user).is_err()) {
        return Err(Refusal::new(code::GROUP_NO_USER, "no such account"));
    }
    let request = BanRequest {
        app: call.app_id(),
        group_id: body.at("GroupId").group()?,
        users,
        duration_s: duration.into(),
        description: body.at("Description").string_within(DESCRIPTION_BYTES, BAD, BAD)?.or_default(),
        origin: call.origin(),
    };
    call.ask(request).await?;
    Ok(Reply::empty())
}
