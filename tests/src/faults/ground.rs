//! The cluster a lane stands on, and what its operator looks at.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use linnet_local::{Cluster, Options};
use serde_json::Value;

use super::Place;

/// Until every node is known to every other again.
const WHOLE: Duration = Duration::from_secs(90);

/// A cluster of real processes.
pub struct Ground {
    /// To break it.
    pub cluster: Cluster,
    /// To reach it.
    pub place: Place,
    /// Every process by role.
    names: BTreeMap<String, Vec<String>>,
}

impl Ground {
    /// Brings a cluster up; it ends with this process.
    ///
    /// # Errors
    /// With what did not start.
    pub async fn up(options: Options) -> Result<Self> {
        Self::of(Cluster::up(options).await?)
    }

    /// A cluster that is up.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn of(cluster: Cluster) -> Result<Self> {
        // Installed once; a second call finds it there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let status = cluster.status()?;
        let texts = |name: &str| -> Vec<String> {
            status[name].as_array().into_iter().flatten().filter_map(|t| t.as_str().map(str::to_owned)).collect()
        };
        let text = |name: &str| status[name].as_str().unwrap_or_default().to_owned();
        let app = status["sdkappid"].as_u64().and_then(|app| u32::try_from(app).ok()).context("a tenant")?;
        let place = Place {
            rest: texts("rest"),
            ws: texts("ws"),
            app,
            key: text("key"),
            admin: text("admin"),
            operator: text("token"),
        };
        let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for process in status["processes"].as_array().context("processes")? {
            let (Some(role), Some(name)) = (process["role"].as_str(), process["name"].as_str()) else { continue };
            names.entry(role.to_owned()).or_default().push(name.to_owned());
        }
        Ok(Self { cluster, place, names })
    }

    /// The processes of a role.
    ///
    /// # Panics
    /// When the cluster has none.
    #[must_use]
    pub fn of_role(&self, role: &str) -> &[String] {
        self.names.get(role).unwrap_or_else(|| panic!("no {role} in this cluster"))
    }

    /// Every service, by name.
    #[must_use]
    pub fn services(&self) -> Vec<String> {
        let servers = ["nats", "redis", "cql", "relay"];
        let services = self.names.iter().filter(|(role, _)| !servers.contains(&role.as_str()));
        services.flat_map(|(_, names)| names.clone()).collect()
    }

    /// Waits until every service counts every other.
    ///
    /// # Errors
    /// When one does not within 90 s.
    pub async fn whole(&self) -> Result<()> {
        let (services, end) = (self.services(), Instant::now() + WHOLE);
        let counted = services.len();
        for name in &services {
            loop {
                let short = match self.metric(name, "linnet_members_live").await {
                    // A gauge of whole numbers.
                    Ok(live) if (live - counted as f64).abs() < 0.5 => break,
                    Ok(live) => format!("counts {live} of {counted}"),
                    Err(why) => format!("{why:#}"),
                };
                if Instant::now() > end {
                    bail!("{name} {short} after {WHOLE:?}");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    /// Mends everything: links, pauses, losses, processes that are gone.
    ///
    /// # Errors
    /// When something cannot be mended.
    pub async fn mend(&self) -> Result<()> {
        self.cluster.heal("*", "*").await?;
        self.cluster.delay("*", "*", 0).await?;
        let status = self.cluster.status()?;
        // Servers come before services, as they were started.
        for process in status["processes"].as_array().context("processes")? {
            let name = process["name"].as_str().unwrap_or_default();
            match process["state"].as_str() {
                Some("paused") => self.cluster.resume(name).await?,
                Some("dead") => self.cluster.start(name).await?,
                _ => {}
            }
        }
        for name in self.services() {
            self.cluster.loss(&name, 0).await?;
        }
        self.whole().await
    }

    /// Processes that are not running, and panics in the logs of the services.
    ///
    /// # Errors
    /// When the state or a log cannot be read.
    pub fn hurt(&self) -> Result<Vec<String>> {
        let status = self.cluster.status()?;
        let mut hurt = Vec::new();
        for process in status["processes"].as_array().context("processes")? {
            let (name, state) = (&process["name"], &process["state"]);
            if state != "running" {
                hurt.push(format!("{name} is {state}"));
            }
            let log = process["log"].as_str().map(std::fs::read_to_string);
            let panics = log.and_then(Result::ok).unwrap_or_default();
            hurt.extend(
                panics.lines().filter(|line| line.contains(" panicked at ")).map(|line| format!("{name}: {line}")),
            );
        }
        Ok(hurt)
    }

    /// One number of the `/metrics` of a service, summed over its labels.
    ///
    /// # Errors
    /// When the service does not answer.
    pub async fn metric(&self, name: &str, metric: &str) -> Result<f64> {
        let status = self.cluster.status()?;
        let processes = status["processes"].as_array().context("processes")?;
        let url = processes.iter().find(|p| p["name"] == name).and_then(|p: &Value| p["metrics"].as_str());
        sum(url.with_context(|| format!("no metrics of {name}"))?, metric).await
    }
}

/// One number of a `/metrics` page, summed over its labels.
pub(crate) async fn sum(url: &str, metric: &str) -> Result<f64> {
    let text = reqwest::get(url).await?.text().await?;
    let value = |line: &str| {
        let rest = line.strip_prefix(metric)?;
        if !rest.starts_with([' ', '{']) {
            return None;
        }
        rest.rsplit(' ').next()?.parse::<f64>().ok()
    };
    Ok(text.lines().filter_map(value).sum())
}
