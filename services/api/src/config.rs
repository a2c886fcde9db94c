//! What an operator can set for this service.

use linnet_runtime::config::{ByteSize, Period, Problem};

linnet_runtime::config! {
    /// The public REST surface.
    pub struct Config {
        /// Largest request body; over it 60008. Higher lets one call hold more memory.
        pub body_limit: ByteSize = ByteSize::mib(1), "", restart;
        /// Time a caller has to send the body; over it 60008.
        pub body_timeout: Period = Period::secs(10), "", restart;
        /// Time a command may take, retries of inner calls included.
        pub deadline: Period = Period::ms(3_000), "", restart;
        /// Calls served at once; over it 60018.
        pub max_inflight: u32 = 4_096, "calls", restart;
        /// Failed UserSigs of one caller within a minute after which he waits a minute (70050); 0 = never.
        pub auth_failures: u32 = 20, "failures", restart;
        /// Believe `X-Forwarded-For`: only behind a proxy that sets it.
        pub trust_forwarded: bool = false, "", restart;
    }
    check problems;
}

fn problems(config: &Config) -> Vec<Problem> {
    let mut found = Vec::new();
    if config.max_inflight == 0 {
        found.push(Problem::new("max_inflight", "must be at least 1"));
    }
    if config.deadline.get().is_zero() {
        found.push(Problem::new("deadline", "must be longer than nothing"));
    }
    found
}
