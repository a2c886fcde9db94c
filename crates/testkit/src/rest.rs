//! The REST surface as a backend uses it.

use linnet_types::SdkAppId;
use serde_json::Value;

/// One caller.
#[derive(Clone)]
pub struct Rest {
    client: reqwest::Client,
    base: String,
    query: String,
}

impl Rest {
    pub(crate) fn new(base: &str, app: SdkAppId, identifier: &str, sig: &str) -> Self {
        // Installed once; a second call finds it there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let query = format!("sdkappid={app}&identifier={identifier}&usersig={sig}&random=1&contenttype=json");
        Self { client: reqwest::Client::new(), base: base.to_owned(), query }
    }

    /// The query string, for requests made by hand.
    #[must_use]
    pub fn query(&self) -> &str {
        &self.query
    }

    /// Calls `SERVICE/COMMAND` and gives the reply, whatever it says.
    ///
    /// # Panics
    /// When there is no reply, or it is not JSON.
    pub async fn call(&self, command: &str, body: Value) -> Value {
        self.try_call(command, body).await.unwrap_or_else(|error| panic!("{command}: {error:#}"))
    }

    /// Calls `SERVICE/COMMAND`; an error means that no JSON came back.
    ///
    /// # Errors
    /// Transport failures.
    pub async fn try_call(&self, command: &str, body: Value) -> anyhow::Result<Value> {
        let url = format!("{}/v4/{command}?{}", self.base, self.query);
        let reply = self.client.post(url).body(body.to_string()).send().await?;
        anyhow::ensure!(reply.status() == 200, "HTTP {}", reply.status());
        Ok(serde_json::from_slice(&reply.bytes().await?)?)
    }

    /// Calls and insists on success.
    ///
    /// # Panics
    /// When the reply is not `OK`.
    pub async fn ok(&self, command: &str, body: Value) -> Value {
        let reply = self.call(command, body.clone()).await;
        assert_eq!(reply["ErrorCode"], 0, "{command} {body}: {reply}");
        reply
    }

    /// Calls and gives the error code.
    ///
    /// # Panics
    /// When there is none.
    pub async fn code(&self, command: &str, body: Value) -> u64 {
        let reply = self.call(command, body).await;
        reply["ErrorCode"].as_u64().unwrap_or_else(|| panic!("{command}: no ErrorCode in {reply}"))
    }

    /// Registers users.
    pub async fn import(&self, users: &[&str]) {
        self.ok("im_open_login_svc/multiaccount_import", serde_json::json!({ "Accounts": users })).await;
    }
}
