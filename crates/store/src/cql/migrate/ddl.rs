//! The statements that make keyspaces and tables.

use super::plan::{TableLife, Work};
use crate::rows::Kind;

/// The part of a table's life after which its rows share a file: 20 files hold all of them.
const WINDOWS: u32 = 20;
/// Servers keep what a replica missed for 3 hours; a replica that was away for longer is repaired.
const EXPIRING_GRACE_S: u32 = 86_400;
const CHURNING_GRACE_S: u32 = 3 * 3600;
/// Rows of a queue leave memory for a file, where they and their tombstones annul each other.
const CHURNING_FLUSH_MS: u32 = 600_000;

pub(super) fn keyspace(name: &str, datacenter: &str, replication: u32, without_tablets: bool) -> String {
    // Conditional batches need replicas that are fixed by token.
    let tablets = if without_tablets { " AND tablets = {'enabled': false}" } else { "" };
    let datacenter = datacenter.replace('\'', "''");
    format!(
        "CREATE KEYSPACE IF NOT EXISTS {name} WITH replication = {{'class': 'NetworkTopologyStrategy', '{datacenter}': \
         {replication}}}{tablets}"
    )
}

/// The table that tells which schema this is, and who is changing it.
pub(super) fn versions(keyspace: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {keyspace}.schema_version (id text PRIMARY KEY, version int, contracted int, \
         oldest_reader int, holder text)"
    )
}

/// The statement for one part of a step.
pub(super) fn statement(keyspace: &str, work: &Work) -> String {
    match work {
        Work::Table { name, kind, life } => table(keyspace, name, *kind, *life),
        Work::Column { table, name, cql } => format!("ALTER TABLE {keyspace}.\"{table}\" ADD {name} {cql}"),
        Work::DropColumn { table, name } => format!("ALTER TABLE {keyspace}.\"{table}\" DROP {name}"),
        Work::DropTable { name } => format!("DROP TABLE IF EXISTS {keyspace}.\"{name}\""),
    }
}

fn table(keyspace: &str, name: &str, kind: Kind, life: TableLife) -> String {
    let guard = match kind {
        Kind::Guarded => " epoch bigint static, rev bigint static, data blob static,",
        Kind::Plain => "",
    };
    format!(
        "CREATE TABLE IF NOT EXISTS {keyspace}.\"{name}\" (partition blob, clustering blob, value blob,{guard} \
         PRIMARY KEY (partition, clustering)){}",
        options(life)
    )
}

fn options(life: TableLife) -> String {
    match life {
        TableLife::Kept => String::new(),
        TableLife::Expires { hours } => format!(
            " WITH compaction = {{'class': 'TimeWindowCompactionStrategy', 'compaction_window_unit': 'HOURS', \
             'compaction_window_size': '{}'}} AND gc_grace_seconds = {EXPIRING_GRACE_S}",
            (hours / WINDOWS).max(1)
        ),
        TableLife::Churns => format!(
            " WITH compaction = {{'class': 'LeveledCompactionStrategy'}} AND gc_grace_seconds = {CHURNING_GRACE_S} AND \
             memtable_flush_period_in_ms = {CHURNING_FLUSH_MS}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_a_twentieth_of_the_life() {
        let work = Work::Table { name: "log_30d", kind: Kind::Guarded, life: TableLife::Expires { hours: 30 * 24 } };
        let cql = statement("linnet", &work);
        assert!(cql.contains("'compaction_window_size': '36'"), "{cql}");
        assert!(cql.contains("epoch bigint static"), "{cql}");
    }

    #[test]
    fn a_keyspace_names_its_data_centre_and_turns_tablets_off_where_there_are_any() {
        let cql = keyspace("linnet", "dc1", 3, true);
        assert_eq!(
            cql,
            "CREATE KEYSPACE IF NOT EXISTS linnet WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 3} AND \
             tablets = {'enabled': false}"
        );
        assert!(!keyspace("linnet", "dc1", 3, false).contains("tablets"));
    }
}
