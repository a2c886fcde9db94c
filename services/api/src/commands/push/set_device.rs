//! Registers a device, or its new token.

use linnet_proto::push::{Device, SetDeviceRequest};
use linnet_types::{Refusal, code};

use super::BAD;
use crate::call::Call;
use crate::reply::Reply;

pub(crate) async fn handle(call: &Call<'_>) -> Result<Reply, Refusal> {
    let body = &call.body;
    let user = super::user(call).await?;
    let device = Device {
        instance: body.at("Instance").string(BAD)?.need(BAD)?,
        platform: body.at("Platform").string(BAD)?.need(BAD)?,
        vendor: body.at("Vendor").string(BAD)?.need(BAD)?,
        token: body.at("Token").string(BAD)?.need(code::PUSH_TOKEN_EMPTY)?,
        business_id: body.at("BusinessId").string(BAD)?.or_default(),
        language: body.at("Language").string(BAD)?.or_default(),
        updated_ms: 0,
    };
    let badge = body.at("Badge").number(BAD)?.value;
    call.ask(SetDeviceRequest { app: call.app_id(), user, device: Some(device), badge }).await?;
    Ok(Reply::empty())
}
