//! The playground in a real browser: alice writes, bob sees it, a reload shows history.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;
use linnet_testkit::{Options, Server};

/// Drives the page over the browser's debugging pipe with nothing but Node; see `tests/it/playground.js`.
const DRIVER: &str = include_str!("playground.js");

fn browser() -> Result<Option<String>> {
    for name in ["chromium", "chromium-browser", "google-chrome"] {
        if Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok() {
            return Ok(Some(name.to_owned()));
        }
    }
    anyhow::ensure!(std::env::var_os("CI").is_none(), "no Chromium: apt-get install chromium");
    println!("skipped: no Chromium");
    Ok(None)
}

#[tokio::test(flavor = "multi_thread")]
async fn alice_writes_bob_sees_it_and_a_reload_shows_history() -> Result<()> {
    let Some(browser) = browser()? else { return Ok(()) };
    let server = Server::with(Options { demo: true, ..Options::default() })?;
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("drive.js");
    std::fs::write(&script, DRIVER)?;
    let run = tokio::process::Command::new("node")
        .arg(&script)
        .arg(&browser)
        .arg(folder.path().join("profile"))
        .arg(format!("{}/play", server.base()))
        .kill_on_drop(true)
        .output();
    let out = tokio::time::timeout(Duration::from_secs(90), run).await??;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{text}\n{}", String::from_utf8_lossy(&out.stderr));
    assert!(text.contains("bob sees: hello bob") && text.contains("after reload: hello bob"), "{text}");
    Ok(())
}
