//! Offline push: who can be reached where, what he wants to hear of, and how far groups are planned.
//!
//! ```text
//! push_user    (app, user)   plain  devices by token, the number on the icon, quiet time, receive options by conversation
//! push_token   (app, token)  plain  who has the token: a device has one user at a time
//! push_planned (app, conv)   plain  messages up to here are planned
//! ```
//!
//! Everything that planning asks of one user lies together, before the options, so one short scan answers it. Options are
//! exceptions: a row is there only when it differs from the default.

use bytes::Bytes;
use linnet_proto::store::{BadgePartRow, BadgeRow, DeviceRow, PlannedRow, QuietRow, ReceiveOptionRow, TokenRow};
use linnet_types::{ConvId, SdkAppId, UnixMillis, UserId};
use serde_json::{Value, json};

use crate::keys::{self, Key, Parts};
use crate::record;
use crate::rows::{Kind, Life, Range, Result, Row, Store, Table, Write};

const USER: Table = Table { name: "push_user", kind: Kind::Plain };
const TOKEN: Table = Table { name: "push_token", kind: Kind::Plain };
const PLANNED: Table = Table { name: "push_planned", kind: Kind::Plain };

const DEVICE: u8 = 1;
const BADGE: u8 = 2;
const BADGE_PART: u8 = 3;
const QUIET: u8 = 4;
const OPTION: u8 = 5;

/// Devices of one user; the one that was heard of longest ago makes room.
pub const DEVICES: usize = 16;

/// Where a user can be reached while he is away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The vendor's name for it.
    pub token: String,
    /// Device instance, as of its sign-in.
    pub instance: String,
    /// Platform, as sessions spell it.
    pub platform: String,
    /// Whose service delivers.
    pub vendor: String,
    /// Certificate or channel, by the app's own numbering.
    pub business_id: String,
    /// What the device speaks.
    pub language: String,
    /// When it last said so.
    pub updated: UnixMillis,
}

/// A time in which a user wants to be left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quiet {
    /// What holds meanwhile: a receive option.
    pub option: String,
    /// Second of the day, by the user's clock.
    pub start_s: u32,
    /// 0 = always.
    pub duration_s: u32,
    /// Every day.
    pub repeated: bool,
    /// What the user's clock is ahead of UTC.
    pub utc_offset_s: i32,
    /// When it was set.
    pub set: UnixMillis,
}

/// What one conversation added to the number on the icon.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    conv: String,
    count: u32,
    to_seq: u64,
}

/// What planning asks of one user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Away {
    /// His devices.
    pub devices: Vec<Device>,
    /// When he wants to be left alone.
    pub quiet: Option<Quiet>,
    base: u32,
    parts: Vec<Part>,
}

impl Away {
    /// The number on the icon.
    #[must_use]
    pub fn badge(&self) -> u32 {
        self.parts.iter().fold(self.base, |sum, part| sum.saturating_add(part.count))
    }
}

/// An exception from the default receive option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receive {
    /// Key of the conversation, `C2C:bob`.
    pub conv: String,
    /// The option.
    pub option: String,
}

/// Everything that is kept for offline push, but its queues.
#[derive(Clone)]
pub struct Push {
    store: Store,
}

impl Push {
    /// Over `store`.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Registers a device: it replaces what the same instance registered before, and takes the token from any other user,
    /// who is answered.
    ///
    /// # Errors
    /// [`crate::Error`]: repeat.
    pub async fn set_device(&self, app: SdkAppId, user: &UserId, device: &Device) -> Result<Option<UserId>> {
        let other = self.user_of(app, &device.token).await?.filter(|other| other != user);
        if let Some(other) = &other {
            self.drop_tokens(app, other, std::slice::from_ref(&device.token)).await?;
        }
        let mut old = self.away(app, user).await?.devices;
        old.retain(|known| known.token != device.token);
        old.sort_by_key(|known| std::cmp::Reverse(known.updated));
        let too_many = old.iter().filter(|known| known.instance != device.instance).skip(DEVICES - 1);
        let replaced = old.iter().filter(|known| known.instance == device.instance);
        let gone: Vec<String> = replaced.chain(too_many).map(|known| known.token.clone()).collect();
        // First whose it is: a device without this row could not be taken from its user later.
        let owner = TokenRow { user: user.as_str().to_owned() };
        let token = (token_partition(app, &device.token), record::row(Bytes::from_static(&[0]), &owner));
        record::put(&self.store, TOKEN, vec![token], Life::Forever).await?;
        let row = record::row(tagged(DEVICE, &device.token), &to_row(device));
        record::put(&self.store, USER, vec![(partition(app, user), row)], Life::Forever).await?;
        self.drop_tokens(app, user, &gone).await?;
        Ok(other)
    }

    /// Removes devices of `user` that `gone` names; answers how many there were.
    ///
    /// # Errors
    /// [`crate::Error`]: repeat.
    pub async fn remove_devices(
        &self,
        app: SdkAppId,
        user: &UserId,
        gone: impl Fn(&Device) -> bool + Send,
    ) -> Result<usize> {
        let devices = self.away(app, user).await?.devices;
        let tokens: Vec<String> = devices.iter().filter(|device| gone(device)).map(|d| d.token.clone()).collect();
        self.drop_tokens(app, user, &tokens).await?;
        Ok(tokens.len())
    }

    async fn user_of(&self, app: SdkAppId, token: &str) -> Result<Option<UserId>> {
        let value = self.store.get(TOKEN, &token_partition(app, token), &[0]).await?;
        let row = value.map(|value| record::decode::<TokenRow>(TOKEN, &value)).transpose()?;
        Ok(row.map(|row| UserId::trusted(row.user)))
    }

    async fn drop_tokens(&self, app: SdkAppId, user: &UserId, tokens: &[String]) -> Result<()> {
        let key = partition(app, user);
        let gone = |token: &String| (key.clone(), Write::Delete { clustering: tagged(DEVICE, token) });
        record::put(&self.store, USER, tokens.iter().map(gone).collect(), Life::Forever).await
    }

    /// What planning asks of one user, in one read.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn away(&self, app: SdkAppId, user: &UserId) -> Result<Away> {
        let range = Range {
            from: Some(Key::new().u8(DEVICE).done()),
            to: Some(Key::new().u8(OPTION).done()),
            ..Range::default()
        };
        let mut away = Away::default();
        for row in self.store.scan(USER, &partition(app, user), range).await? {
            read(&row, &mut away)?;
        }
        Ok(away)
    }

    /// The number on the icon, as the app shows it now.
    ///
    /// # Errors
    /// [`crate::Error`]: repeat.
    pub async fn set_badge(&self, app: SdkAppId, user: &UserId, count: u32) -> Result<()> {
        let key = partition(app, user);
        let parts = self.away(app, user).await?.parts;
        let mut writes = vec![(key.clone(), record::row(Key::new().u8(BADGE).done(), &BadgeRow { count }))];
        let gone = |part: Part| (key.clone(), Write::Delete { clustering: tagged(BADGE_PART, &part.conv) });
        writes.extend(parts.into_iter().map(gone));
        record::put(&self.store, USER, writes, Life::Forever).await
    }

    /// Counts `count` messages of `conv` up to `to_seq` into the number of a user whose rows are `away`; answers the
    /// number. What was counted before is not counted again. Only one planner counts a conversation at a time.
    ///
    /// # Errors
    /// [`crate::Error`]: repeat.
    pub async fn count_badge(
        &self,
        app: SdkAppId,
        user: &UserId,
        away: &Away,
        conv: &str,
        (count, to_seq): (u32, u64),
    ) -> Result<u32> {
        let part = away.parts.iter().find(|part| part.conv == conv);
        if count == 0 || part.is_some_and(|part| part.to_seq >= to_seq) {
            return Ok(away.badge());
        }
        let row = BadgePartRow { count: part.map_or(0, |part| part.count).saturating_add(count), to_seq };
        let write = record::row(tagged(BADGE_PART, conv), &row);
        record::put(&self.store, USER, vec![(partition(app, user), write)], Life::Forever).await?;
        Ok(away.badge().saturating_add(count))
    }

    /// Sets receive options; `None` goes back to the default.
    ///
    /// # Errors
    /// [`crate::Error`]: repeat.
    pub async fn set_options(&self, app: SdkAppId, user: &UserId, options: &[(String, Option<String>)]) -> Result<()> {
        let key = partition(app, user);
        let write = |(conv, option): &(String, Option<String>)| {
            let clustering = tagged(OPTION, conv);
            let write = match option {
                Some(option) => record::row(clustering, &ReceiveOptionRow { option: option.clone() }),
                None => Write::Delete { clustering },
            };
            (key.clone(), write)
        };
        record::put(&self.store, USER, options.iter().map(write).collect(), Life::Forever).await
    }

    /// The option of one conversation; `None` = the default.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn option(&self, app: SdkAppId, user: &UserId, conv: &str) -> Result<Option<String>> {
        let value = self.store.get(USER, &partition(app, user), &tagged(OPTION, conv)).await?;
        value.map(|value| Ok(record::decode::<ReceiveOptionRow>(USER, &value)?.option)).transpose()
    }

    /// Exceptions by conversation, at most `limit` after `after`.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn options(
        &self,
        app: SdkAppId,
        user: &UserId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Receive>> {
        let mut range = Range { limit, ..keys::prefix(Key::new().u8(OPTION).done()) };
        if let Some(conv) = after {
            range.from = Some(keys::after(&tagged(OPTION, conv)));
        }
        let rows = self.store.scan(USER, &partition(app, user), range).await?;
        let receive = |row: &Row| {
            let (_, conv) = split(&row.clustering)?;
            Ok(Receive { conv, option: record::decode::<ReceiveOptionRow>(USER, &row.value)?.option })
        };
        rows.iter().map(receive).collect()
    }

    /// Sets when a user wants to be left alone; `None` = never.
    ///
    /// # Errors
    /// [`crate::Error`]: repeat.
    pub async fn set_quiet(&self, app: SdkAppId, user: &UserId, quiet: Option<&Quiet>) -> Result<()> {
        let clustering = Key::new().u8(QUIET).done();
        let write = match quiet {
            Some(quiet) => record::row(clustering, &quiet_row(quiet)),
            None => Write::Delete { clustering },
        };
        record::put(&self.store, USER, vec![(partition(app, user), write)], Life::Forever).await
    }

    /// Removes everything kept of a user.
    ///
    /// # Errors
    /// [`crate::Error`]: repeat.
    pub async fn clear(&self, app: SdkAppId, user: &UserId) -> Result<()> {
        let key = partition(app, user);
        let rows = self.store.scan(USER, &key, Range::default()).await?;
        let writes = rows.into_iter().map(|row| (key.clone(), Write::Delete { clustering: row.clustering })).collect();
        record::put(&self.store, USER, writes, Life::Forever).await
    }

    /// Messages of a group up to here are planned.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn planned(&self, app: SdkAppId, conv: ConvId) -> Result<u64> {
        let value = self.store.get(PLANNED, &Key::new().u32(app.0).u64(conv.0).done(), &[0]).await?;
        value.map_or(Ok(0), |value| Ok(record::decode::<PlannedRow>(PLANNED, &value)?.to_seq))
    }

    /// Notes how far a group's messages are planned.
    ///
    /// # Errors
    /// [`crate::Error`]: repeat.
    pub async fn set_planned(&self, app: SdkAppId, conv: ConvId, to_seq: u64) -> Result<()> {
        let write = record::row(Bytes::from_static(&[0]), &PlannedRow { to_seq });
        let key = Key::new().u32(app.0).u64(conv.0).done();
        record::put(&self.store, PLANNED, vec![(key, write)], Life::Forever).await
    }
}

fn partition(app: SdkAppId, user: &UserId) -> Bytes {
    Key::new().u32(app.0).text(user.as_str()).done()
}

fn token_partition(app: SdkAppId, token: &str) -> Bytes {
    Key::new().u32(app.0).text(token).done()
}

fn tagged(tag: u8, name: &str) -> Bytes {
    Key::new().u8(tag).text(name).done()
}

/// The tag of a row and its name, if it has one.
fn split(clustering: &[u8]) -> Result<(u8, String)> {
    let mut parts = Parts::new(USER.name, clustering);
    let tag = parts.u8()?;
    let name = if matches!(tag, BADGE | QUIET) { String::new() } else { parts.text()? };
    Ok((tag, name))
}

fn read(row: &Row, away: &mut Away) -> Result<()> {
    let (tag, name) = split(&row.clustering)?;
    match tag {
        DEVICE => away.devices.push(device(name, record::decode(USER, &row.value)?)),
        BADGE => away.base = record::decode::<BadgeRow>(USER, &row.value)?.count,
        BADGE_PART => {
            let part: BadgePartRow = record::decode(USER, &row.value)?;
            away.parts.push(Part { conv: name, count: part.count, to_seq: part.to_seq });
        }
        QUIET => away.quiet = Some(quiet(record::decode(USER, &row.value)?)),
        other => return Err(record::corrupt(USER, format_args!("tag {other}"))),
    }
    Ok(())
}

fn device(token: String, row: DeviceRow) -> Device {
    Device {
        token,
        instance: row.instance,
        platform: row.platform,
        vendor: row.vendor,
        business_id: row.business_id,
        language: row.language,
        updated: UnixMillis(row.updated_ms),
    }
}

fn to_row(device: &Device) -> DeviceRow {
    DeviceRow {
        instance: device.instance.clone(),
        platform: device.platform.clone(),
        vendor: device.vendor.clone(),
        business_id: device.business_id.clone(),
        language: device.language.clone(),
        updated_ms: device.updated.0,
    }
}

fn quiet(row: QuietRow) -> Quiet {
    Quiet {
        option: row.option,
        start_s: row.start_s,
        duration_s: row.duration_s,
        repeated: row.repeated,
        utc_offset_s: row.utc_offset_s,
        set: UnixMillis(row.set_ms),
    }
}

fn quiet_row(quiet: &Quiet) -> QuietRow {
    QuietRow {
        option: quiet.option.clone(),
        start_s: quiet.start_s,
        duration_s: quiet.duration_s,
        repeated: quiet.repeated,
        utc_offset_s: quiet.utc_offset_s,
        set_ms: quiet.set.0,
    }
}

/// The tables of this aggregate.
#[must_use]
pub fn tables() -> Vec<Table> {
    vec![USER, TOKEN, PLANNED]
}

/// One row for people. Of a token only its beginning is shown.
///
/// # Errors
/// [`crate::Error::Corrupt`] when the row is not what this aggregate writes.
pub fn describe(table: Table, partition: &[u8], clustering: &[u8], value: &[u8]) -> Result<Value> {
    let mut parts = Parts::new(table.name, partition);
    let app = parts.u32()?;
    let short = |token: &str| token.chars().take(8).collect::<String>();
    if table == PLANNED {
        let row: PlannedRow = record::decode(table, value)?;
        return Ok(json!({ "app": app, "conv": parts.u64()?, "planned_to": row.to_seq }));
    }
    let name = parts.text()?;
    if table == TOKEN {
        let row: TokenRow = record::decode(table, value)?;
        return Ok(json!({ "app": app, "token": short(&name), "user": row.user }));
    }
    let (tag, what) = split(clustering)?;
    if tag == OPTION {
        let row: ReceiveOptionRow = record::decode(table, value)?;
        return Ok(json!({ "app": app, "user": name, "conv": what, "option": row.option }));
    }
    let mut away = Away::default();
    let row = Row { clustering: Bytes::copy_from_slice(clustering), value: Bytes::copy_from_slice(value) };
    read(&row, &mut away)?;
    Ok(match (away.devices.pop(), away.parts.pop(), away.quiet) {
        (Some(device), _, _) => json!({
            "app": app, "user": name, "token": short(&device.token), "instance": device.instance,
            "platform": device.platform, "vendor": device.vendor, "updated_ms": device.updated,
        }),
        (_, Some(part), _) => {
            json!({ "app": app, "user": name, "conv": part.conv, "badge": part.count, "to_seq": part.to_seq })
        }
        (_, _, Some(quiet)) => json!({
            "app": app, "user": name, "quiet": quiet.option, "start_s": quiet.start_s, "duration_s": quiet.duration_s,
            "repeated": quiet.repeated,
        }),
        _ => json!({ "app": app, "user": name, "badge": away.base }),
    })
}

#[cfg(test)]
mod tests;
