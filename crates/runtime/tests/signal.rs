//! A process of its own: the signal must not end other tests.

use std::process::Command;
use std::time::Duration;

use linnet_runtime::drain;

#[tokio::test]
async fn sigterm_is_reported_instead_of_ending_the_process() {
    let wait = tokio::time::timeout(Duration::from_secs(10), drain::signalled());
    let send = async {
        let sent = Command::new("kill").args(["-TERM", &std::process::id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    };
    // `join!` polls the first future first: the handler is installed before the signal is sent.
    let (signal, ()) = tokio::join!(wait, send);
    assert_eq!(signal.expect("within 10 s").expect("installed"), "SIGTERM");
}
