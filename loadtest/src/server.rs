//! The server under load: the product binary beside this one, in a folder that goes with it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use linnet_runtime::Clock;
use linnet_types::SdkAppId;
use linnet_usersig::Claims;
use serde::Deserialize;
use tempfile::TempDir;

#[derive(Deserialize)]
struct Ready {
    ws: String,
    sdkappid: u32,
    key: String,
}

/// A `linnet dev` of its own; ended and removed when dropped.
pub(crate) struct Server {
    ready: Ready,
    child: Child,
    _folder: TempDir,
}

impl Server {
    /// Starts the binary beside this one.
    pub(crate) async fn start() -> Result<Self> {
        let binary = std::env::current_exe()?.with_file_name("linnet");
        if !binary.exists() {
            bail!("{} is not there: cargo build --release -p linnet", binary.display());
        }
        let folder = tempfile::tempdir()?;
        let out: PathBuf = folder.path().join("ready");
        let mut command = Command::new(binary);
        command.args(["dev", "--json", "--seed", "empty", "--listen", "127.0.0.1:0", "--data"]);
        command.arg(folder.path().join("data")).stdin(Stdio::null()).stdout(std::fs::File::create(&out)?);
        let mut child = command.spawn()?;
        for _ in 0..3000 {
            let text = std::fs::read_to_string(&out)?;
            if text.ends_with('\n') {
                return Ok(Self { ready: serde_json::from_str(&text)?, child, _folder: folder });
            }
            if child.try_wait()?.is_some() {
                bail!("the server ended before it was ready");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let _ = child.kill();
        bail!("the server was not ready within 30 s")
    }

    pub(crate) fn ws(&self) -> &str {
        &self.ready.ws
    }

    pub(crate) fn app(&self) -> u32 {
        self.ready.sdkappid
    }

    pub(crate) fn sig(&self, user: &str) -> String {
        let claims = Claims {
            app: SdkAppId(self.ready.sdkappid),
            identifier: user.to_owned(),
            time_s: Clock::system().now().secs(),
            expire_s: 86_400,
            userbuf: None,
        };
        linnet_usersig::sign(&claims, &self.ready.key)
    }

    /// CPU time the server has used, user and system, from the operating system.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().context("a stat line")?.split_whitespace().collect();
        let ticks: u64 =
            fields.get(11).context("utime")?.parse::<u64>()? + fields.get(12).context("stime")?.parse::<u64>()?;
        // Linux counts in hundredths of a second wherever it runs today.
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Resident memory in bytes.
    pub(crate) fn memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
        Ok(line.split_whitespace().nth(1).context("a figure")?.parse::<u64>()? * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
