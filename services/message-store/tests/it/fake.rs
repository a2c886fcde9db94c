//! Services of other crates, as far as this one calls them.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{MethodRouter, post};
use linnet_proto::{account, callback, group, session};
use parking_lot::Mutex;
use tonic::{Request, Response, Status};

/// One unary method as a route.
fn unary<Q, R, F, Fut>(answer: F) -> MethodRouter
where
    Q: prost::Message + Default + 'static,
    R: prost::Message + Default + 'static,
    F: Fn(Q) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<R, Status>> + Send + 'static,
{
    post(move |request: axum::extract::Request| {
        let answer = answer.clone();
        async move {
            let service = tower::service_fn(move |request: Request<Q>| {
                let answer = answer(request.into_inner());
                async move { answer.await.map(Response::new) }
            });
            tonic::server::Grpc::new(tonic_prost::ProstCodec::<R, Q>::default()).unary(service, request).await
        }
    })
}

/// What the fakes know and have seen.
#[derive(Default)]
pub(crate) struct Outside {
    pub(crate) accounts: Mutex<HashSet<String>>,
    /// (owner, blocked).
    pub(crate) blocks: Mutex<HashSet<(String, String)>>,
    /// group id -> group.
    pub(crate) groups: Mutex<HashMap<String, FakeGroup>>,
    pub(crate) events: Mutex<Vec<callback::Event>>,
    pub(crate) posted: Mutex<Vec<callback::Event>>,
    pub(crate) asked: Mutex<Vec<callback::Event>>,
    pub(crate) decision: Mutex<callback::BeforeReply>,
    pub(crate) callbacks_down: Mutex<bool>,
    /// Whose before-webhook takes how long.
    pub(crate) slow_sender: Mutex<Option<(String, Duration)>>,
}

#[derive(Clone, Default)]
pub(crate) struct FakeGroup {
    pub(crate) conv: u64,
    pub(crate) kind: String,
    pub(crate) members: Vec<String>,
}

fn down() -> Status {
    Status::unavailable("down")
}

pub(crate) fn accounts(outside: &Arc<Outside>) -> Router {
    let outside = Arc::clone(outside);
    let check = move |ask: account::PairCheckRequest| {
        let outside = Arc::clone(&outside);
        async move {
            let accounts = outside.accounts.lock();
            Ok(account::PairCheckReply {
                from_exists: accounts.contains(&ask.from),
                to_exists: accounts.contains(&ask.to),
                blocked: outside.blocks.lock().contains(&(ask.to, ask.from)),
            })
        }
    };
    Router::new().route("/linnet.account.v1.Accounts/PairCheck", unary(check))
}

pub(crate) fn sessions() -> Router {
    let place = |ask: session::WhereRequest| async move {
        let places = ask.users.iter().map(|_| session::Places { gateways: vec!["gw".to_owned()], rev: 1 });
        Ok(session::WhereReply { places: places.collect() })
    };
    Router::new().route("/linnet.session.v1.Sessions/Where", unary(place))
}

pub(crate) fn groups(outside: &Arc<Outside>) -> Router {
    let (one, two) = (Arc::clone(outside), Arc::clone(outside));
    let authorize = move |ask: group::AuthorizeRequest| {
        let outside = Arc::clone(&one);
        async move {
            let groups = outside.groups.lock();
            let found = groups.get(&ask.group_id).filter(|group| group.members.contains(&ask.user));
            let group = found.ok_or_else(|| {
                let refusal = linnet_types::Refusal::new(linnet_types::code::GROUP_NO_RIGHT, "not a member");
                linnet_runtime::status::to_status(&refusal)
            })?;
            Ok(group::AuthorizeReply { conv: group.conv, r#type: group.kind.clone(), ..Default::default() })
        }
    };
    let joined = move |ask: group::JoinedRequest| {
        let outside = Arc::clone(&two);
        async move {
            let groups = outside.groups.lock();
            let mine = groups.iter().filter(|(_, group)| group.members.contains(&ask.user));
            let mine = mine.map(|(id, group)| group::JoinedGroup {
                group_id: id.clone(),
                conv: group.conv,
                r#type: group.kind.clone(),
                ..Default::default()
            });
            Ok(group::JoinedReply { groups: mine.collect(), ..Default::default() })
        }
    };
    Router::new()
        .route("/linnet.group.v1.Groups/Authorize", unary(authorize))
        .route("/linnet.group.v1.Groups/Joined", unary(joined))
}

pub(crate) fn callbacks(outside: &Arc<Outside>) -> Router {
    let (one, two, three) = (Arc::clone(outside), Arc::clone(outside), Arc::clone(outside));
    let before = move |ask: callback::BeforeRequest| {
        let outside = Arc::clone(&one);
        async move {
            let slow = outside.slow_sender.lock().clone();
            if let (Some((user, span)), Some(event)) = (slow, &ask.event)
                && String::from_utf8_lossy(&event.body).contains(&format!(r#""From_Account":"{user}""#))
            {
                tokio::time::sleep(span).await;
            }
            outside.asked.lock().extend(ask.event);
            Ok(callback::BeforeReply { asked: true, ..outside.decision.lock().clone() })
        }
    };
    let enqueue = move |ask: callback::EnqueueRequest| {
        let outside = Arc::clone(&two);
        async move {
            if *outside.callbacks_down.lock() {
                return Err(down());
            }
            if ask.events.iter().any(|event| String::from_utf8_lossy(&event.body).contains("poison")) {
                return Err(Status::internal("cannot take it"));
            }
            let mut events = outside.events.lock();
            for event in ask.events {
                // As the queue tells work apart.
                if events.iter().all(|known| (&known.id, known.time_ms) != (&event.id, event.time_ms)) {
                    events.push(event);
                }
            }
            Ok(callback::EnqueueReply {})
        }
    };
    let told = move |ask: callback::PostRequest| {
        let outside = Arc::clone(&three);
        async move {
            outside.posted.lock().extend(ask.events);
            Ok(callback::PostReply {})
        }
    };
    Router::new()
        .route("/linnet.callback.v1.Callbacks/Before", unary(before))
        .route("/linnet.callback.v1.Callbacks/Enqueue", unary(enqueue))
        .route("/linnet.callback.v1.Callbacks/Post", unary(told))
}
