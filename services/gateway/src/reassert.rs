//! The session service lost its records, or may have: this gateway says at once whom it has, not at its next turn.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use linnet_bus::{Bus, Event, subject};
use linnet_proto::session::SayAgain;
use prost::Message as _;

use crate::hub::Hub;

/// Gateways spread their answers over this long.
const SPREAD_MS: u64 = 1_500;
/// Losses remembered: each is told several times, because the bus may lose it.
const REMEMBERED: usize = 32;
/// A lost subscription is tried again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// Listens until the gateway ends.
pub(crate) async fn run(hub: Arc<Hub>, bus: Bus) {
    let mut acted_on = VecDeque::new();
    loop {
        if let Ok(mut losses) = bus.subscribe(subject::directory()).await {
            while let Some(event) = losses.recv().await {
                let loss = match event {
                    Event::Message { payload, .. } => SayAgain::decode(payload).unwrap_or_default().loss,
                    // What was missed may have been one.
                    Event::Lagged { .. } => String::new(),
                };
                if acted_on.contains(&loss) {
                    continue;
                }
                if !loss.is_empty() {
                    acted_on.push_back(loss);
                    if acted_on.len() > REMEMBERED {
                        acted_on.pop_front();
                    }
                }
                let wait = Duration::from_millis(hub.rng.below(SPREAD_MS));
                let again = Arc::clone(&hub);
                hub.tasks.spawn("gateway.reassert", async move {
                    tokio::time::sleep(wait).await;
                    again.refresh().await;
                });
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}
