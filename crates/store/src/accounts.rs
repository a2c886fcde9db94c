//! Accounts and their profiles: one guarded record each, and a plain index by hash slot for counting and listing.
//!
//! The index row is written before the record and removed after it, so a listed account may not exist but an existing one
//! is always listed.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use linnet_proto::store::{AccountIndexRow, AccountRow, ProfileItem, RowVersion, profile_item};
use linnet_types::{SdkAppId, UnixMillis, UserId};
use serde_json::{Value, json};

use crate::keys::{self, Key, Parts};
use crate::record::{self, Decision};
use crate::rows::{Kind, Life, Range, Result, Store, Table, Write};

const ACCOUNT: Table = Table { name: "account", kind: Kind::Guarded };
const ACCOUNT_INDEX: Table = Table { name: "account_index", kind: Kind::Plain };

/// Partitions of an app's index.
const SLOTS: u16 = 16;
/// Records read at once by [`Accounts::get_many`].
const READS: usize = 32;
/// Index rows read at once when counting.
const COUNT_PAGE: usize = 10_000;

/// Value of a profile field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProfileValue {
    /// Text, by the rules of the tag.
    Text(String),
    /// A number.
    Number(u32),
}

/// One account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its id.
    pub user: UserId,
    /// Standard and custom fields by tag; a field never set is absent.
    pub profile: BTreeMap<String, ProfileValue>,
    /// When it was first imported, or imported again after a deletion.
    pub created: UnixMillis,
    /// When it was deleted.
    pub deleted: Option<UnixMillis>,
    /// UserSigs made at or before this second are refused; 0 = none. Survives deletion.
    pub kick_time_s: u64,
    /// An operator keeps the account out.
    pub blocked: bool,
    /// Incarnation: 1, and one more for each import after a deletion.
    pub generation: u32,
    /// Rises with every change.
    pub rev: u64,
}

/// What an import did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Imported {
    /// There was no account, or a deleted one.
    Created(Account),
    /// There was one; the given fields were overwritten.
    Existed(Account),
}

/// Where a listing goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountCursor {
    slot: u16,
    after: Option<UserId>,
}

/// Every account.
#[derive(Clone)]
pub struct Accounts {
    store: Store,
}

impl Accounts {
    /// Over `store`.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Reads one account; `None` when it does not exist or is deleted.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn get(&self, app: SdkAppId, user: &UserId) -> Result<Option<Account>> {
        Ok(self.get_with_deleted(app, user).await?.filter(|account| account.deleted.is_none()))
    }

    /// Reads one account, a deleted one too.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn get_with_deleted(&self, app: SdkAppId, user: &UserId) -> Result<Option<Account>> {
        let value = record::load(&self.store, ACCOUNT, &partition(app, user)).await?;
        value.map(|value| from_row(user.clone(), &value)).transpose()
    }

    /// Reads many accounts, 32 at once; the answer has the order of `users`.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn get_many(&self, app: SdkAppId, users: &[UserId]) -> Result<Vec<Option<Account>>> {
        stream::iter(users.to_vec())
            .map(|user| async move { self.get(app, &user).await })
            .buffered(READS)
            .try_collect()
            .await
    }

    /// Creates the account, or overwrites the given fields of the one there is.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn import(
        &self,
        app: SdkAppId,
        user: &UserId,
        fields: &[(String, ProfileValue)],
        now: UnixMillis,
    ) -> Result<Imported> {
        if self.get(app, user).await?.is_none() {
            let row = record::row(Key::new().text(user.as_str()).done(), &AccountIndexRow { created_ms: now.0 });
            let writes = vec![(index_partition(app, record::slot(user.as_str(), SLOTS)), row)];
            record::put(&self.store, ACCOUNT_INDEX, writes, Life::Forever).await?;
        }
        record::change(&self.store, ACCOUNT, partition(app, user), |old| {
            let old = old.map(|old| from_row(user.clone(), old)).transpose()?;
            let existed = old.as_ref().is_some_and(|account| account.deleted.is_none());
            if existed && fields.is_empty() {
                return Ok(Decision::Keep(Imported::Existed(old.expect("it existed"))));
            }
            let mut account = if existed { old.expect("it existed") } else { fresh(user, old.as_ref(), now) };
            account.profile.extend(fields.iter().cloned());
            account.rev += 1;
            let value = record::encode(&to_row(&account));
            Ok(Decision::Write(value, if existed { Imported::Existed(account) } else { Imported::Created(account) }))
        })
        .await
    }

    /// Changes one account and returns it as it is now; `None` when it does not exist or is deleted. `edit` runs again for
    /// every lost race, always on the newest state.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn update(
        &self,
        app: SdkAppId,
        user: &UserId,
        mut edit: impl FnMut(&mut Account) + Send,
    ) -> Result<Option<Account>> {
        record::change(&self.store, ACCOUNT, partition(app, user), |old| {
            let old = old.map(|old| from_row(user.clone(), old)).transpose()?;
            let Some(old) = old.filter(|account| account.deleted.is_none()) else { return Ok(Decision::Keep(None)) };
            let mut account = old.clone();
            edit(&mut account);
            account.user = user.clone();
            account.rev = old.rev;
            if account == old {
                return Ok(Decision::Keep(Some(account)));
            }
            account.rev += 1;
            Ok(Decision::Write(record::encode(&to_row(&account)), Some(account)))
        })
        .await
    }

    /// Deletes one account: the profile goes, a marker and the kick time stay. `false` when there was none.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn delete(&self, app: SdkAppId, user: &UserId, now: UnixMillis) -> Result<bool> {
        let was = record::change(&self.store, ACCOUNT, partition(app, user), |old| {
            let old = old.map(|old| from_row(user.clone(), old)).transpose()?;
            let Some(mut account) = old.filter(|account| account.deleted.is_none()) else {
                return Ok(Decision::Keep(false));
            };
            account.deleted = Some(now);
            account.profile.clear();
            account.rev += 1;
            Ok(Decision::Write(record::encode(&to_row(&account)), true))
        })
        .await?;
        let gone = Write::Delete { clustering: Key::new().text(user.as_str()).done() };
        let writes = vec![(index_partition(app, record::slot(user.as_str(), SLOTS)), gone)];
        record::put(&self.store, ACCOUNT_INDEX, writes, Life::Forever).await?;
        Ok(was)
    }

    /// Counts the accounts of an app by reading its index: cost grows with the count; callers cache it.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn count(&self, app: SdkAppId) -> Result<u64> {
        let mut count = 0;
        let mut next = None;
        loop {
            let (users, more) = self.page(app, next.as_ref(), COUNT_PAGE).await?;
            count += users.len() as u64;
            if more.is_none() {
                return Ok(count);
            }
            next = more;
        }
    }

    /// Lists the accounts of an app in no particular order, `limit` at a time (at least 1); `None` beside the page = end.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn page(
        &self,
        app: SdkAppId,
        from: Option<&AccountCursor>,
        limit: usize,
    ) -> Result<(Vec<UserId>, Option<AccountCursor>)> {
        let limit = limit.max(1);
        let mut at = from.cloned().unwrap_or(AccountCursor { slot: 0, after: None });
        let mut users: Vec<UserId> = Vec::new();
        while at.slot < SLOTS {
            let from = at.after.as_ref().map(|user| keys::after(&Key::new().text(user.as_str()).done()));
            let want = limit - users.len();
            let range = Range { from, limit: want, ..Range::default() };
            let rows = self.store.scan(ACCOUNT_INDEX, &index_partition(app, at.slot), range).await?;
            for row in &rows {
                users.push(UserId::trusted(Parts::new(ACCOUNT_INDEX.name, &row.clustering).text()?));
            }
            if rows.len() == want {
                at.after = users.last().cloned();
                return Ok((users, Some(at)));
            }
            at = AccountCursor { slot: at.slot + 1, after: None };
        }
        Ok((users, None))
    }
}

fn fresh(user: &UserId, deleted: Option<&Account>, now: UnixMillis) -> Account {
    Account {
        user: user.clone(),
        profile: BTreeMap::new(),
        created: now,
        deleted: None,
        kick_time_s: deleted.map_or(0, |account| account.kick_time_s),
        blocked: deleted.is_some_and(|account| account.blocked),
        generation: deleted.map_or(0, |account| account.generation) + 1,
        rev: deleted.map_or(0, |account| account.rev),
    }
}

fn partition(app: SdkAppId, user: &UserId) -> Bytes {
    Key::new().u32(app.0).text(user.as_str()).done()
}

fn index_partition(app: SdkAppId, slot: u16) -> Bytes {
    Key::new().u32(app.0).u32(slot.into()).done()
}

fn to_row(account: &Account) -> AccountRow {
    let item = |(tag, value): (&String, &ProfileValue)| ProfileItem {
        tag: tag.clone(),
        value: Some(match value {
            ProfileValue::Text(text) => profile_item::Value::Text(text.clone()),
            ProfileValue::Number(number) => profile_item::Value::Number(*number),
        }),
    };
    AccountRow {
        version: RowVersion::RowVersion1.into(),
        profile: account.profile.iter().map(item).collect(),
        created_ms: account.created.0,
        deleted_ms: account.deleted.map_or(0, |at| at.0),
        kick_time_s: account.kick_time_s,
        blocked: account.blocked,
        generation: account.generation,
        rev: account.rev,
    }
}

fn from_row(user: UserId, value: &[u8]) -> Result<Account> {
    let row: AccountRow = record::decode(ACCOUNT, value)?;
    let mut profile = BTreeMap::new();
    for item in row.profile {
        let value = match item.value {
            Some(profile_item::Value::Text(text)) => ProfileValue::Text(text),
            Some(profile_item::Value::Number(number)) => ProfileValue::Number(number),
            None => return Err(record::corrupt(ACCOUNT, format_args!("{} has no value", item.tag))),
        };
        profile.insert(item.tag, value);
    }
    Ok(Account {
        user,
        profile,
        created: UnixMillis(row.created_ms),
        deleted: (row.deleted_ms != 0).then_some(UnixMillis(row.deleted_ms)),
        kick_time_s: row.kick_time_s,
        blocked: row.blocked,
        generation: row.generation,
        rev: row.rev,
    })
}

/// The tables of this aggregate.
#[must_use]
pub fn tables() -> Vec<Table> {
    vec![ACCOUNT, ACCOUNT_INDEX]
}

/// One row for people.
///
/// # Errors
/// [`crate::Error::Corrupt`] when the row is not what this aggregate writes.
pub fn describe(table: Table, partition: &[u8], clustering: &[u8], value: &[u8]) -> Result<Value> {
    let mut parts = Parts::new(table.name, partition);
    let app = parts.u32()?;
    if table == ACCOUNT_INDEX {
        let row: AccountIndexRow = record::decode(table, value)?;
        let user = Parts::new(table.name, clustering).text()?;
        return Ok(json!({ "app": app, "slot": parts.u32()?, "user": user, "created_ms": row.created_ms }));
    }
    let account = from_row(UserId::trusted(parts.text()?), value)?;
    let profile: serde_json::Map<String, Value> = account
        .profile
        .into_iter()
        .map(|(tag, value)| match value {
            ProfileValue::Text(text) => (tag, json!(text)),
            ProfileValue::Number(number) => (tag, json!(number)),
        })
        .collect();
    Ok(json!({
        "app": app, "user": account.user, "profile": profile, "created_ms": account.created,
        "deleted_ms": account.deleted, "kick_time_s": account.kick_time_s, "blocked": account.blocked,
        "generation": account.generation, "rev": account.rev,
    }))
}

#[cfg(test)]
mod tests;
