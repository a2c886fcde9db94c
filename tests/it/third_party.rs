//! A published REST client, unmodified, with the vendor's host built in.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use linnet_testkit::{Options, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

const PACKAGE: &str = "timsdk==1.1.12";
/// What the package calls.
const HOST: &str = "console.tim.qq.com";
const DRIVER: &str = include_str!("../compat/timsdk_drive.py");

/// Installs the package into `folder`; its absence is said aloud and fails in CI.
fn install(folder: &Path) -> Result<bool> {
    let done = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE, "--target"])
        .arg(folder)
        .stdin(Stdio::null())
        .output();
    match done {
        Ok(out) if out.status.success() => Ok(true),
        other => {
            let why = other.map_or_else(|error| error.to_string(), |out| String::from_utf8_lossy(&out.stderr).into());
            anyhow::ensure!(std::env::var_os("CI").is_none(), "pip cannot install {PACKAGE}: {why}");
            println!("skipped: pip cannot install {PACKAGE}: {why}");
            Ok(false)
        }
    }
}

/// A proxy on a free port through which [`HOST`] is `server`; gives its address.
async fn proxy(server: String) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(tunnel(client, server.clone()));
        }
    });
    Ok(format!("http://{address}"))
}

async fn tunnel(mut client: TcpStream, server: String) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
        anyhow::ensure!(head.len() < 4096, "not a CONNECT");
    }
    let wanted = format!("CONNECT {HOST}:443 ");
    anyhow::ensure!(head.starts_with(wanted.as_bytes()), "not for {HOST}");
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut TcpStream::connect(server).await?).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unmodified_python_client_works_at_the_vendors_host_name() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let packages = folder.path().join("packages");
    if !install(&packages)? {
        return Ok(());
    }
    let args = ["--tls", "--tls-name", HOST].map(str::to_owned).to_vec();
    let server = Server::with(Options { args, ..Options::default() })?;
    let address = server.base().strip_prefix("https://").context("TLS")?.to_owned();
    let proxy = proxy(address).await?;
    let script = folder.path().join("drive.py");
    std::fs::write(&script, DRIVER)?;
    let mut drive = tokio::process::Command::new("python3");
    drive.arg(&script).arg(server.app().to_string()).arg(server.key());
    drive.env("PYTHONPATH", &packages).env("REQUESTS_CA_BUNDLE", server.ca().context("a CA")?);
    for name in ["HTTPS_PROXY", "https_proxy"] {
        drive.env(name, &proxy);
    }
    for name in ["NO_PROXY", "no_proxy", "CURL_CA_BUNDLE"] {
        drive.env_remove(name);
    }
    let out = tokio::time::timeout(Duration::from_secs(90), drive.kill_on_drop(true).output()).await??;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success() && text.ends_with("done\n"), "{text}\n{}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}
