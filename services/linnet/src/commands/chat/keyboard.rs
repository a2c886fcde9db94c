//! Lines of stdin, read on a thread of their own: a read cannot be cancelled, and the runtime must not wait for one.

use std::io::{BufRead as _, IsTerminal as _};

use linnet_runtime::Tasks;
use tokio::sync::mpsc;

/// Lines typed ahead.
const AHEAD: usize = 64;

pub(super) enum Typed {
    Line(String),
    End,
}

/// Starts to read. A stdin that is closed from the start (a service, a background job) says nothing about the end: the
/// client then only listens.
pub(super) fn start(tasks: &Tasks) -> mpsc::Receiver<Typed> {
    let (typed, lines) = mpsc::channel(AHEAD);
    tasks.thread("chat.keyboard", move || {
        let stdin = std::io::stdin();
        let mut any = stdin.is_terminal();
        for line in stdin.lock().lines() {
            let Ok(line) = line else { break };
            any = true;
            if typed.blocking_send(Typed::Line(line)).is_err() {
                return;
            }
        }
        if any {
            let _ = typed.blocking_send(Typed::End);
        } else {
            // Keeps the channel open.
            std::mem::forget(typed);
        }
    });
    lines
}
