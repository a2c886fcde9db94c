//! One run at a time: a row that is taken by condition and expires by itself.

use super::Migration;
use crate::rows::Result;

/// How long a run that died keeps others out.
const LEASE_S: i32 = 120;
/// Attempts where an answer was lost.
const TRIES: u32 = 3;

pub(super) struct Lock<'a> {
    migration: &'a Migration,
    me: String,
}

impl<'a> Lock<'a> {
    pub(super) fn new(migration: &'a Migration, me: String) -> Self {
        Self { migration, me }
    }

    /// Takes it, or says who has it.
    pub(super) async fn take(&self) -> Result<()> {
        let cql = format!(
            "UPDATE {}.schema_version USING TTL ? SET holder = ? WHERE id = 'lock' IF holder = null",
            self.migration.config.keyspace
        );
        let mut last = None;
        for _ in 0..TRIES {
            match self.migration.applied(&cql, (LEASE_S, &self.me)).await {
                Ok(true) => return Ok(()),
                Ok(false) => match self.holder().await? {
                    // An attempt whose answer was lost.
                    Some(holder) if holder == self.me => return Ok(()),
                    Some(holder) => {
                        let why = format!(
                            "another run ({holder}) is changing the schema; if it died, its lock ends within {LEASE_S} s"
                        );
                        return Err(self.migration.fail(&why));
                    }
                    None => {}
                },
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| self.migration.fail("the lock could not be taken")))
    }

    /// Keeps it for another lease; fails when it is lost.
    pub(super) async fn renew(&self) -> Result<()> {
        let cql = format!(
            "UPDATE {}.schema_version USING TTL ? SET holder = ? WHERE id = 'lock' IF holder = ?",
            self.migration.config.keyspace
        );
        if self.migration.applied(&cql, (LEASE_S, &self.me, &self.me)).await? {
            Ok(())
        } else {
            Err(self.migration.fail("the lock was lost: this run was away for too long; run it again"))
        }
    }

    /// Gives it back. When that fails it expires.
    pub(super) async fn release(&self) {
        let cql = format!(
            "UPDATE {}.schema_version SET holder = null WHERE id = 'lock' IF holder = ?",
            self.migration.config.keyspace
        );
        if let Err(error) = self.migration.applied(&cql, (&self.me,)).await {
            tracing::warn!(%error, "the lock of the schema was not released; it expires");
        }
    }

    /// Who has it now.
    pub(super) async fn holder(&self) -> Result<Option<String>> {
        let cql = format!("SELECT holder FROM {}.schema_version WHERE id = 'lock'", self.migration.config.keyspace);
        let answer = self.migration.serial(&cql).await?;
        let rows = answer.into_rows_result().map_err(|error| self.migration.fail(&error.to_string()))?;
        let row = rows.maybe_first_row::<(Option<String>,)>();
        let row = row.map_err(|error| self.migration.fail(&error.to_string()))?;
        Ok(row.and_then(|(holder,)| holder))
    }
}
