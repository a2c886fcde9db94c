//! The gRPC surface.

use std::sync::Arc;

use linnet_proto::push::{self as pb, pushes_server::Pushes};
use linnet_runtime::Clock;
use linnet_runtime::status::to_status;
use linnet_store::queues::{DeadId, DeadLetter, PARTITIONS, Waiting};
use linnet_types::{Refusal, SdkAppId, code};
use linnet_work::Worker;
use prost::Message as _;
use tonic::{Request, Response, Status};

use crate::planner::Planner;
use crate::trigger;
use crate::users::{Users, fault};

/// Dead letters on one page.
const PAGE: u32 = 100;
/// Rows counted for statistics.
const COUNTED: usize = 10_000;
/// Messages told in one call.
const MESSAGES: usize = 1_000;

pub(crate) struct Service {
    pub(crate) users: Users,
    pub(crate) planner: Arc<Planner>,
    pub(crate) planning: Worker,
    pub(crate) sending: Worker,
    pub(crate) clock: Clock,
}

type Reply<T> = Result<T, Refusal>;

fn bad(why: &str) -> Refusal {
    Refusal::new(code::ACCOUNT_BAD_PARAM, why)
}

impl Service {
    async fn do_advanced(&self, request: pb::AdvancedRequest) -> Reply<pb::AdvancedReply> {
        if request.messages.len() > MESSAGES || request.conv == 0 {
            return Err(bad("a conversation and at most 1,000 messages"));
        }
        let items = trigger::pieces(&request);
        // A round that gathers anyway needs nobody woken.
        let (quiet, loud): (Vec<_>, Vec<_>) =
            items.into_iter().partition(|item| self.planner.gathers(item.id.app, &item.id.key));
        let planned = u32::try_from(quiet.len() + loud.len()).unwrap_or(u32::MAX);
        self.planning.queues().enqueue(&quiet).await.map_err(|error| fault(&error))?;
        self.planning.enqueue(&loud).await.map_err(|error| fault(&error))?;
        Ok(pb::AdvancedReply { planned })
    }

    async fn do_failed(&self, request: pb::FailedRequest) -> Reply<pb::FailedReply> {
        let app = SdkAppId(request.app);
        let after = match request.after.as_str() {
            "" => None,
            text => Some(text.parse::<DeadId>().map_err(|()| bad("not the id of a dead letter"))?),
        };
        let limit = if request.limit == 0 { PAGE } else { request.limit.min(1_000) } as usize;
        let queues = self.sending.queues();
        let mut letters = queues.dead(app, after, limit + 1).await.map_err(|error| fault(&error))?;
        let more = letters.len() > limit;
        letters.truncate(limit);
        let total = queues.dead(app, None, COUNTED).await.map_err(|error| fault(&error))?.len() as u64;
        Ok(pb::FailedReply { letters: letters.into_iter().map(letter).collect(), more, total })
    }

    async fn do_replay(&self, request: pb::ReplayRequest) -> Reply<pb::ReplayReply> {
        let app = SdkAppId(request.app);
        let queues = self.sending.queues();
        let mut ids = Vec::with_capacity(request.ids.len());
        for id in &request.ids {
            ids.push(id.parse::<DeadId>().map_err(|()| bad("not the id of a dead letter"))?);
        }
        if request.all {
            let letters = queues.dead(app, None, COUNTED).await.map_err(|error| fault(&error))?;
            ids.extend(letters.into_iter().map(|letter| letter.id));
        }
        let mut replayed = 0;
        for id in ids {
            if let Some(item) = queues.replay(app, id).await.map_err(|error| fault(&error))? {
                replayed += 1;
                self.sending.wake(app, &item.id.key).await;
            }
        }
        Ok(pb::ReplayReply { replayed })
    }

    async fn do_stats(&self, request: pb::StatsRequest) -> Reply<pb::StatsReply> {
        let (mut stats, mut oldest) = (pb::StatsReply::default(), None);
        for partition in 0..PARTITIONS {
            for (worker, count) in [(&self.planning, &mut stats.planning), (&self.sending, &mut stats.sending)] {
                let waiting: Waiting =
                    worker.queues().waiting(partition, COUNTED).await.map_err(|error| fault(&error))?;
                *count += waiting.depth as u64;
                oldest = oldest.into_iter().chain(waiting.oldest).min();
            }
        }
        stats.oldest_ms = oldest.map_or(0, |at| self.clock.now().since(at));
        let dead = self.sending.queues().dead(SdkAppId(request.app), None, COUNTED).await;
        stats.dead = dead.map_err(|error| fault(&error))?.len() as u64;
        Ok(stats)
    }
}

fn letter(letter: DeadLetter) -> pb::DeadLetter {
    let batch = pb::Batch::decode(letter.item.payload).unwrap_or_default();
    let receivers = batch.notifications.iter().map(|one| one.receivers.len()).sum::<usize>();
    pb::DeadLetter {
        id: letter.id.to_string(),
        request_id: batch.request_id,
        receivers: u32::try_from(receivers).unwrap_or(u32::MAX),
        reason: letter.why,
        attempts: letter.item.attempts,
        failed_ms: letter.id.died.0,
    }
}

macro_rules! calls {
    ($($name:ident, $to:ident . $inner:ident, $request:ident, $reply:ident;)*) => {
        #[tonic::async_trait]
        impl Pushes for Service {
            $(async fn $name(&self, request: Request<pb::$request>) -> Result<Response<pb::$reply>, Status> {
                let outcome = calls!(@ self $to $inner request);
                outcome.map(Response::new).map_err(|refusal| to_status(&refusal))
            })*
        }
    };
    (@ $self:ident own $inner:ident $request:ident) => { $self.$inner($request.into_inner()).await };
    (@ $self:ident users $inner:ident $request:ident) => { $self.users.$inner($request.into_inner()).await };
}

calls! {
    advanced, own.do_advanced, AdvancedRequest, AdvancedReply;
    set_device, users.set_device, SetDeviceRequest, SetDeviceReply;
    remove_devices, users.remove_devices, RemoveDevicesRequest, RemoveDevicesReply;
    devices, users.devices, DevicesRequest, DevicesReply;
    set_badge, users.set_badge, SetBadgeRequest, SetBadgeReply;
    set_options, users.set_options, SetOptionsRequest, SetOptionsReply;
    options, users.options, OptionsRequest, OptionsReply;
    set_quiet, users.set_quiet, SetQuietRequest, SetQuietReply;
    quiet, users.quiet, QuietRequest, QuietReply;
    forget, users.forget, ForgetRequest, ForgetReply;
    failed, own.do_failed, FailedRequest, FailedReply;
    replay, own.do_replay, ReplayRequest, ReplayReply;
    stats, own.do_stats, StatsRequest, StatsReply;
}
