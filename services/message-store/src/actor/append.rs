//! Storing what waits, and settling what is unknown.

use std::time::Duration;

use linnet_proto::delivery::{Record, record};
use linnet_store::logs::{self, Appended, Entry, MAX_BATCH, MAX_BATCH_BYTES, Settled, fit};
use linnet_types::{Epoch, UnixMillis};

use super::{Actor, Append, Command, Deliver, out_of_line, shared_rows};
use crate::error::{Error, Result};
use crate::stored::Row;

/// First and longest wait between attempts to settle.
const SETTLE: Duration = Duration::from_millis(20);
const SETTLE_MAX: Duration = Duration::from_secs(1);
/// Attempts at the second part of a batch that crosses a bucket.
const PARTS: u32 = 50;

/// What a message was given when it was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub seq: u64,
    pub ord: u64,
    pub time: UnixMillis,
}

impl Actor {
    /// Appends `first` and what waits behind it as one batch. `Err`: deposed; all of them are answered.
    pub(super) async fn append_waiting(&mut self, first: Append) -> Result<()> {
        let epoch = first.group_epoch;
        self.log.set_class(first.class);
        let mut entries: Vec<Entry> = first.drafts.iter().map(|draft| draft.entry()).collect();
        let mut bytes: usize = entries.iter().map(Entry::cost).sum();
        let mut items = vec![first];
        while let Some(Command::Append(next)) = self.queue.front_mut() {
            if !next.take(self.taker) {
                if let Some(Command::Append(next)) = self.queue.pop_front() {
                    next.answer(Err(out_of_line()));
                }
                continue;
            }
            let more: Vec<Entry> = next.drafts.iter().map(|draft| draft.entry()).collect();
            bytes += more.iter().map(Entry::cost).sum::<usize>();
            let fits = entries.len() + more.len() <= MAX_BATCH && bytes <= MAX_BATCH_BYTES;
            if !fits || next.group_epoch != epoch || next.expires.is_some() {
                break;
            }
            entries.extend(more);
            if let Some(Command::Append(next)) = self.queue.pop_front() {
                items.push(next);
            }
        }
        let (stored, failed) = self.append_all(&entries, epoch).await;
        self.answer(items, &stored, failed.as_ref());
        match failed {
            Some(Error::Moved | Error::Unknown) if self.log.is_stale() => Err(Error::Moved),
            _ => Ok(()),
        }
    }

    /// What could be appended, and why the rest was not.
    async fn append_all(&mut self, entries: &[Entry], epoch: Epoch) -> (Vec<Appended>, Option<Error>) {
        let mut stored: Vec<Appended> = Vec::with_capacity(entries.len());
        let mut tries = 0;
        while stored.len() < entries.len() {
            let rest = &entries[stored.len()..];
            let part = &rest[..fit(rest, self.log.last_seq())];
            match self.append_part(part, epoch).await {
                Ok(appended) => stored.extend(appended),
                // A caller's batch is one thing to the caller: once a part is in, the rest must follow.
                Err(Error::Busy(_)) if !stored.is_empty() && tries < PARTS => {
                    tries += 1;
                    tokio::time::sleep(SETTLE).await;
                }
                Err(error) => return (stored, Some(error)),
            }
        }
        (stored, None)
    }

    async fn append_part(&mut self, entries: &[Entry], epoch: Epoch) -> Result<Vec<Appended>> {
        loop {
            let began = self.ctx.clock.mono();
            let appended = self.log.append(entries.to_vec(), epoch).await;
            let took = self.ctx.clock.mono().saturating_sub(began);
            match appended {
                Ok(appended) => {
                    self.ctx.meters.appended(appended.len(), took.as_secs_f64());
                    return Ok(appended);
                }
                Err(logs::Error::Unsettled) => {
                    if let Some(appended) = self.settle().await? {
                        self.ctx.meters.appended(appended.len(), took.as_secs_f64());
                        return Ok(appended);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Claims until it is known whether the last batch is in; nothing else is assigned meanwhile.
    async fn settle(&mut self) -> Result<Option<Vec<Appended>>> {
        let mut wait = SETTLE;
        let draining = self.ctx.tasks.draining();
        loop {
            match self.log.settle().await {
                Ok(settled) => {
                    self.ctx.meters.settled();
                    return Ok(match settled {
                        Settled::Stored(appended) => Some(appended),
                        Settled::NotStored => None,
                    });
                }
                // Whether it is in, the new owner's recovery tells the retry.
                Err(logs::Error::StaleOwner { .. }) => return Err(Error::Unknown),
                Err(error) => {
                    tracing::debug!(conv = self.shared.id.conv.0, %error, "a write of unknown outcome is not settled yet");
                    if draining.is_cancelled() {
                        return Err(Error::Unknown);
                    }
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(SETTLE_MAX);
                }
            }
        }
    }

    /// Shows, acknowledges, publishes: in this order, so that a sender who is told finds his message when he reads.
    fn answer(&mut self, items: Vec<Append>, stored: &[Appended], failed: Option<&Error>) {
        let mut at = 0;
        let (mut rows, mut records, mut replies) = (Vec::new(), Vec::new(), Vec::new());
        for mut item in items {
            let count = item.drafts.len();
            let given = stored.get(at..(at + count).min(stored.len())).unwrap_or_default();
            at += count;
            let given: Vec<Appended> = given.to_vec();
            let mut deliver = item.deliver.take();
            for (draft, appended) in std::mem::take(&mut item.drafts).into_iter().zip(&given) {
                let row = draft.row(appended);
                if let Some(deliver) = deliver.take() {
                    records.push(deliver.record(&row));
                }
                rows.push(row);
            }
            let answer = match failed {
                Some(error) if given.is_empty() && count > 0 => Err(error.clone()),
                Some(_) if given.len() < count => Err(Error::Unknown),
                _ => Ok(given.iter().map(|a| Given { seq: a.seq.0, ord: a.ord, time: a.time }).collect()),
            };
            replies.push((item, answer));
        }
        self.shared.push(shared_rows(rows));
        self.show();
        for (item, answer) in replies {
            item.answer(answer);
        }
        self.publish(records);
    }
}

impl Deliver {
    fn record(self, row: &Row) -> Record {
        Record {
            only: self.only,
            except_connection: self.except_connection,
            kind: Some(record::Kind::Message(row.message.clone())),
        }
    }
}
