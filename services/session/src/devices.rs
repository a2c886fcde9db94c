//! A device that signed out, or that a newer one pushed out, gets no offline pushes any more.

use std::time::Duration;

use linnet_cluster::{Cluster, Service};
use linnet_proto::push::RemoveDevicesRequest;
use linnet_proto::push::pushes_client::PushesClient;
use linnet_runtime::status;
use linnet_types::Platform;

use crate::directory::Session;

/// A sign-out does not wait longer for it.
const CALL: Duration = Duration::from_secs(1);
/// Another node may answer where one does not.
const TRIES: u32 = 2;

/// Tells the push service that these sessions are over for good.
pub(crate) async fn gone(cluster: &Cluster, sessions: &[Session]) {
    // Pages have no tokens.
    for session in sessions.iter().filter(|session| session.platform != Platform::Web) {
        let request = RemoveDevicesRequest {
            app: session.app.0,
            user: session.user.as_str().to_owned(),
            instances: vec![session.instance.clone()],
            ..RemoveDevicesRequest::default()
        };
        for left in (0..TRIES).rev() {
            // Where no node serves pushes, nothing was registered.
            let Ok(rpc) = cluster.any(Service::Push) else { break };
            match PushesClient::new(rpc).remove_devices(status::with_deadline(request.clone(), CALL)).await {
                Ok(_) => break,
                Err(why) if left == 0 => {
                    tracing::warn!(code = ?why.code(), "a device that signed out keeps its push token for now");
                }
                Err(_) => {}
            }
        }
    }
}
