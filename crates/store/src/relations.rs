//! Relations between accounts: block lists. Plain rows under the owner, so a change may be repeated.

use bytes::Bytes;
use linnet_proto::store::BlockRow;
use linnet_types::{SdkAppId, UnixMillis, UserId};
use serde_json::{Value, json};

use crate::keys::{self, Key, Parts};
use crate::record;
use crate::rows::{Kind, Life, Range, Result, Store, Table, Write};

const BLOCK: Table = Table { name: "block", kind: Kind::Plain };

/// One entry of a block list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Who is kept out.
    pub user: UserId,
    /// Since when.
    pub since: UnixMillis,
}

/// Relations of every account.
#[derive(Clone)]
pub struct Relations {
    store: Store,
}

impl Relations {
    /// Over `store`.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Whether `owner` blocks `user`.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn blocked(&self, app: SdkAppId, owner: &UserId, user: &UserId) -> Result<bool> {
        Ok(self.store.get(BLOCK, &partition(app, owner), &clustering(user)).await?.is_some())
    }

    /// Adds `users` to the block list of `owner`; one already there gets the new time.
    ///
    /// # Errors
    /// [`crate::Error`]: repeat.
    pub async fn block(&self, app: SdkAppId, owner: &UserId, users: &[UserId], now: UnixMillis) -> Result<()> {
        let key = partition(app, owner);
        let row = BlockRow { since_ms: now.0 };
        let writes = users.iter().map(|user| (key.clone(), record::row(clustering(user), &row))).collect();
        record::put(&self.store, BLOCK, writes, Life::Forever).await
    }

    /// Takes `users` off the block list of `owner`; absent is fine.
    ///
    /// # Errors
    /// [`crate::Error`]: repeat.
    pub async fn unblock(&self, app: SdkAppId, owner: &UserId, users: &[UserId]) -> Result<()> {
        let key = partition(app, owner);
        let writes = users.iter().map(|user| (key.clone(), Write::Delete { clustering: clustering(user) })).collect();
        record::put(&self.store, BLOCK, writes, Life::Forever).await
    }

    /// At most `limit` entries of the block list of `owner` after `after`, by user id; 0 = all.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn list(
        &self,
        app: SdkAppId,
        owner: &UserId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<Blocked>> {
        let range = Range { from: after.map(|user| keys::after(&clustering(user))), limit, ..Range::default() };
        let rows = self.store.scan(BLOCK, &partition(app, owner), range).await?;
        rows.iter().map(|row| entry(&row.clustering, &row.value)).collect()
    }

    /// Removes every relation `owner` keeps, for the deletion of an account.
    ///
    /// # Errors
    /// [`crate::Error`]: repeat.
    pub async fn clear(&self, app: SdkAppId, owner: &UserId) -> Result<()> {
        let key = partition(app, owner);
        let rows = self.store.scan(BLOCK, &key, Range::default()).await?;
        let writes = rows.into_iter().map(|row| (key.clone(), Write::Delete { clustering: row.clustering })).collect();
        record::put(&self.store, BLOCK, writes, Life::Forever).await
    }
}

fn partition(app: SdkAppId, owner: &UserId) -> Bytes {
    Key::new().u32(app.0).text(owner.as_str()).done()
}

fn clustering(user: &UserId) -> Bytes {
    Key::new().text(user.as_str()).done()
}

fn entry(clustering: &[u8], value: &[u8]) -> Result<Blocked> {
    let row: BlockRow = record::decode(BLOCK, value)?;
    let user = UserId::trusted(Parts::new(BLOCK.name, clustering).text()?);
    Ok(Blocked { user, since: UnixMillis(row.since_ms) })
}

/// The tables of this aggregate.
#[must_use]
pub fn tables() -> Vec<Table> {
    vec![BLOCK]
}

/// One row for people.
///
/// # Errors
/// [`crate::Error::Corrupt`] when the row is not what this aggregate writes.
pub fn describe(table: Table, partition: &[u8], clustering: &[u8], value: &[u8]) -> Result<Value> {
    let mut parts = Parts::new(table.name, partition);
    let (app, owner) = (parts.u32()?, parts.text()?);
    let entry = entry(clustering, value)?;
    Ok(json!({ "app": app, "owner": owner, "blocks": entry.user, "since_ms": entry.since }))
}

#[cfg(test)]
mod tests {
    use linnet_runtime::{Clock, Rng};

    use super::*;
    use crate::sim::{Faults, SimRows};

    const APP: SdkAppId = SdkAppId(1_400_000_000);
    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    #[tokio::test(start_paused = true)]
    async fn blocking_is_one_sided_listed_and_undone() {
        let relations = Relations::new(SimRows::new(Rng::seeded(1), Clock::simulated(NOW), Faults::none()).store());
        let [ann, bob, cat] = ["ann", "bob", "cat"].map(UserId::trusted);
        relations.block(APP, &ann, &[cat.clone(), bob.clone()], NOW).await.unwrap();
        assert!(relations.blocked(APP, &ann, &bob).await.unwrap());
        assert!(!relations.blocked(APP, &bob, &ann).await.unwrap());
        let list = relations.list(APP, &ann, None, 0).await.unwrap();
        assert_eq!(list.iter().map(|entry| &entry.user).collect::<Vec<_>>(), [&bob, &cat]);
        let rest = relations.list(APP, &ann, Some(&bob), 5).await.unwrap();
        assert_eq!(rest, [Blocked { user: cat.clone(), since: NOW }]);
        relations.unblock(APP, &ann, std::slice::from_ref(&bob)).await.unwrap();
        assert!(!relations.blocked(APP, &ann, &bob).await.unwrap());
        relations.clear(APP, &ann).await.unwrap();
        assert_eq!(relations.list(APP, &ann, None, 0).await.unwrap(), []);
    }
}
