//! Settings of the service.

use linnet_runtime::config::{Period, Problem};

linnet_runtime::config! {
    /// The group service.
    pub struct Config {
        /// Commands that may wait for one group. Higher: more memory under overload; lower: "busy" earlier.
        pub mailbox: usize = 1024, "commands", restart;
        /// Time without a command after which a group leaves memory. Higher: more memory; lower: more claims.
        pub idle: Period = Period::secs(300), "", restart;
        /// Longest time an append is settled before its senders are told to retry.
        pub settle: Period = Period::secs(3), "", restart;
        /// Groups a starting node takes over per second: their events are told, their derived rows finished.
        pub takeover_per_s: u32 = 200, "groups", restart;
    }
    check problems;
}

fn problems(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    if config.mailbox < 16 {
        problems.push(Problem::new("mailbox", "must be at least 16"));
    }
    if config.takeover_per_s == 0 {
        problems.push(Problem::new("takeover_per_s", "must be at least 1"));
    }
    problems
}
