//! What the tool asks of a running cluster: its tenant, its nodes, a probe message.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use linnet_types::SdkAppId;
use linnet_usersig::Claims;
use serde_json::{Value, json};

use super::state::{ADMIN, State};
use crate::http;

/// The people `linnet dev` begins with too.
const PEOPLE: [&str; 2] = ["alice", "bob"];

impl State {
    /// The operators' surface of the first REST process.
    fn operators(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let api = self.of_role("api").next().context("a cluster has an api")?;
        http::json(&api.node.address, method, &format!("/admin/v1/{path}"), &self.token, body)
    }

    /// The operators' surface of one process.
    pub(super) fn operate(&self, name: &str, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let member = self.services().find(|member| member.node.name == name);
        let member = member.with_context(|| format!("{name} is no service of this cluster"))?;
        http::json(&member.node.address, method, &format!("/admin/v1/{path}"), &self.token, body)
    }

    /// Waits until every service counts every other.
    pub(super) fn wait_for_ring(&self, patience: Duration) -> Result<()> {
        let end = Instant::now() + patience;
        let expected = self.services().count();
        loop {
            let short = self.services().find_map(|member| {
                let seen = self.operate(&member.node.name, "GET", "status", None);
                let seen = seen.map(|status| status["nodes"].as_array().map_or(0, Vec::len));
                match seen {
                    Ok(seen) if seen == expected => None,
                    Ok(seen) => Some(format!("{} counts {seen} of {expected} nodes", member.node.name)),
                    Err(why) => Some(format!("{why:#}")),
                }
            });
            match short {
                None => return Ok(()),
                Some(why) if Instant::now() > end => bail!("not every node is known after {patience:?}: {why}"),
                Some(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// Makes a tenant; gives its number and key. The number is one that no tenant before it had.
    pub(super) fn tenant(&self, name: &str) -> Result<(u32, String)> {
        let number: u32 = rand::random_range(1_500_000_000..2_000_000_000);
        let app = self.operators("POST", "apps", Some(&json!({ "name": name, "sdkappid": number })))?;
        let number = app["sdkappid"].as_u64().and_then(|number| u32::try_from(number).ok());
        let key = app["key"].as_str().map(str::to_owned);
        number.zip(key).with_context(|| format!("no tenant was made: {app}"))
    }

    /// Sends a message through all that a message goes through, of a tenant that is gone afterwards.
    pub(super) fn probe(&self) -> Result<()> {
        let (app, key) = self.tenant("probe")?;
        let rest = self.rest(app, &key);
        rest("im_open_login_svc/multiaccount_import", json!({ "Accounts": PEOPLE }))?;
        let text = json!([{ "MsgType": "TIMTextElem", "MsgContent": { "Text": "probe" } }]);
        rest(
            "openim/sendmsg",
            json!({ "From_Account": "alice", "To_Account": "bob", "MsgRandom": 1, "MsgBody": text }),
        )?;
        let group = json!({ "Type": "Public", "Name": "probe", "GroupId": "probe", "Owner_Account": "alice" });
        rest("group_open_http_svc/create_group", group)?;
        let said = json!({ "GroupId": "probe", "From_Account": "alice", "Random": 1, "MsgBody": text });
        rest("group_open_http_svc/send_group_msg", said)?;
        self.forget(app)
    }

    /// Deletes a tenant.
    pub(super) fn forget(&self, app: u32) -> Result<()> {
        self.operators("DELETE", &format!("apps/{app}"), None).map(drop)
    }

    /// Registers the sample people of the cluster's own tenant.
    pub(super) fn people(&self) -> Result<()> {
        self.rest(self.sdkappid, &self.key)("im_open_login_svc/multiaccount_import", json!({ "Accounts": PEOPLE }))
    }

    fn rest(&self, app: u32, key: &str) -> impl Fn(&str, Value) -> Result<()> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
        let claims =
            Claims { app: SdkAppId(app), identifier: ADMIN.to_owned(), time_s: now, expire_s: 600, userbuf: None };
        let sig = linnet_usersig::sign(&claims, key);
        let api = self.of_role("api").next().map(|api| api.node.address.clone()).unwrap_or_default();
        move |command, body| {
            let query = format!("sdkappid={app}&identifier={ADMIN}&usersig={sig}&random=1&contenttype=json");
            let reply = http::json(&api, "POST", &format!("/v4/{command}?{query}"), "", Some(&body))?;
            anyhow::ensure!(reply["ErrorCode"] == 0, "{command}: {reply}");
            Ok(())
        }
    }
}
