//! Settings of the service.

use serde::{Deserialize, Serialize};

/// `[message_store]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Commands that may wait for one conversation. Default 1,024. Higher: more memory under overload; lower: "busy" earlier.
    pub mailbox: usize,
    /// Milliseconds without a command after which a conversation leaves memory. Default 60,000.
    pub idle_ms: u64,
    /// Milliseconds a caller waits for a send before it is told to retry. Default 3,000.
    pub send_timeout_ms: u64,
    /// Newest messages kept in memory per active conversation. Default 64.
    pub tail_messages: usize,
    /// Bytes of them. Default 131,072.
    pub tail_bytes: usize,
    /// Conversations a starting node takes over per second. Default 2,000.
    pub takeover_per_s: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mailbox: 1024,
            idle_ms: 60_000,
            send_timeout_ms: 3_000,
            tail_messages: 64,
            tail_bytes: 128 * 1024,
            takeover_per_s: 2_000,
        }
    }
}

impl Config {
    /// Every problem at once, each naming its key.
    ///
    /// # Errors
    /// The list, if there is one.
    pub fn validate(&self) -> std::result::Result<(), Vec<String>> {
        let mut problems = Vec::new();
        let mut need = |ok: bool, text: &str| {
            if !ok {
                problems.push(format!("message_store.{text}"));
            }
        };
        need(self.mailbox >= 16, "mailbox must be at least 16");
        need(self.idle_ms >= 100, "idle_ms must be at least 100");
        need((100..=60_000).contains(&self.send_timeout_ms), "send_timeout_ms must be 100 to 60000");
        need(self.tail_messages >= 1, "tail_messages must be at least 1");
        need(self.takeover_per_s >= 1, "takeover_per_s must be at least 1");
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}
