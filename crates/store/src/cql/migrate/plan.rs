//! What a build knows of the schema: the steps that lead to it.

use crate::rows::Kind;

/// What a step does. Each part may be repeated: a run that was cut off goes on where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A table of rows.
    Table {
        /// Its name.
        name: &'static str,
        /// How it is written.
        kind: Kind,
        /// What its rows live through.
        life: TableLife,
    },
    /// A column more.
    Column {
        /// The table.
        table: &'static str,
        /// The column.
        name: &'static str,
        /// Its type in CQL.
        cql: &'static str,
    },
    /// A column less: contracting only.
    DropColumn {
        /// The table.
        table: &'static str,
        /// The column.
        name: &'static str,
    },
    /// A table less: contracting only.
    DropTable {
        /// Its name.
        name: &'static str,
    },
}

/// How rows of a table come and go, from which compaction and the life of tombstones follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableLife {
    /// Written and changed; a delete must outlive every replica that missed it, so repairs run more often than every 10 days.
    Kept,
    /// Written with a life of this many hours and hardly ever deleted.
    Expires {
        /// The life of its rows.
        hours: u32,
    },
    /// Put, and soon deleted: a work queue. Tombstones go early, or heads would be searched among them. A row that comes
    /// back, because a replica was away for longer, is recognised as done.
    Churns,
}

/// Enlarges the schema. Builds of the step before go on reading and writing it.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Number of the schema it leads to.
    pub version: u32,
    /// For the operator.
    pub title: &'static str,
    /// In this order.
    pub work: &'static [Work],
}

/// Takes away what only older builds use: a command of its own, run when none of them is left or comes back.
#[derive(Clone, Copy, Debug)]
pub struct Contraction {
    /// Its number, from 1.
    pub number: u32,
    /// The schema it needs.
    pub after: u32,
    /// The oldest build that reads the schema afterwards.
    pub oldest_reader: u32,
    /// For the operator.
    pub title: &'static str,
    /// In this order.
    pub work: &'static [Work],
}

/// All that a build knows.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Enlarging steps, by version from 1.
    pub steps: Vec<Step>,
    /// Contracting steps, by number from 1.
    pub contractions: Vec<Contraction>,
}

impl Plan {
    /// What this build knows.
    #[must_use]
    pub fn current() -> Self {
        #[cfg_attr(not(feature = "next-schema"), expect(unused_mut, reason = "the feature adds to it"))]
        let mut plan = Self { steps: vec![FIRST], contractions: Vec::new() };
        #[cfg(feature = "next-schema")]
        {
            plan.steps.push(NEXT);
            plan.contractions.push(NEXT_ONLY);
        }
        plan
    }

    /// The version of the schema this build writes.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.steps.last().map_or(0, |step| step.version)
    }
}

const fn kept(name: &'static str, kind: Kind) -> Work {
    Work::Table { name, kind, life: TableLife::Kept }
}

const fn expires(name: &'static str, kind: Kind, days: u32) -> Work {
    Work::Table { name, kind, life: TableLife::Expires { hours: days * 24 } }
}

const FIRST: Step = Step {
    version: 1,
    title: "the tables",
    work: &[
        kept("app", Kind::Guarded),
        kept("app_index", Kind::Plain),
        kept("account", Kind::Guarded),
        kept("account_index", Kind::Plain),
        kept("block", Kind::Plain),
        kept("conv_ids", Kind::Guarded),
        kept("group_name", Kind::Guarded),
        kept("group", Kind::Guarded),
        kept("joined", Kind::Plain),
        kept("app_group", Kind::Plain),
        kept("open_group", Kind::Plain),
        kept("pair", Kind::Guarded),
        kept("pair_conv", Kind::Plain),
        kept("conversation", Kind::Plain),
        kept("position", Kind::Plain),
        Work::Table { name: "queue", kind: Kind::Plain, life: TableLife::Churns },
        expires("queue_done", Kind::Plain, 3),
        expires("queue_dead", Kind::Plain, 30),
        kept("queue_parked", Kind::Plain),
        kept("push_user", Kind::Plain),
        kept("push_token", Kind::Plain),
        kept("push_planned", Kind::Plain),
        kept("log_origin", Kind::Guarded),
        kept("log_head", Kind::Plain),
        kept("open_logs", Kind::Plain),
        expires("log_7d", Kind::Guarded, 7),
        expires("log_30d", Kind::Guarded, 30),
        expires("log_90d", Kind::Guarded, 90),
        expires("log_1y", Kind::Guarded, 365),
        kept("log_forever", Kind::Guarded),
        expires("revision_7d", Kind::Guarded, 7),
        expires("revision_30d", Kind::Guarded, 30),
        expires("revision_90d", Kind::Guarded, 90),
        expires("revision_1y", Kind::Guarded, 365),
        kept("revision_forever", Kind::Guarded),
        expires("side_7d", Kind::Plain, 7),
        expires("side_30d", Kind::Plain, 30),
        expires("side_90d", Kind::Plain, 90),
        expires("side_1y", Kind::Plain, 365),
        kept("side_forever", Kind::Plain),
    ],
};

/// A step that nothing needs yet: lets tests run two builds that differ in their schema.
#[cfg(feature = "next-schema")]
const NEXT: Step = Step {
    version: 2,
    title: "a table and a column of the next build (tests)",
    work: &[
        Work::Table { name: "next_build", kind: Kind::Plain, life: TableLife::Kept },
        Work::Column { table: "app", name: "next_build", cql: "blob" },
    ],
};

#[cfg(feature = "next-schema")]
const NEXT_ONLY: Contraction = Contraction {
    number: 1,
    after: 2,
    oldest_reader: 2,
    title: "builds of schema 1 may no longer run (tests)",
    work: &[],
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A new table needs a step of its own here once a build with the earlier ones is in use.
    #[test]
    fn the_steps_make_every_table_the_store_uses() {
        let mut made = BTreeMap::new();
        for step in Plan::current().steps {
            for work in step.work {
                if let Work::Table { name, kind, .. } = work {
                    assert!(made.insert(*name, *kind).is_none(), "{name} is made twice");
                }
            }
        }
        made.remove("next_build");
        let used: BTreeMap<_, _> = crate::inspect::registry_tables().into_iter().map(|t| (t.name, t.kind)).collect();
        assert_eq!(
            made.into_iter().map(|(name, kind)| (name, kind == Kind::Guarded)).collect::<Vec<_>>(),
            used.into_iter().map(|(name, kind)| (name, kind == Kind::Guarded)).collect::<Vec<_>>()
        );
    }

    #[test]
    fn steps_are_numbered_from_1_and_only_contractions_take_away() {
        let plan = Plan::current();
        for (at, step) in (1..).zip(&plan.steps) {
            assert_eq!(step.version, at);
            let takes_away = |work: &Work| matches!(work, Work::DropColumn { .. } | Work::DropTable { .. });
            assert!(!step.work.iter().any(takes_away), "{}", step.title);
        }
        for (at, contraction) in (1..).zip(&plan.contractions) {
            assert_eq!(contraction.number, at);
            assert!(contraction.after <= plan.version() && contraction.oldest_reader <= plan.version());
        }
    }
}
