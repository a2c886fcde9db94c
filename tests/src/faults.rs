//! A cluster under faults: load from many clients, a record of everything they were told, and what must hold afterwards.
//!
//! ```text
//! crowd: who is there          person: a client that reconnects and closes gaps, and what it showed
//! load: writers, paced         api: senders and readers over REST, /admin/v1
//!    +--> record: every send with its fate, every message shown, every webhook, the logs as stored --> check: the laws
//! ```
//!
//! A [`run::Lane`] lives on one cluster (or one `linnet dev`) and makes one run after another: everybody signs in, the
//! load begins, a fault strikes, all is well again, the load ends, and within 5 s everybody has everything.
#![allow(clippy::disallowed_methods, reason = "test support runs outside the product's runtime")]

pub mod api;
mod builds;
pub mod check;
pub mod crowd;
pub mod door;
pub mod fault;
pub mod ground;
pub mod load;
mod neighbours;
pub mod person;
pub mod random;
pub mod read;
pub mod record;
pub mod rows;
pub mod run;
pub mod stall;

/// Where a cluster is and how to sign for it.
#[derive(Clone, Debug)]
pub struct Place {
    /// REST surfaces, `http://host:port`.
    pub rest: Vec<String>,
    /// Gateways, `ws://host:port/ws`.
    pub ws: Vec<String>,
    /// SDKAppID.
    pub app: u32,
    /// The app's key.
    pub key: String,
    /// Its administrator.
    pub admin: String,
    /// Operator token of `/admin/v1`.
    pub operator: String,
}

impl Place {
    /// A UserSig of a day.
    #[must_use]
    pub fn sig(&self, user: &str) -> String {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
        let claims = linnet_usersig::Claims {
            app: linnet_types::SdkAppId(self.app),
            identifier: user.to_owned(),
            time_s: now,
            expire_s: 86_400,
            userbuf: None,
        };
        linnet_usersig::sign(&claims, &self.key)
    }
}
