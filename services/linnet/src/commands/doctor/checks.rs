//! The single checks. None of them changes anything but a scratch file, which it removes.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use linnet_runtime::Clock;
use linnet_runtime::config::Layers;
use rustix::fs::statvfs;
use rustix::process::{Resource, getrlimit};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;

use super::Finding;
use crate::commands::admin::Admin;
use crate::commands::text;
use crate::config::Config;
use crate::target::{Common, DevFile};

/// Clients and files of the store; a gateway needs one file a client.
const FILES_LOW: u64 = 1024;
const FILES_GOOD: u64 = 65_536;
const FREE_LOW: u64 = 256 << 20;
const FREE_GOOD: u64 = 2 << 30;
/// Writes of one fsync each; the middle of them is told.
const SYNCS: usize = 15;
const SYNC_SLOW: Duration = Duration::from_millis(20);
const SYNC_BAD: Duration = Duration::from_millis(200);
/// No disk is this fast.
const SYNC_FAKE: Duration = Duration::from_micros(15);
const SKEW_MS: u64 = 2_000;
/// 2026-01-01: no build of this program is older.
const BUILT_MS: u64 = 1_767_225_600_000;
const DEFAULT_PORT: &str = "127.0.0.1:8080";

pub(super) struct Checks {
    common: Common,
    config: Option<PathBuf>,
    file: Result<Option<DevFile>, String>,
}

impl Checks {
    pub(super) fn new(common: &Common, config: Option<PathBuf>) -> Self {
        let file = DevFile::load(&common.data).map_err(|why| format!("{why:#}"));
        Self { common: common.clone(), config, file }
    }

    pub(super) async fn all(&self) -> Vec<Finding> {
        let mut found = vec![files(), self.clock(), self.folder()];
        found.extend(self.free());
        found.push(self.fsync());
        found.extend(self.certificate());
        found.push(self.configuration());
        found.extend(self.server().await);
        found
    }

    fn known(&self) -> Option<&DevFile> {
        self.file.as_ref().ok().and_then(Option::as_ref)
    }

    /// Files of a store that were written in the future mean that the clock was set back.
    fn clock(&self) -> Finding {
        let now = Clock::system().now().0;
        if now < BUILT_MS {
            let fix = "set the clock, and keep it with chrony or systemd-timesyncd";
            return Finding::fail("clock", "it is before this program was built", fix);
        }
        let ahead = newest(&self.common.data, 3).unwrap_or(0).saturating_sub(now);
        if ahead > SKEW_MS {
            let seen = format!("files in {} are {} in the future", self.common.data.display(), text::span(ahead));
            return Finding::fail("clock", seen, "the clock was set back; correct it, and keep it with chrony");
        }
        Finding::ok("clock", format!("{} UTC, nothing in the data folder is later", text::clock(now)))
    }

    fn folder(&self) -> Finding {
        let data = &self.common.data;
        let shown = data.display();
        if let Err(why) = &self.file {
            return Finding::fail("data folder", why.clone(), "delete dev.toml to get a new key, or restore it");
        }
        match fs::metadata(data) {
            Err(why) if why.kind() == ErrorKind::NotFound => {
                return Finding::ok("data folder", format!("{shown} is not there yet; `linnet dev` makes it"));
            }
            Err(why) => {
                return Finding::fail("data folder", format!("{shown}: {why}"), "give this user the right to read it");
            }
            Ok(found) if !found.is_dir() => {
                return Finding::fail("data folder", format!("{shown} is no folder"), "name another with --data");
            }
            Ok(_) => {}
        }
        if let Err(why) = scratch(data).map(|(path, _)| fs::remove_file(path)) {
            let fix = "give this user the right to write there, or name another folder with --data";
            return Finding::fail("data folder", format!("{shown} cannot be written: {why}"), fix);
        }
        let secret = DevFile::path(data);
        let mode = fs::metadata(&secret).map_or(0, |found| found.permissions().mode() & 0o077);
        if mode != 0 {
            let seen = format!("{} holds the key and others may read it", secret.display());
            return Finding::fail("data folder", seen, format!("chmod 600 {}", secret.display()));
        }
        Finding::ok("data folder", format!("{shown} can be read and written"))
    }

    fn free(&self) -> Option<Finding> {
        let disk = statvfs(nearest(&self.common.data)).ok()?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let seen = format!("{} free", size(free));
        let fix = "free some space, or move the data folder: below the reserve writes are refused";
        Some(match free {
            0..FREE_LOW => Finding::fail("disk", seen, fix),
            FREE_LOW..FREE_GOOD => Finding::warn("disk", seen, fix),
            _ => Finding::ok("disk", seen),
        })
    }

    /// An acknowledgement waits for one fsync.
    fn fsync(&self) -> Finding {
        let folder = nearest(&self.common.data);
        let (path, mut file) = match scratch(folder) {
            Ok(made) => made,
            Err(why) => {
                let fix = "name a folder that can be written with --data";
                return Finding::fail("fsync", format!("{}: {why}", folder.display()), fix);
            }
        };
        let clock = Clock::system();
        let mut took = Vec::with_capacity(SYNCS);
        for _ in 0..SYNCS {
            let begun = clock.mono();
            if let Err(why) = file.write_all(&[7; 4096]).and_then(|()| file.sync_data()) {
                let _ = fs::remove_file(path);
                return Finding::fail("fsync", why.to_string(), "this disk fails; replace it");
            }
            took.push(clock.mono().saturating_sub(begun));
        }
        let _ = fs::remove_file(path);
        took.sort_unstable();
        let (middle, worst) = (took[SYNCS / 2], took[SYNCS - 1]);
        let seen = format!("{:.2} ms, at worst {:.2} ms", ms(middle), ms(worst));
        match middle {
            fast if fast < SYNC_FAKE => {
                let fix = "this folder is in memory (tmpfs); a power cut loses it. Fine for trying out";
                Finding::warn("fsync", format!("{seen}: no disk is so fast"), fix)
            }
            slow if slow > SYNC_BAD => Finding::fail("fsync", seen, "each message waits this long; use a faster disk"),
            slow if slow > SYNC_SLOW => {
                Finding::warn("fsync", seen, "each message waits this long; an SSD takes 1 to 5 ms")
            }
            _ => Finding::ok("fsync", seen),
        }
    }

    fn certificate(&self) -> Option<Finding> {
        let ca = self.known()?.ca.as_ref()?;
        let fix =
            "start `linnet dev --tls` again; delete the folder's tls/ to make a new CA (clients must then trust that)";
        let found = CertificateDer::pem_file_iter(ca).map_err(|why| why.to_string());
        let count = found.map(|certificates| certificates.filter(Result::is_ok).count());
        Some(match count {
            Ok(0) => Finding::fail("TLS CA", format!("{} holds no certificate", ca.display()), fix),
            Ok(_) => Finding::ok("TLS CA", format!("clients trust {}", ca.display())),
            Err(why) => Finding::fail("TLS CA", format!("{}: {why}", ca.display()), fix),
        })
    }

    fn configuration(&self) -> Finding {
        let layers = self.config.iter().fold(Layers::new(), |layers, file| layers.file(file));
        match layers.env(std::env::vars()).load::<Config>() {
            Ok(_) => {
                let file = self.config.as_ref().map_or_else(String::new, |file| format!("{} and ", file.display()));
                Finding::ok("config", format!("{file}LINNET_… variables are valid"))
            }
            Err(problems) => {
                let problems: Vec<_> = problems.0.iter().map(ToString::to_string).collect();
                Finding::fail("config", problems.join("; "), "`linnet config docs` is the reference")
            }
        }
    }

    /// The server if there is one, else the port it would take.
    async fn server(&self) -> Vec<Finding> {
        let Ok(target) = self.common.target() else { return vec![port(DEFAULT_PORT)] };
        let status = match Admin::new(&target) {
            Ok(admin) => admin.get::<Value>(&["status"], &[]).await,
            Err(why) => Err(why),
        };
        match status {
            Ok(status) => running(&target.rest, &status),
            // A folder whose server is stopped: only its port can be in the way.
            Err(why) if self.common.server.is_none() && unreachable(&why) => {
                let address = target.rest.rsplit('/').next().unwrap_or(DEFAULT_PORT);
                vec![Finding::ok("server", format!("{} does not run", target.rest)), port(address)]
            }
            Err(why) => {
                let seen = why.to_string().replace('\n', ";");
                vec![Finding::fail("server", seen, "start it, or correct --server, --token and --data")]
            }
        }
    }
}

fn unreachable(why: &anyhow::Error) -> bool {
    why.downcast_ref::<crate::output::Failure>().is_some_and(|f| f.exit == crate::output::Exit::Unreachable)
}

fn files() -> Finding {
    let limit = getrlimit(Resource::Nofile);
    let (soft, hard) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    let seen = format!("{} at once (hard limit {})", text::number(soft), text::number(hard));
    let fix = "ulimit -n 1048576 before the start, or LimitNOFILE=1048576 in the unit; a client takes one";
    match soft {
        0..FILES_LOW => Finding::fail("open files", seen, fix),
        FILES_LOW..FILES_GOOD => Finding::warn("open files", seen, fix),
        _ => Finding::ok("open files", seen),
    }
}

fn port(address: &str) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok("port", format!("{address} is free")),
        Err(why) => {
            let fix = "stop what listens there (ss -ltnp), or take another: linnet dev --listen 127.0.0.1:0";
            Finding::fail("port", format!("{address}: {why}"), fix)
        }
    }
}

/// What a running server says of itself.
fn running(server: &str, status: &Value) -> Vec<Finding> {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let version = status["version"].as_str().unwrap_or("?");
    let up = text::span(number(&status["uptime_s"]) * 1000);
    let mut found = vec![if version == env!("CARGO_PKG_VERSION") {
        Finding::ok("server", format!("{server} runs {version} for {up}"))
    } else {
        let seen = format!("{server} runs {version}, this program is {}", env!("CARGO_PKG_VERSION"));
        Finding::warn("server", seen, "use the program of the server's version")
    }];
    if let Some(recovered) = status["recovered"].as_object() {
        let open = recovered.iter().filter(|(_, count)| number(count) > 0);
        let open: Vec<_> = open.map(|(what, count)| format!("{} {}", number(count), what.replace('_', " "))).collect();
        found.push(if open.is_empty() {
            Finding::ok("recovered", "the process before left nothing open")
        } else {
            Finding::ok("recovered", format!("taken up after the process before: {}", open.join(", ")))
        });
    }
    let unaccounted = number(&status["unaccounted"]);
    found.push(if unaccounted == 0 {
        Finding::ok("accounting", "every message is accounted for")
    } else {
        let seen = format!("{unaccounted} messages are unaccounted for");
        Finding::warn("accounting", seen, "`linnet status` shows the stage; on its way is not lost, look twice")
    });
    let webhooks = &status["webhooks"];
    let (queued, dead) = (number(&webhooks["queued"]), number(&webhooks["dead"]));
    let seen = format!("{queued} waiting, {dead} failed");
    found.push(if dead == 0 {
        Finding::ok("webhooks", seen)
    } else {
        Finding::warn("webhooks", seen, "`linnet webhooks failed` says why; then `linnet webhooks replay --all`")
    });
    found
}

/// Latest change below `folder`, in Unix milliseconds; a few levels are enough for a store.
fn newest(folder: &Path, depth: u32) -> Option<u64> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let times = entries.filter_map(|entry| {
        let meta = entry.metadata().ok()?;
        let below = if meta.is_dir() && depth > 0 { newest(&entry.path(), depth - 1) } else { None };
        let own = meta.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_millis();
        below.max(u64::try_from(own).ok())
    });
    times.max()
}

/// The folder itself, or the one it would be made in.
fn nearest(folder: &Path) -> &Path {
    let real = folder.ancestors().find(|path| path.is_dir());
    real.filter(|path| !path.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn scratch(folder: &Path) -> std::io::Result<(PathBuf, File)> {
    let path = folder.join(format!(".linnet-doctor-{}", std::process::id()));
    let file = File::options().write(true).create_new(true).open(&path)?;
    Ok((path, file))
}

fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

fn size(bytes: u64) -> String {
    match bytes >> 20 {
        mib @ 0..10_240 => format!("{} MiB", text::number(mib)),
        mib => format!("{} GiB", text::number(mib >> 10)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commands::doctor::Verdict;

    #[test]
    fn a_taken_port_fails_with_what_to_do() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let found = port(&address);
        assert_eq!(found.verdict, Verdict::Fail);
        assert!(found.seen.contains(&address) && !found.fix.is_empty());
        drop(taken);
        assert_eq!(port(&address).verdict, Verdict::Ok);
    }

    #[test]
    fn a_file_of_the_future_betrays_the_clock() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("x")).unwrap();
        let later = UNIX_EPOCH + Duration::from_millis(Clock::system().now().0) + Duration::from_secs(3600);
        file.set_modified(later).unwrap();
        let ahead = newest(folder.path(), 1).unwrap() - Clock::system().now().0;
        assert!(ahead > 3_500_000, "{ahead}");
    }

    #[test]
    fn a_running_server_reports_dead_webhooks_and_recovery() {
        let status = json!({
            "version": env!("CARGO_PKG_VERSION"), "uptime_s": 90, "unaccounted": 0,
            "recovered": { "conversations": 12, "groups": 0 }, "webhooks": { "queued": 1, "dead": 3 },
        });
        let found = running("http://x", &status);
        assert!(found.iter().any(|f| f.name == "recovered" && f.seen.ends_with(": 12 conversations")));
        assert!(found.iter().any(|f| f.name == "webhooks" && f.verdict == Verdict::Warn));
    }
}
