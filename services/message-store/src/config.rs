//! Settings of the service.

use linnet_runtime::config::{ByteSize, Period, Problem};

linnet_runtime::config! {
    /// Conversation logs, one-to-one sending, lists and read positions.
    pub struct Config {
        /// Commands that may wait for one conversation. Higher: more memory under overload; lower: "busy" earlier.
        pub mailbox: usize = 1024, "commands", restart;
        /// Time without a command after which a conversation leaves memory. Higher: more memory; lower: more claims.
        pub idle: Period = Period::secs(60), "", restart;
        /// Time a caller waits for a one-to-one send before it is told to retry; the send itself goes on.
        pub send_timeout: Period = Period::secs(3), "", restart;
        /// Newest messages of an active conversation that stay in memory.
        pub tail_messages: usize = 64, "messages", restart;
        /// Bytes of them.
        pub tail_bytes: ByteSize = ByteSize::kib(128), "", restart;
        /// Open conversations a starting node takes over per second. Higher: more load at a start; lower: later webhooks.
        pub takeover_per_s: u32 = 2_000, "conversations", restart;
    }
    check problems;
}

fn problems(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut need = |ok: bool, key: &str, what: &str| {
        if !ok {
            problems.push(Problem::new(key, what));
        }
    };
    need(config.mailbox >= 16, "mailbox", "must be at least 16");
    need(!config.idle.is_zero(), "idle", "must be more than 0");
    need(!config.send_timeout.is_zero(), "send_timeout", "must be more than 0");
    need(config.tail_messages >= 1, "tail_messages", "must be at least 1");
    need(config.takeover_per_s >= 1, "takeover_per_s", "must be at least 1");
    problems
}
