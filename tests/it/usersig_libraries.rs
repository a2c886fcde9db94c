//! The published UserSig libraries and ours accept each other's signatures.

use std::process::Command;

use anyhow::{Context, Result};
use linnet_testkit::{Server, Socket};
use serde_json::json;

/// Installs the npm package into a folder; its absence is said aloud and fails in CI.
fn install() -> Result<Option<tempfile::TempDir>> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("package.json"), "{}")?;
    let done = Command::new("npm")
        .args(["install", "--silent", "--no-audit", "--no-fund", "tls-sig-api-v2@1.0.2"])
        .current_dir(folder.path())
        .status();
    match done {
        Ok(status) if status.success() => Ok(Some(folder)),
        other => {
            anyhow::ensure!(std::env::var_os("CI").is_none(), "npm cannot install tls-sig-api-v2: {other:?}");
            println!("skipped: npm cannot install tls-sig-api-v2 ({other:?})");
            Ok(None)
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn npm_sigs_sign_in_and_ours_verify() -> Result<()> {
    let Some(folder) = install()? else { return Ok(()) };
    let server = Server::start()?;
    server.rest().import(&["alice"]).await;
    let script = format!(
        "const a=new (require('tls-sig-api-v2').Api)({}, '{}'); process.stdout.write(a.genSig('alice', 3600))",
        server.app(),
        server.key()
    );
    let out = Command::new("node").args(["-e", &script]).current_dir(folder.path()).output().context("node")?;
    let sig = String::from_utf8(out.stdout)?;
    let mut socket = Socket::open(server.ws()).await?;
    let request = json!({ "sdkappid": server.app().0, "user": "alice", "usersig": sig, "platform": "Web" });
    socket.ask("sign_in", request).await?;
    let checked = server.cli(&["usersig", "check", &sig])?;
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    Ok(())
}
