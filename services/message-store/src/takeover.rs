//! What a change of the ring moves: a node lets go of the conversations that are others' now, and takes over the open
//! logs that are its own, also when it starts.
//!
//! Without it, what a killed owner had acknowledged would stay out of lists until somebody wrote again, and the
//! after-webhooks of quiet conversations would never run.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use linnet_store::logs::{Class, OpenLog, SLOTS};

use crate::actor::Command;
use crate::error::Result;
use crate::owners::{Opening, Owners};
use crate::state::{Subject, log_id, owned};

/// After a change of the ring: owners that are only slow are given this long.
const SETTLED: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_secs(1);
/// Logs opened between two pauses, and at once: a slow store is not asked for more.
const STEP: u32 = 20;
const AT_ONCE: usize = 16;

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
        let lost = owners.yield_lost().await;
        if lost > 0 {
            tracing::info!(conversations = lost, "let go of what belongs to other nodes");
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
    let mut mine = Vec::new();
    let mut failed = Ok(());
    for log in open {
        let id = log_id(log.app, log.conv);
        let Ok(subject) = log.route.parse::<Subject>() else { continue };
        if !seen.insert(id) || owners.active(id).is_some() || !owned(&ctx.cluster, id, &subject) {
            continue;
        }
        mine.push(Opening { id, subject, class: Class::for_days(log.days) });
    }
    let opened = mine.len();
    for step in mine.chunks(STEP as usize) {
        let opening = stream::iter(step.to_vec()).map(|opening| wake(owners, opening)).buffer_unordered(AT_ONCE);
        let (woken, ()) = futures::join!(opening.collect::<Vec<Result<()>>>(), tokio::time::sleep(pause));
        // One that cannot be opened keeps no other waiting.
        failed = woken.into_iter().fold(failed, |failed, woken| failed.and(woken));
    }
    if opened > 0 {
        tracing::info!(logs = opened, "took over open logs");
    }
    failed
}

async fn wake(owners: &Owners, opening: Opening) -> Result<()> {
    // Another node's by now, or taken by one that believes so: not ours to open.
    if !owned(&owners.ctx().cluster, opening.id, &opening.subject) {
        return Ok(());
    }
    owners.post(&opening, Command::Wake)?;
    owners.ready(&opening).await.map(drop)
}
