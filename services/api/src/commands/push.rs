//! `linnet_push`: devices, receive options and quiet time of a user, for backends that keep them (`docs/push.md`). The
//! vendor documents no REST command for these: its client libraries set them.

pub(crate) mod delete_device;
pub(crate) mod get_device;
pub(crate) mod get_quiet_time;
pub(crate) mod get_receive_opt;
pub(crate) mod set_badge;
pub(crate) mod set_device;
pub(crate) mod set_quiet_time;
pub(crate) mod set_receive_opt;

use linnet_types::{Refusal, code};

use crate::call::Call;
use crate::commands::accounts;

const BAD: u32 = code::OPENIM_BAD_JSON;

/// The user a call is about, who must be registered.
async fn user(call: &Call<'_>) -> Result<String, Refusal> {
    let user =
        call.body.any(&["UserID", "From_Account"]).user(code::ACCOUNT_TYPE, code::MSG_ACCOUNT_UNKNOWN)?.need(BAD)?;
    accounts::must_exist(call, &user, code::MSG_ACCOUNT_UNKNOWN).await?;
    Ok(user)
}
