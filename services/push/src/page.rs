//! From some receivers to notifications: who is away, wants to hear of it, and has a device.

use std::collections::{BTreeMap, HashMap};

use futures::FutureExt as _;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use linnet_admission::apps::App;
use linnet_outbound::name_of;
use linnet_proto::push::{Device, Note, Notification, Receiver};
use linnet_proto::session::UserStatus;
use linnet_store::push::{self, Away, Push};
use linnet_types::{MsgKey, UnixMillis, UserId};

use crate::calls::Calls;
use crate::error::Result;
use crate::info::{self, Info};
use crate::metrics::{Meters, Skip};
use crate::options::{Receive, in_force};

/// Users whose rows are read at once.
const READS: usize = 32;
const ONLINE: &str = "Online";

/// Where messages were said.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Pair,
    Group { id: String, name: String },
}

/// Somebody who may be told.
#[derive(Clone, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) user: String,
    pub(crate) option: Receive,
    pub(crate) mentioned: bool,
    /// Messages he is told of.
    pub(crate) count: u32,
    /// Of these, those that raise his number.
    pub(crate) raises: u32,
    pub(crate) note: &'a Note,
}

/// What notifications are made with.
pub(crate) struct Pages {
    pub(crate) store: Push,
    pub(crate) calls: Calls,
    pub(crate) meters: Meters,
}

/// Messages and where they were said.
pub(crate) struct Said<'a> {
    pub(crate) app: &'a App,
    pub(crate) conv: u64,
    pub(crate) place: Place,
    pub(crate) from_seq: u64,
    pub(crate) to_seq: u64,
    pub(crate) now: UnixMillis,
}

impl Said<'_> {
    fn key(&self, note: &Note) -> String {
        match &self.place {
            Place::Pair => format!("C2C:{}", note.from),
            Place::Group { id, .. } => format!("GROUP:{id}"),
        }
    }
}

impl Pages {
    /// The notifications for those of `asks` that are to be told, receivers in groups of at most what the app wants.
    ///
    /// # Errors
    /// When presence or the store cannot be asked.
    pub(crate) async fn notifications(&self, said: &Said<'_>, asks: Vec<Ask<'_>>) -> Result<Vec<Notification>> {
        let told = self.who(said, asks).await?;
        let mut contents: BTreeMap<(u64, u32, bool), (Ask<'_>, Vec<Receiver>)> = BTreeMap::new();
        for (ask, receiver) in told {
            let key = (ask.note.seq, ask.count, ask.mentioned);
            contents.entry(key).or_insert_with(|| (ask, Vec::new())).1.push(receiver);
        }
        let most = said.app.settings.push_batch.max(1) as usize;
        let mut notifications = Vec::new();
        for (ask, receivers) in contents.into_values() {
            let content = self.content(said, &ask).await;
            for receivers in receivers.chunks(most) {
                self.meters.planned(kind(&ask), receivers.len());
                notifications.push(with_receivers(&content, said, receivers.to_vec()));
            }
        }
        Ok(notifications)
    }

    async fn who<'a>(&self, said: &Said<'_>, asks: Vec<Ask<'a>>) -> Result<Vec<(Ask<'a>, Receiver)>> {
        let asked = asks.len();
        let mut asks: Vec<Ask<'a>> = asks.into_iter().filter(|ask| ask.option.pushes(ask.mentioned)).collect();
        self.meters.skipped(Skip::Muted, asked - asks.len());
        let users: Vec<String> = asks.iter().map(|ask| ask.user.clone()).collect();
        let states = if users.is_empty() { HashMap::new() } else { self.calls.states(said.app.id, &users).await? };
        if !said.app.settings.push_when_online {
            let before = asks.len();
            asks.retain(|ask| !states.get(&ask.user).is_some_and(is_online));
            self.meters.skipped(Skip::Online, before - asks.len());
        }
        // Boxed: the compiler does not see that futures of a closure over borrowed asks may be sent.
        let reads: Vec<_> = asks.into_iter().map(|ask| self.told(said, ask, &states).boxed()).collect();
        let told: Vec<Option<(Ask<'a>, Receiver)>> = stream::iter(reads).buffered(READS).try_collect().await?;
        Ok(told.into_iter().flatten().collect())
    }

    async fn told<'a>(
        &self,
        said: &Said<'_>,
        ask: Ask<'a>,
        states: &HashMap<String, UserStatus>,
    ) -> Result<Option<(Ask<'a>, Receiver)>> {
        let receiver = self.receiver(said, &ask, states.get(&ask.user)).await?;
        Ok(receiver.map(|receiver| (ask, receiver)))
    }

    async fn receiver(&self, said: &Said<'_>, ask: &Ask<'_>, state: Option<&UserStatus>) -> Result<Option<Receiver>> {
        let (app, user) = (said.app.id, UserId::trusted(ask.user.as_str()));
        let away = self.store.away(app, &user).await?;
        let devices: Vec<Device> = away.devices.iter().filter(|device| is_away(device, state)).map(wire).collect();
        if devices.is_empty() {
            self.meters.skipped(Skip::NoDevice, 1);
            return Ok(None);
        }
        if !in_force(away.quiet.as_ref(), said.now).pushes(ask.mentioned) {
            self.meters.skipped(Skip::Quiet, 1);
            return Ok(None);
        }
        let key = said.key(ask.note);
        if matches!(said.place, Place::Pair) && !ask.note.past_option {
            let option = self.store.option(app, &user, &key).await?;
            if !Receive::stored(option.as_deref()).pushes(ask.mentioned) {
                self.meters.skipped(Skip::Muted, 1);
                return Ok(None);
            }
        }
        let badge = self.badge(said, ask, &user, &away, &key).await?;
        Ok(Some(Receiver { user: ask.user.clone(), badge, devices }))
    }

    async fn badge(
        &self,
        said: &Said<'_>,
        ask: &Ask<'_>,
        user: &UserId,
        away: &Away,
        key: &str,
    ) -> Result<Option<u32>> {
        if info::read(&ask.note.offline_push).no_badge {
            return Ok(None);
        }
        let counted = self.store.count_badge(said.app.id, user, away, key, (ask.raises, said.to_seq)).await?;
        Ok(Some(counted))
    }

    /// Everything of a notification but its receivers and its name.
    async fn content(&self, said: &Said<'_>, ask: &Ask<'_>) -> Notification {
        let note = ask.note;
        let nick = self.calls.nick(said.app.id, &note.from).await;
        let info = info::read(&note.offline_push);
        let (conv_type, group_id, group_name) = match &said.place {
            Place::Pair => ("C2C", "", ""),
            Place::Group { id, name } => ("GROUP", id.as_str(), name.as_str()),
        };
        let key = MsgKey { msg_seq: note.msg_seq, random: note.random, time_s: UnixMillis(note.time_ms).secs() };
        let ttl_ms = u64::from(said.app.settings.push_ttl_s) * 1_000;
        Notification {
            conv_type: conv_type.to_owned(),
            from: note.from.clone(),
            group_id: group_id.to_owned(),
            group_name: group_name.to_owned(),
            kind: kind(ask).to_owned(),
            count: ask.count,
            from_seq: said.from_seq,
            seq: note.seq,
            time_ms: note.time_ms,
            random: note.random,
            msg_key: if matches!(said.place, Place::Pair) { key.to_string() } else { String::new() },
            title: title(ask, &info, &nick, group_name),
            text: text(ask, said.app),
            nick,
            ext: info.ext,
            offline_push: note.offline_push.clone(),
            expire_ms: note.time_ms + ttl_ms,
            ..Notification::default()
        }
    }
}

fn kind(ask: &Ask<'_>) -> &'static str {
    match ask {
        Ask { mentioned: true, .. } => "mention",
        Ask { count: 1, .. } => "message",
        Ask { .. } => "digest",
    }
}

fn title(ask: &Ask<'_>, info: &Info, nick: &str, group: &str) -> String {
    match (ask.count, info.title.as_str()) {
        (0 | 1, "") if group.is_empty() => nick.to_owned(),
        (0 | 1, "") if nick.is_empty() => group.to_owned(),
        (0 | 1, "") => format!("{nick} ({group})"),
        (0 | 1, title) => title.to_owned(),
        (_, _) => group.to_owned(),
    }
}

fn text(ask: &Ask<'_>, app: &App) -> String {
    if ask.count <= 1 {
        return ask.note.text.clone();
    }
    app.settings.push_digest_text.replace("{count}", &ask.count.to_string())
}

/// The notification for these receivers; its name is made of all that tells it from others.
fn with_receivers(content: &Notification, said: &Said<'_>, receivers: Vec<Receiver>) -> Notification {
    let Notification { kind, seq, from_seq, count, .. } = content;
    let mut name = format!("{}/{}/{kind}/{from_seq}/{seq}/{count}", said.app.id, said.conv);
    for receiver in &receivers {
        name.push('\0');
        name.push_str(&receiver.user);
    }
    Notification { id: name_of(&name), receivers, ..content.clone() }
}

fn is_online(state: &UserStatus) -> bool {
    state.status == ONLINE || state.platforms.iter().any(|platform| platform.status == ONLINE)
}

/// Whether a device is away: no session of its platform is online.
fn is_away(device: &push::Device, state: Option<&UserStatus>) -> bool {
    let here = |state: &UserStatus| {
        state.platforms.iter().any(|platform| platform.status == ONLINE && platform.platform == device.platform)
    };
    !state.is_some_and(here)
}

fn wire(device: &push::Device) -> Device {
    Device {
        instance: device.instance.clone(),
        platform: device.platform.clone(),
        vendor: device.vendor.clone(),
        token: device.token.clone(),
        business_id: device.business_id.clone(),
        language: device.language.clone(),
        updated_ms: device.updated.0,
    }
}
