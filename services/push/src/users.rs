//! What is kept of one user: devices, options, quiet time, the number on the icon.

use linnet_proto::push as pb;
use linnet_runtime::Clock;
use linnet_store::push::{Device, Push, Quiet};
use linnet_types::{ConversationKey, Refusal, SdkAppId, UserId, code};
use tokio::sync::Mutex;

use crate::options::{DAY_S, Receive};

const TOKEN_BYTES: usize = 256;
const NAME_BYTES: usize = 128;
const OPTIONS: usize = 100;
const PAGE: u32 = 100;
const PAGE_MOST: u32 = 1_000;
const BADGE: u32 = 9_999;
/// Clocks differ from UTC by at most this.
const OFFSET_S: u32 = 18 * 3_600;
/// Changes of one user's devices are made one at a time, by user hash.
const STRIPES: usize = 64;

type Reply<T> = Result<T, Refusal>;

pub(crate) struct Users {
    store: Push,
    clock: Clock,
    stripes: Vec<Mutex<()>>,
}

fn bad(why: impl Into<String>) -> Refusal {
    Refusal::new(code::ACCOUNT_BAD_PARAM, why)
}

/// A fault of the store as callers see it.
pub(crate) fn fault(error: &linnet_store::Error) -> Refusal {
    tracing::error!(%error, "push");
    Refusal::retry(code::BUSY, "what is kept for pushes cannot be reached; retry", 500)
}

impl Users {
    pub(crate) fn new(store: Push, clock: Clock) -> Self {
        Self { store, clock, stripes: (0..STRIPES).map(|_| Mutex::new(())).collect() }
    }

    fn stripe(&self, name: &str) -> &Mutex<()> {
        let hash = name.bytes().fold(0usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        &self.stripes[hash % STRIPES]
    }

    pub(crate) async fn set_device(&self, request: pb::SetDeviceRequest) -> Reply<pb::SetDeviceReply> {
        let (app, user) = who(request.app, &request.user)?;
        let device = checked(request.device.unwrap_or_default())?;
        let device = Device { updated: self.clock.now(), ..device };
        // By token: two users who sign in on one device in turn must not both keep it.
        let _one = self.stripe(&device.token).lock().await;
        self.store.set_device(app, &user, &device).await.map_err(|error| fault(&error))?;
        if let Some(badge) = request.badge {
            self.store.set_badge(app, &user, badge.min(BADGE)).await.map_err(|error| fault(&error))?;
        }
        Ok(pb::SetDeviceReply {})
    }

    pub(crate) async fn remove_devices(&self, request: pb::RemoveDevicesRequest) -> Reply<pb::RemoveDevicesReply> {
        let (app, user) = who(request.app, &request.user)?;
        let gone = |device: &Device| {
            request.all || request.instances.contains(&device.instance) || request.tokens.contains(&device.token)
        };
        let removed = self.store.remove_devices(app, &user, gone).await.map_err(|error| fault(&error))?;
        Ok(pb::RemoveDevicesReply { removed: u32::try_from(removed).unwrap_or(u32::MAX) })
    }

    pub(crate) async fn devices(&self, request: pb::DevicesRequest) -> Reply<pb::DevicesReply> {
        let (app, user) = who(request.app, &request.user)?;
        let away = self.store.away(app, &user).await.map_err(|error| fault(&error))?;
        let badge = away.badge();
        let shown = |device: Device| pb::Device {
            instance: device.instance,
            platform: device.platform,
            vendor: device.vendor,
            token: device.token,
            business_id: device.business_id,
            language: device.language,
            updated_ms: device.updated.0,
        };
        Ok(pb::DevicesReply { devices: away.devices.into_iter().map(shown).collect(), badge })
    }

    pub(crate) async fn set_badge(&self, request: pb::SetBadgeRequest) -> Reply<pb::SetBadgeReply> {
        let (app, user) = who(request.app, &request.user)?;
        self.store.set_badge(app, &user, request.badge.min(BADGE)).await.map_err(|error| fault(&error))?;
        Ok(pb::SetBadgeReply {})
    }

    pub(crate) async fn set_options(&self, request: pb::SetOptionsRequest) -> Reply<pb::SetOptionsReply> {
        let (app, user) = who(request.app, &request.user)?;
        if request.options.is_empty() || request.options.len() > OPTIONS {
            return Err(bad("1 to 100 options"));
        }
        let mut options = Vec::with_capacity(request.options.len());
        for option in request.options {
            let wanted = receive(&option.option)?;
            let ConversationKey::C2c(_) = option.conv.parse()? else {
                return Err(bad("the option of a group is kept with the member"));
            };
            options.push((option.conv, (wanted != Receive::default()).then_some(option.option)));
        }
        self.store.set_options(app, &user, &options).await.map_err(|error| fault(&error))?;
        Ok(pb::SetOptionsReply {})
    }

    pub(crate) async fn options(&self, request: pb::OptionsRequest) -> Reply<pb::OptionsReply> {
        let (app, user) = who(request.app, &request.user)?;
        if request.convs.len() > OPTIONS {
            return Err(bad("at most 100 conversations"));
        }
        if !request.convs.is_empty() {
            let mut options = Vec::with_capacity(request.convs.len());
            for conv in request.convs {
                let option = self.store.option(app, &user, &conv).await.map_err(|error| fault(&error))?;
                options.push(pb::Option { conv, option: option.unwrap_or_else(|| "AcceptAndNotify".to_owned()) });
            }
            return Ok(pb::OptionsReply { options, more: false });
        }
        let limit = if request.limit == 0 { PAGE } else { request.limit.min(PAGE_MOST) } as usize;
        let after = Some(request.after.as_str()).filter(|after| !after.is_empty());
        let mut found = self.store.options(app, &user, after, limit + 1).await.map_err(|error| fault(&error))?;
        let more = found.len() > limit;
        found.truncate(limit);
        let options = found.into_iter().map(|one| pb::Option { conv: one.conv, option: one.option }).collect();
        Ok(pb::OptionsReply { options, more })
    }

    pub(crate) async fn set_quiet(&self, request: pb::SetQuietRequest) -> Reply<pb::SetQuietReply> {
        let (app, user) = who(request.app, &request.user)?;
        let quiet = self.quiet_of(request.quiet.unwrap_or_default())?;
        self.store.set_quiet(app, &user, quiet.as_ref()).await.map_err(|error| fault(&error))?;
        Ok(pb::SetQuietReply {})
    }

    fn quiet_of(&self, quiet: pb::QuietTime) -> Reply<Option<Quiet>> {
        if quiet.option.is_empty() || receive(&quiet.option)? == Receive::default() {
            return Ok(None);
        }
        let day = u32::try_from(DAY_S).expect("a day's seconds are few");
        if quiet.start_s >= day || quiet.duration_s > day || quiet.utc_offset_s.unsigned_abs() > OFFSET_S {
            return Err(bad("start_s below 86400, duration_s at most 86400, utc_offset_s within 18 hours"));
        }
        Ok(Some(Quiet {
            option: quiet.option,
            start_s: quiet.start_s,
            duration_s: quiet.duration_s,
            repeated: quiet.repeated,
            utc_offset_s: quiet.utc_offset_s,
            set: self.clock.now(),
        }))
    }

    pub(crate) async fn quiet(&self, request: pb::QuietRequest) -> Reply<pb::QuietReply> {
        let (app, user) = who(request.app, &request.user)?;
        let away = self.store.away(app, &user).await.map_err(|error| fault(&error))?;
        let quiet = away.quiet.map(|quiet| pb::QuietTime {
            option: quiet.option,
            start_s: quiet.start_s,
            duration_s: quiet.duration_s,
            repeated: quiet.repeated,
            utc_offset_s: quiet.utc_offset_s,
            set_ms: quiet.set.0,
        });
        Ok(pb::QuietReply { quiet })
    }

    pub(crate) async fn forget(&self, request: pb::ForgetRequest) -> Reply<pb::ForgetReply> {
        let (app, user) = who(request.app, &request.user)?;
        self.store.clear(app, &user).await.map_err(|error| fault(&error))?;
        Ok(pb::ForgetReply {})
    }
}

fn who(app: u32, user: &str) -> Reply<(SdkAppId, UserId)> {
    Ok((SdkAppId(app), UserId::parse(user)?))
}

fn receive(text: &str) -> Reply<Receive> {
    Receive::parse(text).ok_or_else(|| bad(format!("{text}: no such receive option")))
}

fn checked(device: pb::Device) -> Reply<Device> {
    if device.token.is_empty() {
        return Err(Refusal::new(code::PUSH_TOKEN_EMPTY, "a device has a token"));
    }
    if device.token.len() > TOKEN_BYTES {
        return Err(Refusal::new(code::PUSH_TOKEN_LONG, "a token has at most 256 bytes"));
    }
    let name = |text: &str| text.len() <= NAME_BYTES && !text.chars().any(char::is_control);
    let named = [&device.instance, &device.platform, &device.vendor].iter().all(|text| !text.is_empty());
    let all = [&device.instance, &device.platform, &device.vendor, &device.business_id, &device.language];
    if !named || !all.iter().all(|text| name(text)) || device.token.chars().any(char::is_control) {
        return Err(bad("a device has an instance, a platform and a vendor, of at most 128 bytes each"));
    }
    Ok(Device {
        token: device.token,
        instance: device.instance,
        platform: device.platform,
        vendor: device.vendor,
        business_id: device.business_id,
        language: device.language,
        updated: linnet_types::UnixMillis(device.updated_ms),
    })
}
