//! Settings of membership.

use linnet_runtime::config::{Period, Problem};

linnet_runtime::config! {
    /// How nodes know of each other. The same in all nodes of a cluster.
    pub struct HeartbeatConfig {
        /// Time between two signs of life.
        pub period: Period = Period::secs(1), "", restart;
        /// A node that was not heard for this long is dead to whoever did not hear it. Lower moves what it owned sooner, and
        /// takes a busy moment for a death.
        pub dead_after: Period = Period::secs(8), "", restart;
        /// A new node attracts nothing for this long, while others are older.
        pub settle: Period = Period::secs(10), "", restart;
        /// When over half of the nodes fall silent at once, nobody is dead for this long: that is usually the bus.
        pub freeze: Period = Period::secs(30), "", restart;
    }
    check problems;
}

fn problems(config: &HeartbeatConfig) -> Vec<Problem> {
    let mut problems = Vec::new();
    if config.period.is_zero() {
        problems.push(Problem::new("period", "must be more than 0"));
    }
    if config.dead_after.get() < config.period.get() * 5 {
        problems.push(Problem::new("dead_after", "must be at least five periods: one or two beats are lost every day"));
    }
    problems
}
