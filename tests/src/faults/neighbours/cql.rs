//! One statement to a CQL server, in its native protocol, version 4: what an operator would do with `cqlsh`.

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const STARTUP: u8 = 0x01;
const QUERY: u8 = 0x07;
const ERROR: u8 = 0x00;
/// LOCAL_QUORUM, as the product writes.
const CONSISTENCY: u16 = 0x0006;

/// Runs a statement; the server's error is an error.
pub(super) async fn query(address: &str, statement: &str) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let mut startup = vec![0, 1];
    for text in ["CQL_VERSION", "3.0.0"] {
        startup.extend(u16::try_from(text.len())?.to_be_bytes());
        startup.extend(text.as_bytes());
    }
    ask(&mut stream, STARTUP, &startup).await.context("startup")?;
    let mut body = u32::try_from(statement.len())?.to_be_bytes().to_vec();
    body.extend(statement.as_bytes());
    body.extend(CONSISTENCY.to_be_bytes());
    body.push(0);
    ask(&mut stream, QUERY, &body).await.context("query")
}

async fn ask(stream: &mut TcpStream, opcode: u8, body: &[u8]) -> Result<Vec<u8>> {
    let mut frame = vec![0x04, 0, 0, 1, opcode];
    frame.extend(u32::try_from(body.len())?.to_be_bytes());
    frame.extend(body);
    stream.write_all(&frame).await?;
    let mut header = [0; 9];
    stream.read_exact(&mut header).await?;
    let [_, _, _, _, answer, length @ ..] = header;
    let mut reply = vec![0; usize::try_from(u32::from_be_bytes(length))?];
    stream.read_exact(&mut reply).await?;
    if answer == ERROR {
        bail!("{}", String::from_utf8_lossy(reply.get(6..).unwrap_or_default()));
    }
    Ok(reply)
}
