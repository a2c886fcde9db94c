//! When a user wants to be left alone.

use linnet_proto::push::QuietRequest;
use linnet_types::Refusal;
use serde::Serialize;

use crate::call::Call;
use crate::reply::Reply;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fields {
    msg_flag: String,
    start: u32,
    duration: u32,
    repeated: u8,
    utc_offset: i32,
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let user = super::user(call).await?;
    let quiet = call.ask(QuietRequest { app: call.app_id(), user }).await?.quiet;
    let quiet = quiet.unwrap_or_else(|| linnet_proto::push::QuietTime {
        option: "AcceptAndNotify".to_owned(),
        ..linnet_proto::push::QuietTime::default()
    });
    Reply::of(&Fields {
        msg_flag: quiet.option,
        start: quiet.start_s,
        duration: quiet.duration_s,
        repeated: quiet.repeated.into(),
        utc_offset: quiet.utc_offset_s,
    })
}
