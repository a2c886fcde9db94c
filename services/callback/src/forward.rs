//! Events go to the node that owns their partition: it delivers them at once, in order, and needs no wake-up.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use futures::future::join_all;
use linnet_cluster::{Cluster, RouteKey, Rpc, Service as Role};
use linnet_proto::callback::callbacks_client::CallbacksClient;
use linnet_proto::callback::{EnqueueRequest, Event, PostRequest};
use linnet_runtime::status::with_deadline;
use linnet_store::queues;
use linnet_types::{NodeId, SdkAppId};
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::{Request, Status};

/// Marks what another node sent on, so that nodes whose rings disagree do not send it in circles.
const FORWARDED: &str = "linnet-forwarded";
/// Time the owner has. Callers give about 2.5 s, so what fails here can be stored here still.
const CALL: Duration = Duration::from_secs(1);

/// Whether the call comes from another node of this service.
pub(crate) fn is_forwarded(metadata: &MetadataMap) -> bool {
    metadata.contains_key(FORWARDED)
}

/// Stores events with their owners; answers those that are ours, or whose owner did not answer. The latter may be stored
/// twice, which is once.
pub(crate) async fn enqueue(cluster: &Cluster, events: Vec<Event>) -> Vec<Event> {
    send(cluster, events, |rpc, events| async move {
        CallbacksClient::new(rpc).enqueue(marked(EnqueueRequest { events })).await.map(drop)
    })
    .await
}

/// As [`enqueue`], for events that are not stored.
pub(crate) async fn post(cluster: &Cluster, events: Vec<Event>) -> Vec<Event> {
    send(cluster, events, |rpc, events| async move {
        CallbacksClient::new(rpc).post(marked(PostRequest { events })).await.map(drop)
    })
    .await
}

async fn send<F>(cluster: &Cluster, events: Vec<Event>, call: impl Fn(Rpc, Vec<Event>) -> F) -> Vec<Event>
where
    F: Future<Output = Result<(), Status>>,
{
    let (mut here, elsewhere) = split(cluster, events);
    let calls = elsewhere.into_iter().map(|(owner, events)| {
        let call = &call;
        async move {
            let Ok(rpc) = cluster.for_node(Role::Callback, &owner) else { return events };
            match call(rpc, events.clone()).await {
                Ok(()) => Vec::new(),
                Err(why) => {
                    tracing::debug!(%owner, code = ?why.code(), "the owner of webhook events did not take them");
                    events
                }
            }
        }
    });
    here.extend(join_all(calls).await.into_iter().flatten());
    here
}

/// What is ours, and what is whose.
fn split(cluster: &Cluster, events: Vec<Event>) -> (Vec<Event>, BTreeMap<NodeId, Vec<Event>>) {
    let (mut here, mut elsewhere) = (Vec::new(), BTreeMap::<_, Vec<_>>::new());
    for event in events {
        let partition = queues::partition_of(SdkAppId(event.app), &event.key);
        match cluster.owner_node(Role::Callback, RouteKey::slot(partition.into())) {
            Ok(owner) if owner != *cluster.me() => elsewhere.entry(owner).or_default().push(event),
            _ => here.push(event),
        }
    }
    (here, elsewhere)
}

fn marked<T>(message: T) -> Request<T> {
    let mut request = with_deadline(message, CALL);
    request.metadata_mut().insert(FORWARDED, MetadataValue::<Ascii>::from_static("1"));
    request
}
