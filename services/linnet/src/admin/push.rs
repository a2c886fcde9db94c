//! Pushes that no provider took.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use linnet_cluster::Service;
use linnet_proto::push::{self, pushes_client::PushesClient};
use linnet_runtime::status;
use linnet_types::Refusal;
use serde_json::json;

use super::{Admin, Again, Answer, CALL, Page, Shared};

pub(super) fn router() -> Router<Arc<Admin>> {
    Router::new()
        .route("/admin/v1/push/{app}/failed", get(failed))
        .route("/admin/v1/push/{app}/replay", post(replay))
        .route("/admin/v1/push/{app}", get(stats))
}

fn pushes(admin: &Admin) -> Result<PushesClient<linnet_cluster::Rpc>, Refusal> {
    Ok(PushesClient::new(admin.cluster.any(Service::Push)?))
}

async fn failed(State(admin): Shared, Path(app): Path<u32>, Query(page): Query<Page>) -> Answer {
    let request = push::FailedRequest { app, after: page.after, limit: page.limit };
    let reply = pushes(&admin)?.failed(status::with_deadline(request, CALL)).await?.into_inner();
    let letters = reply.letters.into_iter().map(|letter| {
        json!({
            "id": letter.id, "request_id": letter.request_id, "receivers": letter.receivers, "reason": letter.reason,
            "attempts": letter.attempts, "failed_ms": letter.failed_ms,
        })
    });
    Ok(Json(json!({ "letters": letters.collect::<Vec<_>>(), "more": reply.more, "total": reply.total })))
}

async fn replay(State(admin): Shared, Path(app): Path<u32>, Json(again): Json<Again>) -> Answer {
    let request = push::ReplayRequest { app, ids: again.ids, all: again.all };
    let reply = pushes(&admin)?.replay(status::with_deadline(request, CALL)).await?.into_inner();
    Ok(Json(json!({ "replayed": reply.replayed })))
}

async fn stats(State(admin): Shared, Path(app): Path<u32>) -> Answer {
    let reply = pushes(&admin)?.stats(status::with_deadline(push::StatsRequest { app }, CALL)).await?.into_inner();
    Ok(Json(json!({
        "planning": reply.planning, "sending": reply.sending, "oldest_ms": reply.oldest_ms, "dead": reply.dead,
    })))
}
