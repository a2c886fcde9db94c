//! `State.StateChange` (`spec/webhooks.md` §2): best effort, in order per user.
//!
//! A lost connection is reported after a short grace: a client that resumes within it never was away, and neither its loss
//! nor its return is told. After the grace both are, so that the app never takes a connected user for a disconnected one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use linnet_cluster::{Cluster, Service};
use linnet_proto::callback::callbacks_client::CallbacksClient;
use linnet_proto::callback::{Event, PostRequest};
use linnet_runtime::metrics::Counter;
use linnet_runtime::status::with_deadline;
use linnet_runtime::{Clock, Tasks};
use linnet_types::{Platform, SdkAppId, UserId};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::mpsc;

use crate::directory::Session;

/// The webhook.
pub(crate) const STATE_CHANGE: &str = "State.StateChange";
/// How long a lost connection may come back unnoticed. Detection is documented as "real time": this stays small.
const GRACE: Duration = Duration::from_secs(2);
/// Events that wait; more are lost and counted.
const WAITING: usize = 16_384;
/// Events handed over in one call.
const TOGETHER: usize = 100;
const CALL: Duration = Duration::from_secs(3);

/// What happened to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Login,
    Logout,
    LinkClose,
    TimeOut,
}

impl Action {
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Login => ("Login", "Register"),
            Self::Logout => ("Logout", "Unregister"),
            Self::LinkClose => ("Disconnect", "LinkClose"),
            Self::TimeOut => ("Disconnect", "TimeOut"),
        }
    }
}

/// Reports changes of state. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Events {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Clock,
    out: mpsc::Sender<Event>,
    /// Lost connections still within the grace, by user.
    lost: Mutex<HashMap<(SdkAppId, UserId), Vec<Lost>>>,
    count: std::sync::atomic::AtomicU64,
    tasks: Tasks,
    not_told: Counter,
}

struct Lost {
    session: Session,
    action: Action,
    number: u64,
}

impl Events {
    pub(crate) fn start(cluster: Cluster, clock: Clock, tasks: &Tasks, not_told: Counter) -> Self {
        let (out, waiting) = mpsc::channel(WAITING);
        tasks.spawn("session.events", send(cluster, waiting, tasks.clone(), not_told.clone()));
        let inner = Inner {
            clock,
            out,
            lost: Mutex::default(),
            count: std::sync::atomic::AtomicU64::new(0),
            tasks: tasks.clone(),
            not_told,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Reports now.
    pub(crate) fn tell(&self, session: &Session, action: Action, kicked: &[Session]) {
        self.tell_lost(session.app, &session.user);
        self.inner.post(session, action, kicked);
    }

    /// Reports a lost connection after the grace, unless it is taken up again.
    pub(crate) fn tell_later(&self, session: Session, action: Action) {
        let number = self.inner.next();
        let key = (session.app, session.user.clone());
        self.inner.lost.lock().entry(key.clone()).or_default().push(Lost { session, action, number });
        let events = self.clone();
        self.inner.tasks.spawn("session.grace", async move {
            let draining = events.inner.tasks.draining();
            tokio::select! {
                () = draining.cancelled() => {}
                () = tokio::time::sleep(GRACE) => {}
            }
            if let Some(lost) = events.take_lost(&key, |lost| lost.number == number) {
                events.inner.post(&lost.session, lost.action, &[]);
            }
        });
    }

    /// A session was resumed. True when its loss was not told: then its return need not be either.
    pub(crate) fn taken_up(&self, session: &Session) -> bool {
        let key = (session.app, session.user.clone());
        self.take_lost(&key, |lost| lost.session.instance == session.instance).is_some()
    }

    /// What is still within its grace is told before something newer of the same user.
    fn tell_lost(&self, app: SdkAppId, user: &UserId) {
        let lost = self.inner.lost.lock().remove(&(app, user.clone()));
        for lost in lost.into_iter().flatten() {
            self.inner.post(&lost.session, lost.action, &[]);
        }
    }

    fn take_lost(&self, key: &(SdkAppId, UserId), is: impl Fn(&Lost) -> bool) -> Option<Lost> {
        let mut users = self.inner.lost.lock();
        let lost = users.get_mut(key)?;
        let found = lost.iter().position(is).map(|index| lost.remove(index));
        if lost.is_empty() {
            users.remove(key);
        }
        found
    }
}

impl Inner {
    fn next(&self) -> u64 {
        self.count.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }

    fn post(&self, session: &Session, action: Action, kicked: &[Session]) {
        let now = self.clock.now();
        let (word, reason) = action.words();
        let info = json!({ "Action": word, "To_Account": session.user.as_str(), "Reason": reason });
        let mut body = json!({ "EventTime": now.0, "Info": info });
        if action == Action::Login && !kicked.is_empty() {
            let devices: Vec<_> = kicked.iter().map(|old| json!({ "Platform": device(old.platform) })).collect();
            body["KickedDevice"] = devices.into();
        }
        let event = Event {
            app: session.app.0,
            command: STATE_CHANGE.to_owned(),
            key: format!("u{}", session.user),
            id: format!("s{}-{}-{}", session.connection, now.0, self.next()),
            body: body.to_string().into(),
            client_ip: session.ip.clone(),
            // This event alone spells it so (`spec/webhooks.md` §1.2).
            platform: if session.platform == Platform::IPhone {
                "IOS".to_owned()
            } else {
                device(session.platform).to_owned()
            },
            time_ms: now.0,
        };
        if self.out.try_send(event).is_err() {
            self.not_told.inc();
        }
    }
}

/// A device as webhooks name it.
fn device(platform: Platform) -> &'static str {
    match platform {
        Platform::IPhone => "iOS",
        Platform::Android | Platform::IPad | Platform::Windows | Platform::Mac | Platform::Linux | Platform::Web => {
            platform.wire()
        }
    }
}

/// Hands events over one call after another, which keeps their order.
async fn send(cluster: Cluster, mut waiting: mpsc::Receiver<Event>, tasks: Tasks, not_told: Counter) {
    let draining = tasks.draining();
    let mut events = Vec::new();
    loop {
        let count = tokio::select! {
            biased;
            count = waiting.recv_many(&mut events, TOGETHER) => count,
            // The grace tasks report when draining begins; give them their turn.
            () = draining.cancelled() => {
                tokio::task::yield_now().await;
                tokio::time::timeout(Duration::from_millis(100), waiting.recv_many(&mut events, TOGETHER)).await.unwrap_or(0)
            }
        };
        if count == 0 {
            return;
        }
        let request = with_deadline(PostRequest { events: std::mem::take(&mut events) }, CALL);
        let sent = match cluster.any(Service::Callback) {
            Ok(rpc) => CallbacksClient::new(rpc).post(request).await.is_ok(),
            Err(_) => false,
        };
        if !sent {
            not_told.inc_by(count as u64);
        }
    }
}
