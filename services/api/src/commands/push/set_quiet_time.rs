//! When a user wants to be left alone, in all conversations.

use linnet_proto::push::{QuietTime, SetQuietRequest};
use linnet_types::Refusal;

use super::BAD;
use crate::call::Call;
use crate::reply::Reply;

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = &call.body;
    let user = super::user(call).await?;
    let offset = body.at("UtcOffset").raw().value.map_or("0", |raw| raw.get());
    let quiet = QuietTime {
        option: body.at("MsgFlag").string(BAD)?.or_default(),
        start_s: body.at("Start").number(BAD)?.or(0),
        duration_s: body.at("Duration").number(BAD)?.or(0),
        repeated: body.at("Repeated").switch(BAD)?,
        utc_offset_s: offset.parse().map_err(|_| Refusal::new(BAD, "UtcOffset must be a number of seconds"))?,
        set_ms: 0,
    };
    call.ask(SetQuietRequest { app: call.app_id(), user, quiet: Some(quiet) }).await?;
    Ok(Reply::empty())
}
