//! The socket: `ws` and `wss`, frames in either encoding.

use std::sync::Arc;

use futures::{SinkExt, StreamExt};
use linnet_proto::client::Frame;
use prost::Message as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Uri};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};

use crate::error::{Error, Result};
use crate::options::{Encoding, Options, Stream};

pub(crate) struct Transport {
    socket: WebSocketStream<MaybeTlsStream<Box<dyn Stream>>>,
    encoding: Encoding,
}

impl Transport {
    pub(crate) async fn connect(options: &Options) -> Result<Self> {
        let failed = |why: String| Error::Connect { url: options.url.clone(), why };
        let mut request = options.url.as_str().into_client_request().map_err(|why| failed(why.to_string()))?;
        let name = match options.encoding {
            Encoding::Protobuf => "linnet.v1",
            Encoding::Json => "linnet.v1+json",
        };
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
        // The library's defaults cost 136 KB a connection.
        let config = WebSocketConfig::default().read_buffer_size(4 << 10).write_buffer_size(0);
        let connector = connector(options)?;
        let connecting = async {
            let stream = match &options.dial {
                Some(dial) => dial().await,
                None => dial_tcp(request.uri()).await,
            };
            let stream = stream.map_err(|why| failed(why.to_string()))?;
            let upgrading = client_async_tls_with_config(request, stream, Some(config), connector);
            upgrading.await.map_err(|why| failed(why.to_string()))
        };
        let connected = tokio::time::timeout(options.timeout, connecting).await;
        let (socket, _) = connected.map_err(|_| failed("timed out".to_owned()))??;
        Ok(Self { socket, encoding: options.encoding })
    }

    pub(crate) async fn send(&mut self, frame: &Frame) -> Result<()> {
        let message = match self.encoding {
            Encoding::Protobuf => Message::Binary(frame.encode_to_vec().into()),
            Encoding::Json => {
                let text = serde_json::to_string(frame).map_err(|_| Error::Unexpected)?;
                Message::Text(Utf8Bytes::from(text))
            }
        };
        self.socket.send(message).await.map_err(|_| Error::Disconnected)
    }

    /// The next frame; pings are answered on the way. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>> {
        match self.socket.next().await {
            Some(Ok(Message::Binary(bytes))) => Frame::decode(bytes).map(Some).map_err(|_| Error::Unexpected),
            Some(Ok(Message::Text(text))) => serde_json::from_str(&text).map(Some).map_err(|_| Error::Unexpected),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(None),
            Some(Ok(Message::Close(_)) | Err(_)) | None => Err(Error::Disconnected),
        }
    }

    pub(crate) async fn close(mut self) {
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), self.socket.close(None)).await;
    }
}

async fn dial_tcp(uri: &Uri) -> std::io::Result<Box<dyn Stream>> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or_else(|| if uri.scheme_str() == Some("wss") { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

fn connector(options: &Options) -> Result<Option<Connector>> {
    let Some(pem) = &options.ca_pem else { return Ok(None) };
    let failed = |why: String| Error::Connect { url: options.url.clone(), why };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|why| failed(format!("root certificate: {why:?}")))?;
        roots.add(certificate).map_err(|why| failed(format!("root certificate: {why}")))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|why| failed(why.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Some(Connector::Rustls(Arc::new(config))))
}
