//! Services around the group, as small as the tests need them.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use linnet_proto::account::accounts_server::Accounts;
use linnet_proto::callback::callbacks_server::Callbacks;
use linnet_proto::messages::messages_server::Messages;
use linnet_proto::msg::Message;
use linnet_proto::session::sessions_server::Sessions;
use linnet_proto::{account, callback, messages, session};
use linnet_runtime::Clock;
use parking_lot::Mutex;
use tonic::{Request, Response, Status};

macro_rules! unused {
    ($($name:ident: $request:path => $reply:path;)*) => {$(
        // Spelled out: the attribute on the impl does not see into a macro.
        fn $name<'a, 'b>(
            &'a self,
            _: Request<$request>,
        ) -> Pin<Box<dyn Future<Output = Result<Response<$reply>, Status>> + Send + 'b>>
        where
            'a: 'b,
            Self: 'b,
        {
            Box::pin(async { Err(Status::unimplemented(stringify!($name))) })
        }
    )*};
}

/// Logs that keep everything in memory and obey group epochs.
#[derive(Clone)]
pub(crate) struct FakeLogs {
    pub(crate) logs: Arc<Mutex<HashMap<u64, Log>>>,
    /// The next append is done, and its caller hears nothing of it.
    pub(crate) lose_answer: Arc<AtomicBool>,
    /// The next append is not done, and its caller hears nothing.
    pub(crate) lose_request: Arc<AtomicBool>,
    /// The next append or recall is never answered; with `true`, it is done.
    pub(crate) stall: Arc<Mutex<Option<bool>>>,
    pub(crate) appends: Arc<AtomicU32>,
    pub(crate) clock: Clock,
}

#[derive(Default)]
pub(crate) struct Log {
    pub(crate) epoch: u64,
    pub(crate) messages: Vec<Message>,
    /// Positions recalled, by whom and when.
    revoked: HashMap<u64, (String, u64)>,
    ord: u64,
}

impl FakeLogs {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            logs: Arc::default(),
            lose_answer: Arc::default(),
            lose_request: Arc::default(),
            stall: Arc::default(),
            appends: Arc::default(),
            clock,
        }
    }

    fn append_now(&self, request: messages::AppendRequest) -> Result<messages::AppendReply, Status> {
        if self.lose_request.swap(false, Ordering::Relaxed) {
            return Err(Status::unavailable("lost"));
        }
        assert!(request.messages.len() <= 20, "a batch holds at most 20 messages");
        let mut logs = self.logs.lock();
        let log = logs.entry(request.conv).or_default();
        if request.group_epoch < log.epoch {
            return Err(moved());
        }
        log.epoch = request.group_epoch;
        let mut appended = Vec::new();
        for mut message in request.messages {
            log.ord += u64::from(!message.no_unread);
            message.seq = log.messages.len() as u64 + 1;
            (message.ord, message.time_ms) = (log.ord, self.clock.now().0);
            appended.push(messages::Appended { seq: message.seq, ord: message.ord, time_ms: message.time_ms });
            log.messages.push(message);
        }
        if self.lose_answer.swap(false, Ordering::Relaxed) {
            return Err(Status::unavailable("lost"));
        }
        Ok(messages::AppendReply { appended })
    }

    fn revoke_now(&self, seq: u64, request: &messages::RevokeRequest) -> messages::RevokeResult {
        let mark = (request.origin.clone().unwrap_or_default().operator, request.mark_ms);
        let mut logs = self.logs.lock();
        let log = logs.entry(request.conv).or_default();
        let code = match log.messages.iter().find(|message| message.seq == seq) {
            None => 10_030,
            Some(message) if !request.sender.is_empty() && message.from != request.sender => 10_032,
            Some(_) => match log.revoked.get(&seq) {
                Some(before) if *before != mark => 10_030,
                _ => 0,
            },
        };
        if code == 0 {
            log.revoked.insert(seq, mark);
        }
        messages::RevokeResult { seq, code, ..Default::default() }
    }

    pub(crate) fn of(&self, conv: u64) -> Vec<Message> {
        self.logs.lock().get(&conv).map(|log| log.messages.clone()).unwrap_or_default()
    }
}

fn moved() -> Status {
    linnet_runtime::status::to_status(&crate::error::busy("the group has a newer owner"))
}

#[tonic::async_trait]
impl Messages for FakeLogs {
    async fn append(
        &self,
        request: Request<messages::AppendRequest>,
    ) -> Result<Response<messages::AppendReply>, Status> {
        let request = request.into_inner();
        self.appends.fetch_add(1, Ordering::Relaxed);
        let stall = self.stall.lock().take();
        if stall == Some(false) {
            std::future::pending::<()>().await;
        }
        let reply = self.append_now(request)?;
        if stall == Some(true) {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(reply))
    }

    async fn fence(&self, request: Request<messages::FenceRequest>) -> Result<Response<messages::FenceReply>, Status> {
        let request = request.into_inner();
        let mut logs = self.logs.lock();
        let log = logs.entry(request.conv).or_default();
        if request.group_epoch < log.epoch {
            return Err(moved());
        }
        log.epoch = request.group_epoch;
        Ok(Response::new(messages::FenceReply {
            head_seq: log.messages.len() as u64,
            head_ord: log.ord,
            last_time_ms: log.messages.last().map_or(0, |last| last.time_ms),
        }))
    }

    async fn history(
        &self,
        request: Request<messages::HistoryRequest>,
    ) -> Result<Response<messages::HistoryReply>, Status> {
        let request = request.into_inner();
        let all = self.of(request.conv);
        let head = all.len() as u64;
        let to = if request.to_seq == 0 { head } else { request.to_seq };
        let mut found: Vec<_> =
            all.into_iter().filter(|message| message.seq >= request.from_seq && message.seq <= to).collect();
        if !request.ascending {
            found.reverse();
        }
        found.truncate(request.limit as usize);
        let covered_from = found.iter().map(|message| message.seq).min().unwrap_or(0);
        Ok(Response::new(messages::HistoryReply { messages: found, covered_from, head, ..Default::default() }))
    }

    async fn revoke(
        &self,
        request: Request<messages::RevokeRequest>,
    ) -> Result<Response<messages::RevokeReply>, Status> {
        let request = request.into_inner();
        let stall = self.stall.lock().take();
        if stall == Some(false) {
            std::future::pending::<()>().await;
        }
        let results = request.seqs.iter().map(|seq| self.revoke_now(*seq, &request)).collect();
        if stall == Some(true) {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(messages::RevokeReply { results }))
    }

    unused! {
        send_c2c: messages::SendC2cRequest => linnet_proto::msg::SendReply;
        read_c2c: messages::ReadC2cRequest => messages::ReadC2cReply;
        heads: messages::HeadsRequest => messages::HeadsReply;
        delete_for_user: messages::DeleteForUserRequest => messages::DeleteForUserReply;
        sync: messages::SyncRequest => messages::SyncReply;
        read_group: messages::ReadGroupRequest => messages::ReadGroupReply;
        set_unread: messages::SetUnreadRequest => messages::SetUnreadReply;
        unread_c2c: messages::UnreadC2cRequest => messages::UnreadC2cReply;
        pin: messages::PinRequest => messages::PinReply;
        delete_conversation: messages::DeleteConversationRequest => messages::DeleteConversationReply;
        touch: messages::TouchRequest => messages::TouchReply;
        stats: messages::StatsRequest => messages::StatsReply;
    }
}

/// Everybody exists whose name does not begin with `ghost`.
#[derive(Clone, Default)]
pub(crate) struct FakeAccounts;

#[tonic::async_trait]
impl Accounts for FakeAccounts {
    async fn lookup(&self, request: Request<account::LookupRequest>) -> Result<Response<account::LookupReply>, Status> {
        let users = request.into_inner().users;
        let accounts = users
            .into_iter()
            .map(|user| account::Account { exists: !user.starts_with("ghost"), user, ..Default::default() })
            .collect();
        Ok(Response::new(account::LookupReply { accounts }))
    }

    unused! {
        get_app: account::GetAppRequest => account::App;
        list_apps: account::ListAppsRequest => account::ListAppsReply;
        create_app: account::CreateAppRequest => account::App;
        update_app: account::UpdateAppRequest => account::App;
        delete_app: account::GetAppRequest => account::DeleteAppReply;
        import: account::ImportRequest => account::ImportReply;
        delete: account::DeleteRequest => account::DeleteReply;
        kick: account::KickRequest => account::KickReply;
        set_profile: account::SetProfileRequest => account::SetProfileReply;
        block: account::BlockRequest => account::BlockReply;
        pair_check: account::PairCheckRequest => account::PairCheckReply;
    }
}

type Script = Box<dyn Fn(&callback::Event) -> (callback::BeforeReply, Duration) + Send>;

/// Keeps what it was told, answers before-webhooks by script.
#[derive(Clone, Default)]
pub(crate) struct FakeHooks {
    pub(crate) queued: Arc<Mutex<Vec<callback::Event>>>,
    pub(crate) posted: Arc<Mutex<Vec<callback::Event>>>,
    pub(crate) asked: Arc<Mutex<Vec<callback::Event>>>,
    pub(crate) script: Arc<Mutex<Option<Script>>>,
    pub(crate) down: Arc<AtomicBool>,
}

impl FakeHooks {
    pub(crate) fn answer(
        &self,
        script: impl Fn(&callback::Event) -> (callback::BeforeReply, Duration) + Send + 'static,
    ) {
        *self.script.lock() = Some(Box::new(script));
    }

    pub(crate) fn queued(&self, command: &str) -> Vec<serde_json::Value> {
        bodies(&self.queued.lock(), command)
    }

    pub(crate) fn posted(&self, command: &str) -> Vec<serde_json::Value> {
        bodies(&self.posted.lock(), command)
    }
}

fn bodies(events: &[callback::Event], command: &str) -> Vec<serde_json::Value> {
    let of = events.iter().filter(|event| event.command == command);
    of.map(|event| serde_json::from_slice(&event.body).expect("JSON")).collect()
}

#[tonic::async_trait]
impl Callbacks for FakeHooks {
    async fn before(
        &self,
        request: Request<callback::BeforeRequest>,
    ) -> Result<Response<callback::BeforeReply>, Status> {
        let event = request.into_inner().event.expect("an event");
        self.asked.lock().push(event.clone());
        let scripted = self.script.lock().as_ref().map(|script| script(&event));
        let (reply, wait) = scripted.unwrap_or_default();
        tokio::time::sleep(wait).await;
        Ok(Response::new(callback::BeforeReply { asked: true, ..reply }))
    }

    async fn enqueue(
        &self,
        request: Request<callback::EnqueueRequest>,
    ) -> Result<Response<callback::EnqueueReply>, Status> {
        if self.down.load(Ordering::Relaxed) {
            return Err(Status::unavailable("down"));
        }
        self.queued.lock().extend(request.into_inner().events);
        Ok(Response::new(callback::EnqueueReply {}))
    }

    async fn post(&self, request: Request<callback::PostRequest>) -> Result<Response<callback::PostReply>, Status> {
        self.posted.lock().extend(request.into_inner().events);
        Ok(Response::new(callback::PostReply {}))
    }

    unused! {
        failed: callback::FailedRequest => callback::FailedReply;
        replay: callback::ReplayRequest => callback::ReplayReply;
        test: callback::TestRequest => callback::TestReply;
        stats: callback::StatsRequest => callback::StatsReply;
    }

    type WatchStream = tokio_stream::Empty<Result<callback::WatchEvent, Status>>;

    async fn watch(&self, _: Request<callback::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(tokio_stream::empty()))
    }
}

/// Everybody is signed in on one gateway.
#[derive(Clone)]
pub(crate) struct FakeSessions(pub(crate) &'static str);

#[tonic::async_trait]
impl Sessions for FakeSessions {
    async fn r#where(&self, request: Request<session::WhereRequest>) -> Result<Response<session::WhereReply>, Status> {
        let users = request.into_inner().users;
        let place = session::Places { gateways: vec![self.0.to_owned()], rev: 1 };
        Ok(Response::new(session::WhereReply { places: vec![place; users.len()] }))
    }

    unused! {
        sign_in: session::SignInRequest => session::SignInReply;
        sign_out: session::SignOutRequest => session::SignOutReply;
        refresh: session::RefreshRequest => session::RefreshReply;
        kick: session::KickRequest => session::KickReply;
        status: session::StatusRequest => session::StatusReply;
        enter_room: session::EnterRoomRequest => session::EnterRoomReply;
        list: session::ListRequest => session::ListReply;
    }
}
