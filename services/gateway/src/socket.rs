//! The stream under a connection: plain TCP without indirection, TLS and everything else boxed.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// Any stream a shard can own.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

pub(crate) enum Socket {
    Tcp(TcpStream),
    /// TLS, or a stream of a kind we do not know. Writes must be flushed.
    Other(Box<dyn Stream>),
}

impl Socket {
    pub(crate) fn other(stream: impl Stream) -> Self {
        Self::Other(Box::new(stream))
    }

    /// The stream under an upgraded request, and what was read ahead of it.
    pub(crate) fn of(upgraded: Upgraded) -> (Self, Bytes) {
        let upgraded = match auto::upgrade::downcast::<TokioIo<TcpStream>>(upgraded) {
            Ok(parts) => return (Self::tcp(parts.io.into_inner()), parts.read_buf),
            Err(upgraded) => upgraded,
        };
        let upgraded = match upgraded.downcast::<TokioIo<TcpStream>>() {
            Ok(parts) => return (Self::tcp(parts.io.into_inner()), parts.read_buf),
            Err(upgraded) => upgraded,
        };
        let upgraded = match auto::upgrade::downcast::<TokioIo<TlsStream<TcpStream>>>(upgraded) {
            Ok(parts) => return (Self::tls(parts.io.into_inner()), parts.read_buf),
            Err(upgraded) => upgraded,
        };
        let upgraded = match upgraded.downcast::<TokioIo<TlsStream<TcpStream>>>() {
            Ok(parts) => return (Self::tls(parts.io.into_inner()), parts.read_buf),
            Err(upgraded) => upgraded,
        };
        (Self::other(TokioIo::new(upgraded)), Bytes::new())
    }

    fn tcp(stream: TcpStream) -> Self {
        // Frames are merged before they are written; waiting for more in the kernel only adds delay.
        let _ = stream.set_nodelay(true);
        Self::Tcp(stream)
    }

    fn tls(stream: TlsStream<TcpStream>) -> Self {
        let _ = stream.get_ref().0.set_nodelay(true);
        Self::other(stream)
    }

    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Other(stream) => Pin::new(&mut **stream).poll_read(cx, buf),
        }
    }

    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Other(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, slices),
        }
    }

    /// Pushes out what the stream itself still holds; plain TCP holds nothing.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) => Poll::Ready(Ok(())),
            Self::Other(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Other(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }
}

/// A listener for many thousands of clients connecting at once: address reuse, and a backlog of 4,096, because the
/// usual 128 stalls a connect storm in one-second steps.
///
/// # Errors
/// When the address cannot be bound.
pub fn listen(address: SocketAddr) -> io::Result<tokio::net::TcpListener> {
    use socket2::{Domain, Protocol, Socket as Raw, Type};
    let socket = Raw::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    tokio::net::TcpListener::from_std(socket.into())
}
