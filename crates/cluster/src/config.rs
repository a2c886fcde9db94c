//! Settings of calls between services.

use linnet_runtime::config::{Period, Problem};

linnet_runtime::config! {
    /// Calls between services.
    pub struct RpcConfig {
        /// Calls one service of one node works on at a time; more are refused with a retryable code. Higher costs memory
        /// under overload, lower refuses sooner.
        pub concurrency: usize = 4096, "calls", restart;
        /// Deadline of a call whose caller names none.
        pub default_timeout: Period = Period::secs(3), "", restart;
        /// Wait told to a caller whose call was refused for load.
        pub shed_retry: Period = Period::ms(200), "", restart;
    }
    check problems;
}

fn problems(config: &RpcConfig) -> Vec<Problem> {
    let mut problems = Vec::new();
    if config.concurrency == 0 {
        problems.push(Problem::new("concurrency", "must be at least 1"));
    }
    if config.default_timeout.is_zero() {
        problems.push(Problem::new("default_timeout", "must be more than 0"));
    }
    problems
}
