//! The devices of a user, and the number on his icons.

use linnet_proto::push::DevicesRequest;
use linnet_types::Refusal;
use serde::Serialize;

use crate::call::Call;
use crate::reply::Reply;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fields {
    badge: u32,
    devices: Vec<Item>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    instance: String,
    platform: String,
    vendor: String,
    token: String,
    business_id: String,
    language: String,
    update_time: u64,
}

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let user = super::user(call).await?;
    let reply = call.ask(DevicesRequest { app: call.app_id(), user }).await?;
    let item = |device: linnet_proto::push::Device| Item {
        instance: device.instance,
        platform: device.platform,
        vendor: device.vendor,
        token: device.token,
        business_id: device.business_id,
        language: device.language,
        update_time: device.updated_ms / 1_000,
    };
    Reply::of(&Fields { badge: reply.badge, devices: reply.devices.into_iter().map(item).collect() })
}
