//! TLS: the handshake of a connection, and the certificate that the node shows.
//!
//! One configuration serves for the life of the node; only the certificate in it is exchanged ([`reload`]). TLS 1.2 and
//! 1.3, HTTP/2 and HTTP/1.1 by ALPN. Handshakes are what a stranger can make a node compute for, so their number at a time
//! has a bound, and each client's has one: over it a connection waits within the time limit of its handshake. Knows nothing of HTTP.

mod files;
mod reload;
mod turns;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::server::{Acceptor, ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::server::TlsStream;

pub use files::{TlsError, TlsFiles};
use turns::Turns;

/// How long the client may take for its part after its first message: it holds one of the node's turns.
const REST: Duration = Duration::from_secs(5);

/// What ALPN calls HTTP/2.
pub(super) const ALPN_HTTP2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// A handshake under way.
pub(super) type Handshake = Pin<Box<dyn Future<Output = io::Result<TlsStream<TcpStream>>> + Send>>;

/// What a node needs to speak TLS. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    pub(super) turns: Arc<Turns>,
    files: Arc<TlsFiles>,
    shown: Arc<Shown>,
}

impl Tls {
    /// TLS with the certificate and key in `files`.
    ///
    /// # Errors
    /// A file cannot be read, holds no certificate or key, or the two do not belong together.
    pub async fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let shown = Arc::new(Shown(ArcSwap::from_pointee(files.load(&provider).await?)));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Unusable)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Shown>::clone(&shown));
        config.alpn_protocols = vec![ALPN_HTTP2.to_vec(), ALPN_HTTP1.to_vec()];
        // What is kept of a session is with the client, sealed: thousands may come back at once, and cost no memory till then.
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::Unusable)?;
        Ok(Self { config: Arc::new(config), turns: Arc::default(), files: Arc::new(files), shown })
    }

    /// The handshake on `stream`. A client that sends nothing takes no turn, and one that is slow with its first message
    /// takes none of the node's.
    pub(super) fn handshake(&self, stream: TcpStream, client: IpAddr) -> Handshake {
        let (config, turns) = (Arc::clone(&self.config), Arc::clone(&self.turns));
        Box::pin(async move {
            stream.readable().await?;
            let (client, node) = (turns.of_client(client), turns.of_node());
            let _own = client.acquire().await.map_err(io::Error::other)?;
            let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
            let _turn = node.acquire().await.map_err(io::Error::other)?;
            timeout(REST, hello.into_stream(config)).await?
        })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

/// The certificate that is shown, whoever is asked for: a node has one.
#[derive(Debug)]
struct Shown(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}
