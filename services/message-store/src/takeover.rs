//! Opening what was open: after a start or a change of the ring, a node takes over the open logs that are its own.
//!
//! Without it, what a killed owner had acknowledged would stay out of lists until somebody wrote again, and the
//! after-webhooks of quiet conversations would never run.

use std::sync::Arc;
use std::time::Duration;

use linnet_store::logs::{Class, OpenLog, SLOTS};

use crate::actor::Command;
use crate::error::Result;
use crate::owners::{Opening, Owners};
use crate::state::{Subject, log_id, owned};

/// After a change of the ring: owners that are only slow are given this long.
const SETTLED: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_secs(1);
/// Logs opened between two pauses.
const STEP: u32 = 20;

/// Takes over once, then after every change of the ring, until the node drains.
pub(crate) async fn run(owners: Owners) {
    let ctx = Arc::clone(owners.ctx());
    let draining = ctx.tasks.draining();
    let mut changes = ctx.cluster.changes();
    loop {
        changes.mark_unchanged();
        while let Err(error) = once(&owners).await {
            tracing::warn!(%error, "open logs could not be taken over yet");
            tokio::select! {
                () = draining.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
        tokio::select! {
            () = draining.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
        tokio::select! {
            () = draining.cancelled() => return,
            () = tokio::time::sleep(SETTLED) => {}
        }
    }
}

/// Opens every open log that is this node's and not in memory, newest first, at a bounded rate.
async fn once(owners: &Owners) -> Result<()> {
    let ctx = owners.ctx();
    let mut open: Vec<OpenLog> = Vec::new();
    for slot in 0..SLOTS {
        open.extend(ctx.logs.open_logs(slot).await?);
    }
    open.sort_by_key(|log| std::cmp::Reverse(log.opened_ms));
    let mut seen = std::collections::HashSet::new();
    let pause = Duration::from_secs(1) * STEP / ctx.config.takeover_per_s.max(1);
    let mut opened = 0;
    for log in open {
        let id = log_id(log.app, log.conv);
        let Ok(subject) = log.route.parse::<Subject>() else { continue };
        if !seen.insert(id) || owners.active(id).is_some() || !owned(&ctx.cluster, id, &subject) {
            continue;
        }
        let opening = Opening { id, subject, class: Class::for_days(log.days) };
        owners.post(&opening, Command::Wake)?;
        opened += 1;
        if opened % STEP == 0 {
            tokio::time::sleep(pause).await;
        }
    }
    if opened > 0 {
        tracing::info!(logs = opened, "took over open logs");
    }
    Ok(())
}
