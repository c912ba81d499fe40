//! TLS: the handshake of a connection, and the certificate that the node shows.
//!
//! One configuration serves for the life of the node; only the certificate in it is exchanged ([`reload`]). TLS 1.2 and
//! 1.3, HTTP/2 and HTTP/1.1 by ALPN. Handshakes are what a stranger can make a node compute for, so their number at a time
//! has a bound: over it a connection waits, unread, within the time limit of its handshake. Knows nothing of HTTP.

mod files;
mod reload;

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use plinth_api::limits::HANDSHAKES_MAX;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::server::TlsStream;

pub use files::{TlsError, TlsFiles};

/// What ALPN calls HTTP/2.
pub(super) const ALPN_HTTP2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// A handshake under way.
pub(super) type Handshake = Pin<Box<dyn Future<Output = io::Result<TlsStream<TcpStream>>> + Send>>;

/// What a node needs to speak TLS. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    pub(super) handshakes: Arc<Semaphore>,
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
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            files: Arc::new(files),
            shown,
        })
    }

    /// The handshake on `stream`. A client that sends nothing takes no part of what handshakes may use.
    pub(super) fn handshake(&self, stream: TcpStream) -> Handshake {
        let (acceptor, handshakes) = (self.acceptor.clone(), Arc::clone(&self.handshakes));
        Box::pin(async move {
            stream.readable().await?;
            let _turn = handshakes.acquire().await.map_err(io::Error::other)?;
            acceptor.accept(stream).await
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
