//! `spec/rest-groups.md` §3.5.

use linnet_proto::group::NotifyRequest;
use linnet_types::{Refusal, code};

use super::{BAD, no_topic};
use crate::call::Call;
use crate::commands::accounts::possible;
use crate::reply::Reply;

const MOST: usize = 500;

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = &call.body;
    let group_id = body.at("GroupId").group()?;
    no_topic(body)?;
    let content = body.at("Content").string(BAD)?.need(BAD)?;
    let most = usize::try_from(call.app.settings.message_bytes).unwrap_or(usize::MAX);
    if content.len() > most {
        return Err(Refusal::new(code::MSG_TOO_LONG, format!("Content is over {most} bytes")));
    }
    let to = body.at("ToMembers_Account").strings(BAD, code::ACCOUNT_TYPE)?;
    let to = to.within(MOST, code::GROUP_TOO_MANY)?.or_default();
    let possible = possible(to.iter().map(String::as_str));
    if possible.is_empty() && !to.is_empty() {
        return Err(Refusal::new(code::GROUP_NO_USER, "no such account"));
    }
    let request = NotifyRequest { app: call.app_id(), group_id, content, to: possible, origin: call.origin() };
    call.ask(request).await?;
    Ok(Reply::empty())
}
