//! A folder with a server of its own, and the commands run in it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// Longest wait for anything; far above what is seen on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The binary under test: `LINNET_BIN`, or the one of this build.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("LINNET_BIN").map_or_else(|| env!("CARGO_BIN_EXE_linnet").into(), PathBuf::from)
}

/// A folder; `./linnet-data` in it is the server's, if there is one.
pub(crate) struct Sandbox {
    folder: TempDir,
    server: Option<Child>,
    /// The line that `linnet dev --json` prints when ready.
    pub(crate) ready: Value,
}

/// What a command did.
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    /// The objects on stdout.
    pub(crate) fn objects(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"));
        self.out.lines().map(parse).collect()
    }

    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }
}

/// A command that goes on.
pub(crate) struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Sandbox {
    /// Without a server.
    pub(crate) fn empty() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), server: None, ready: Value::Null }
    }

    /// With a server on a free port.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same, with more options of `linnet dev`.
    pub(crate) async fn start_with(options: &[&str]) -> Self {
        let mut sandbox = Self::empty();
        let args = [&["dev", "--listen", "127.0.0.1:0", "--json"], options].concat();
        let mut server = sandbox.start_command(&args);
        sandbox.ready = server.next().await;
        sandbox.server = Some(server.child);
        sandbox
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(args)
            .current_dir(self.path())
            .kill_on_drop(true)
            .env_remove("LINNET_KEY")
            .env_remove("LINNET_TOKEN");
        command
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Done {
        self.run_with(args, "").await
    }

    /// The same, with something on stdin.
    pub(crate) async fn run_with(&self, args: &[&str], input: &str) -> Done {
        let mut command = self.command(args);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that does not read may have ended already.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let ended = timeout(PATIENCE, child.wait_with_output()).await;
        let output = ended.unwrap_or_else(|_| panic!("{args:?} does not end")).unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Done { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Starts a command that goes on.
    pub(crate) fn start_command(&self, args: &[&str]) -> Running {
        let mut command = self.command(args);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Running { child, lines }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.start_kill();
        }
    }
}

impl Running {
    /// The next object on stdout.
    pub(crate) async fn next(&mut self) -> Value {
        let line = timeout(PATIENCE, self.lines.next_line()).await.expect("a line in time").unwrap();
        let line = line.expect("a line before the end");
        serde_json::from_str(&line).unwrap_or_else(|why| panic!("{why}: {line}"))
    }

    /// The next object that has `value` in `field`.
    pub(crate) async fn next_with(&mut self, field: &str, value: &str) -> Value {
        loop {
            let object = self.next().await;
            if object[field] == value {
                return object;
            }
        }
    }

    /// Ctrl-C, and the exit code.
    pub(crate) async fn interrupt(self) -> Option<i32> {
        interrupt(self.child.id());
        self.ended().await
    }

    /// The exit code, once it ends by itself.
    pub(crate) async fn ended(mut self) -> Option<i32> {
        timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap().code()
    }
}

/// Ctrl-C.
pub(crate) fn interrupt(id: Option<u32>) {
    if let Some(pid) = id.and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
        let _ = kill_process(pid, Signal::INT);
    }
}
