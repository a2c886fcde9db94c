//! What a link does to what goes through it.
#![allow(clippy::disallowed_methods, reason = "tests")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use linnet_local::relay::{self, Control, LinkSpec, Mode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// How long is waited to see that nothing comes.
const SILENCE: Duration = Duration::from_millis(300);

struct Bed {
    control: Control,
    listen: SocketAddr,
    _folder: tempfile::TempDir,
}

/// An echo behind one link, `gateway-1` -> `group-1`.
async fn bed() -> Result<Bed> {
    let echo = TcpListener::bind("127.0.0.1:0").await?;
    let target = echo.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = echo.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    let folder = tempfile::tempdir()?;
    let listen = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let spec = LinkSpec { from: "gateway-1".into(), to: "group-1".into(), listen, target };
    let (file, socket) = (folder.path().join("links"), folder.path().join("socket"));
    std::fs::write(&file, serde_json::to_vec(&[spec])?)?;
    let control = Control::new(&socket);
    tokio::spawn(async move { relay::serve(&file, &socket).await.expect("the relay runs") });
    while control.list().await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(Bed { control, listen, _folder: folder })
}

async fn say(stream: &mut TcpStream, text: &str) -> Result<String> {
    stream.write_all(text.as_bytes()).await?;
    hear(stream, text.len()).await
}

async fn hear(stream: &mut TcpStream, count: usize) -> Result<String> {
    let mut bytes = vec![0; count];
    timeout(SILENCE, stream.read_exact(&mut bytes)).await??;
    Ok(String::from_utf8(bytes)?)
}

#[tokio::test]
async fn an_open_link_carries_and_says_how_many_use_it() -> Result<()> {
    let bed = bed().await?;
    let mut stream = TcpStream::connect(bed.listen).await?;
    assert_eq!(say(&mut stream, "hello").await?, "hello");
    assert_eq!(bed.control.list().await?[0].connections, 1);
    stream.shutdown().await?;
    let mut rest = Vec::new();
    assert_eq!(stream.read_to_end(&mut rest).await?, 0, "the end is carried too");
    assert!(bed.control.set("gateway-1", "nats", Mode::Cut).await.is_err(), "there is no such link");
    Ok(())
}

#[tokio::test]
async fn a_cut_link_swallows_and_ends_what_lost_something() -> Result<()> {
    let bed = bed().await?;
    let mut talking = TcpStream::connect(bed.listen).await?;
    let mut silent = TcpStream::connect(bed.listen).await?;
    say(&mut talking, "before").await?;
    say(&mut silent, "before").await?;
    assert_eq!(bed.control.set("group", "gateway-1", Mode::Cut).await?, 1);
    assert!(say(&mut talking, "lost").await.is_err());
    let mut new = TcpStream::connect(bed.listen).await?;
    assert!(say(&mut new, "unanswered").await.is_err());
    bed.control.set("gateway-1", "group-1", Mode::Open).await?;
    for stream in [&mut talking, &mut new] {
        let mut byte = [0];
        let ended = timeout(SILENCE, stream.read(&mut byte)).await?;
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
    assert_eq!(say(&mut silent, "after").await?, "after");
    Ok(())
}

#[tokio::test]
async fn a_held_link_delivers_late() -> Result<()> {
    let bed = bed().await?;
    let mut stream = TcpStream::connect(bed.listen).await?;
    say(&mut stream, "before").await?;
    bed.control.set("gateway-1", "group-1", Mode::Held).await?;
    assert!(say(&mut stream, "late").await.is_err());
    let mut new = TcpStream::connect(bed.listen).await?;
    assert!(say(&mut new, "later").await.is_err());
    bed.control.mend().await?;
    assert_eq!(hear(&mut stream, 4).await?, "late");
    assert_eq!(hear(&mut new, 5).await?, "later");
    Ok(())
}

#[tokio::test]
async fn a_slow_link_is_slow_both_ways() -> Result<()> {
    let bed = bed().await?;
    let mut stream = TcpStream::connect(bed.listen).await?;
    bed.control.delay("gateway-1", "group-1", 60).await?;
    let begun = Instant::now();
    assert_eq!(say(&mut stream, "slow").await?, "slow");
    assert!(begun.elapsed() >= Duration::from_millis(120), "{:?}", begun.elapsed());
    Ok(())
}
