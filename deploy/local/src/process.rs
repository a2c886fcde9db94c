//! Starting, signalling and ending processes: only those we started, and never one that got their id later.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// Starts `$@` with its output in `$0`, says its id, and ends it when standard input ends, which it does when its holder
/// dies in whatever way; told to keep it, leaves.
const GUARDED: &str = r#""$@" >>"$0" 2>&1 </dev/null & pid=$!; echo $pid; exec >/dev/null 2>&1
read -r end; [ "$end" = keep ] && exit; kill -KILL $pid; wait $pid"#;

/// Removes the folder `$0` when its holder is gone; what runs in it may still be writing.
const SWEEP: &str = r#"read -r end; [ "$end" = keep ] && exit; for i in 1 2 3 4 5 6 7 8 9 10; do rm -rf "$0" && break; sleep 0.3; done"#;

/// How to start one program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Launch {
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables it gets beside ours.
    pub env: Vec<(String, String)>,
    /// The file its output is appended to.
    pub log: PathBuf,
}

/// A process we started. Its id alone is not enough: ids are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// When the kernel started it, in ticks since boot.
    pub started: u64,
}

/// Ends its process when dropped, or when this process dies.
#[derive(Debug)]
pub struct Guard {
    shell: Child,
}

impl Launch {
    /// Starts it so that it ends with us, also when we are killed, unless it is released.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn guarded(&self) -> Result<(Process, Guard)> {
        if let Some(folder) = self.log.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut command = Command::new("/bin/sh");
        command.args(["-c", GUARDED]).arg(&self.log).arg(&self.program).args(&self.args);
        // Ours are for us: a test's settings are not its servers' configuration.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"LINNET_")) {
            command.env_remove(name);
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        // A group of its own: Ctrl-C in a terminal is ours to handle, not theirs.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut shell = command.spawn().with_context(|| format!("starting {}", self.program.display()))?;
        let mut line = String::new();
        BufReader::new(shell.stdout.take().context("piped")?).read_line(&mut line)?;
        let pid = line.trim().parse().with_context(|| format!("starting {}", self.program.display()))?;
        // One that ended at once has no start time; the caller finds it not alive.
        let started = stat(pid).map_or(0, |(_, started)| started);
        Ok((Process { pid, started }, Guard { shell }))
    }
}

impl Guard {
    /// Lets go: what was guarded stays.
    ///
    /// # Errors
    /// When the guard is gone, and with it what it guarded.
    pub fn release(mut self) -> Result<()> {
        let mut stdin = self.shell.stdin.take().context("piped")?;
        stdin.write_all(b"keep\n").context("the guard is gone")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// Removes `folder` when the result is dropped or this process dies; processes guarded later are ended first.
///
/// # Errors
/// When no shell can be started.
pub fn sweep(folder: &Path) -> Result<Guard> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", SWEEP]).arg(folder).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Guard { shell: command.spawn().context("starting /bin/sh")? })
}

impl Process {
    /// This process.
    #[must_use]
    pub fn own() -> Self {
        let pid = std::process::id();
        Self { pid, started: stat(pid).map_or(0, |(_, started)| started) }
    }

    /// Whether it runs (stopped counts, a zombie does not).
    #[must_use]
    pub fn alive(&self) -> bool {
        stat(self.pid).is_some_and(|(state, started)| started == self.started && !matches!(state, 'Z' | 'X'))
    }

    /// Whether it is stopped by SIGSTOP.
    #[must_use]
    pub fn paused(&self) -> bool {
        stat(self.pid).is_some_and(|(state, started)| started == self.started && state == 'T')
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("a process id")?;
        if !self.alive() {
            bail!("process {} is not running", self.pid);
        }
        kill_process(pid, signal).with_context(|| format!("signalling process {}", self.pid))
    }

    /// SIGKILL, and waits until it is gone. Gone already is fine.
    ///
    /// # Errors
    /// When it is still there after 10 s.
    pub fn kill(&self) -> Result<()> {
        if self.alive() {
            let _ = self.signal(Signal::KILL);
        }
        self.gone(Duration::from_secs(10))
    }

    /// SIGTERM, and waits until it is gone, at most `patience`. Gone already is fine.
    ///
    /// # Errors
    /// When it is still there then.
    pub fn stop(&self, patience: Duration) -> Result<()> {
        if self.alive() {
            let _ = self.signal(Signal::TERM);
        }
        self.gone(patience)
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn gone(&self, patience: Duration) -> Result<()> {
        let end = Instant::now() + patience;
        while self.alive() {
            if Instant::now() > end {
                bail!("process {} still runs after {patience:?}", self.pid);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// State and start time of a process, from `/proc`.
fn stat(pid: u32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; after it the fields are plain.
    let mut fields = text.get(text.rfind(')')? + 2..)?.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(folder: &Path) -> Launch {
        Launch { program: "sleep".into(), args: vec!["60".into()], env: Vec::new(), log: folder.join("log") }
    }

    #[test]
    fn a_guarded_process_ends_with_its_guard() {
        let folder = tempfile::tempdir().unwrap();
        let (process, guard) = sleeper(folder.path()).guarded().unwrap();
        assert!(process.alive());
        drop(guard);
        assert!(!process.alive());
    }

    #[test]
    fn a_released_process_outlives_its_guard_and_is_signalled_by_id() {
        let folder = tempfile::tempdir().unwrap();
        let (process, guard) = sleeper(folder.path()).guarded().unwrap();
        guard.release().unwrap();
        assert!(process.alive());
        process.pause().unwrap();
        while !process.paused() {
            std::thread::sleep(Duration::from_millis(1));
        }
        process.kill().unwrap();
        assert!(!process.alive());
        assert!(process.pause().is_err());
    }

    #[test]
    fn another_process_with_the_same_id_is_left_alone() {
        let mut other = Process::own();
        other.started += 1;
        assert!(!other.alive());
        other.kill().unwrap();
        assert!(other.signal(Signal::TERM).is_err());
    }
}
