//! What the handlers share: finding conversations, and the turn-taking of writes to one user's rows.

use std::sync::Arc;

use linnet_store::logs::{Class, LogHead, LogId, Reader};
use linnet_types::{AppSettings, ConvId, SdkAppId, UserId};
use moka::sync::Cache;
use tokio::sync::{Mutex, MutexGuard};

use crate::error::{Error, Result};
use crate::history::Joined;
use crate::owners::{Handle, Opening, Owners};
use crate::state::{Ctx, Subject};
use crate::totals::Totals;

/// Pairs whose conversation id is remembered; ids never change.
const PAIRS: u64 = 200_000;
const USER_LOCKS: usize = 512;
/// Events about calls that were stored lately: a call that is repeated needs not tell them again.
const TOLD: u64 = 20_000;

/// The service's state; cheap to clone.
#[derive(Clone)]
pub(crate) struct Service {
    pub ctx: Arc<Ctx>,
    pub owners: Owners,
    inner: Arc<Inner>,
}

struct Inner {
    pairs: Cache<(SdkAppId, UserId, UserId), ConvId>,
    users: Vec<Mutex<()>>,
    joined: Joined,
    totals: Totals,
    told: Cache<String, ()>,
}

impl Service {
    pub(crate) fn new(ctx: Arc<Ctx>, owners: Owners) -> Self {
        let users = (0..USER_LOCKS).map(|_| Mutex::default()).collect();
        let pairs = Cache::builder().max_capacity(PAIRS).build();
        let told = Cache::builder().max_capacity(TOLD).build();
        let inner = Inner { pairs, users, joined: Joined::default(), totals: Totals::new(), told };
        Self { ctx, owners, inner: Arc::new(inner) }
    }

    /// Names of events about calls that were stored lately.
    pub(crate) fn told(&self) -> &Cache<String, ()> {
        &self.inner.told
    }

    pub(crate) fn totals(&self) -> &Totals {
        &self.inner.totals
    }

    pub(crate) fn joined(&self) -> &Joined {
        &self.inner.joined
    }

    /// The turn of writes to one user's list and positions; only his owner makes them.
    pub(crate) async fn turn(&self, app: SdkAppId, user: &UserId) -> MutexGuard<'_, ()> {
        let mut hash = u64::from(app.0) ^ 0xcbf2_9ce4_8422_2325;
        for byte in user.as_str().bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.inner.users[usize::try_from(hash % USER_LOCKS as u64).expect("below USER_LOCKS")].lock().await
    }

    /// The conversation of two users, if they have one.
    pub(crate) async fn pair(&self, app: SdkAppId, a: &UserId, b: &UserId) -> Result<Option<ConvId>> {
        let key = pair_key(app, a, b);
        if let Some(conv) = self.inner.pairs.get(&key) {
            return Ok(Some(conv));
        }
        let pair = self.ctx.conversations.pair(app, a, b).await?;
        Ok(pair.map(|pair| {
            self.inner.pairs.insert(key, pair.conv);
            pair.conv
        }))
    }

    /// The conversation of two users, made if need be.
    pub(crate) async fn open_pair(&self, app: SdkAppId, a: &UserId, b: &UserId) -> Result<ConvId> {
        if let Some(conv) = self.pair(app, a, b).await? {
            return Ok(conv);
        }
        let ctx = &self.ctx;
        let (pair, _) = ctx.conversations.open_pair(app, a, b, ctx.clock.now(), || ctx.ids.fresh()).await?;
        self.inner.pairs.insert(pair_key(app, a, b), pair.conv);
        Ok(pair.conv)
    }

    /// What is known of the end of a log: from its actor if this node has it, else from the store. `None` = no such log.
    pub(crate) async fn head(&self, id: LogId) -> Result<Option<(Option<Handle>, Arc<LogHead>)>> {
        let (now, ring) = (self.ctx.clock.mono(), self.ctx.ring());
        let active = self.owners.active(id).and_then(|handle| handle.shared.head().map(|head| (handle, head)));
        if let Some((handle, head)) = &active
            && handle.shared.is_confirmed(now, ring)
        {
            return Ok(Some((Some(handle.clone()), Arc::clone(head))));
        }
        let stored = self.ctx.logs.heads(&[id]).await?.into_iter().next().flatten();
        if let (Some((handle, _)), Some(stored)) = (&active, &stored)
            && let Some(head) = handle.shared.head()
            && stored.epoch <= head.epoch
        {
            handle.shared.confirm(now, ring);
            return Ok(Some((Some(handle.clone()), head)));
        }
        Ok(stored.map(|head| (None, Arc::new(head))))
    }

    /// A reader of a log.
    pub(crate) fn reader(&self, id: LogId, head: &LogHead) -> Reader {
        self.ctx.logs.reader_of(id, head)
    }
}

fn pair_key(app: SdkAppId, a: &UserId, b: &UserId) -> (SdkAppId, UserId, UserId) {
    if a <= b { (app, a.clone(), b.clone()) } else { (app, b.clone(), a.clone()) }
}

/// How a pair is opened.
pub(crate) fn pair_opening(app: SdkAppId, conv: ConvId, a: &UserId, b: &UserId, settings: &AppSettings) -> Opening {
    let class = Class::for_days(settings.retention_days);
    Opening { id: LogId { app, conv }, subject: Subject::pair(a, b), class }
}

/// A user named in a request by another service.
pub(crate) fn user(id: &str) -> Result<UserId> {
    UserId::parse(id).map_err(|_| Error::refused(linnet_types::code::C2C_NO_USER, "no such account"))
}
