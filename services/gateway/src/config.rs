//! What an operator can set.

use linnet_runtime::config::{ByteSize, Period, Problem};

linnet_runtime::config! {
    /// The gateway: client sockets.
    pub struct Config {
        /// Shards; each is one task that owns its connections. 0 = one per core.
        pub shards: u32 = 0, "shards", restart;
        /// Time between WebSocket pings; a client silent for twice as long is dropped. Proxies often cut at 60 s.
        pub ping: Period = Period::secs(25), "", restart;
        /// Time a new connection has to sign in.
        pub sign_in_deadline: Period = Period::secs(10), "", restart;
        /// Largest frame from a client. Must hold the largest message body of any app.
        pub frame_bytes: ByteSize = ByteSize::kib(128), "", restart;
        /// Frames a second from one connection; above it they are refused.
        pub frames_per_s: u32 = 200, "frames/s", restart;
        /// Frames a connection may send at once after a quiet spell.
        pub frames_burst: u32 = 400, "frames", restart;
        /// Frames waiting for one connection before it is squeezed.
        pub queue_frames: u32 = 64, "frames", restart;
        /// Bytes waiting for one connection before it is squeezed.
        pub queue_bytes: ByteSize = ByteSize::kib(256), "", restart;
        /// A connection whose queue stays full this long is closed.
        pub overflow_deadline: Period = Period::secs(10), "", restart;
        /// Sign-ins a second; above it clients are told when to come back.
        pub sign_ins_per_s: u32 = 4_000, "sign-ins/s", restart;
        /// Most connections; above it upgrades are refused with 503.
        pub max_connections: u32 = 1_000_000, "connections", restart;
        /// Requests of one connection in progress at once, sends apart; its socket is not read above it.
        pub requests_per_connection: u32 = 32, "requests", restart;
        /// Sends of one connection in progress at once; its socket is not read above it.
        pub sends_per_connection: u32 = 256, "sends", restart;
        /// Time a call to another service may take.
        pub call_timeout: Period = Period::secs(8), "", restart;
        /// How long a message waits for an owner that takes it, sent again with the same token while its conversation moves.
        /// A dead owner is noticed after 8 s.
        pub send_patience: Period = Period::secs(12), "", restart;
        /// Read positions of groups are stored this long after they were told, the last one only.
        pub read_delay: Period = Period::secs(3), "", restart;
        /// How long a connection that was lost can be taken up again.
        pub resume: Period = Period::secs(120), "", restart;
        /// Connections are re-asserted to the session service this often; those it does not know any more are closed.
        pub refresh: Period = Period::secs(30), "", restart;
        /// Joins and leaves of live rooms go to the owner this often.
        pub live_tick: Period = Period::ms(500), "", restart;
    }
    check problems;
}

fn problems(config: &Config) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut check = |bad: bool, key: &str, what: &str| {
        if bad {
            found.push(Problem::new(key, what));
        }
    };
    check(config.shards > 1024, "shards", "must be at most 1024");
    let ping_s = config.ping.get().as_secs();
    check(!(1..=30).contains(&ping_s), "ping", "must be between 1s and 30s");
    check(config.refresh.get().is_zero(), "refresh", "must be more than nothing");
    check(config.frame_bytes.bytes() < 16 << 10, "frame_bytes", "must be at least 16KiB");
    check(config.frames_per_s == 0 || config.frames_burst == 0, "frames_per_s", "must be at least 1");
    check(config.queue_frames < 4, "queue_frames", "must be at least 4");
    check(config.queue_bytes.bytes() < 16 << 10, "queue_bytes", "must be at least 16KiB");
    check(config.sign_ins_per_s == 0, "sign_ins_per_s", "must be at least 1");
    check(config.requests_per_connection == 0, "requests_per_connection", "must be at least 1");
    check(config.sends_per_connection == 0, "sends_per_connection", "must be at least 1");
    found
}
