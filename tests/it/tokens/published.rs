//! Tokens of an issuer that publishes its keys over HTTPS: the issuer is a server of the test, the node the real binary.
//!
//! Rotation, withdrawal and outage need a clock that can be turned: `src/auth/jwt/tests/remote.rs`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use super::*;
use crate::authority::{AUTHORITY, Authority};
use crate::harness::Options;

/// An issuer with one key, and the server that publishes it.
struct Publisher {
    pair: EcdsaKeyPair,
    port: u16,
    /// Connections, whether they came as far as a request or not.
    asked: Arc<AtomicUsize>,
    /// Holds the certificate of the authority, in PEM.
    dir: TempDir,
    _serving: JoinSet<()>,
}

impl Publisher {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let issued = AUTHORITY.issue(dir.path());
        let key = PrivateKeyDer::from_pem_file(&issued.key).expect("a key");
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![issued.der], key);
        let acceptor = TlsAcceptor::from(Arc::new(config.expect("a certificate and its key")));
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key can be made");
        let point = pair.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        let set = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "1", "x": x, "y": y}]}).to_string();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{set}", set.len());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let (asked, mut serving) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
        let counted = Arc::clone(&asked);
        serving.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let Ok(mut socket) = acceptor.accept(socket).await else { continue };
                let _ = socket.read(&mut [0; 4096]).await;
                let _ = socket.write_all(answer.as_bytes()).await;
                let _ = socket.shutdown().await;
            }
        });
        Self { pair, port, asked, dir, _serving: serving }
    }

    /// A node that trusts the certificates of `authority`, and lets these hosts be private.
    async fn node(&self, authority: &Authority, private_hosts: &str) -> Server {
        let roots = self.dir.path().join("roots.pem");
        std::fs::write(&roots, authority.pem()).expect("a file can be written");
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let mut env = vec![("SSL_CERT_FILE".to_owned(), text(&roots))];
        if !private_hosts.is_empty() {
            env.push(("PLINTH_PRIVATE_HOSTS".to_owned(), private_hosts.to_owned()));
        }
        Server::start_with(Options { env, ..Options::default() }).await
    }

    /// Lets the tenant `default` trust this issuer; the status of the answer.
    async fn trusted_by(&self, server: &Server, host: &str) -> u16 {
        let url = format!("https://{host}:{}/jwks.json", self.port);
        let body = json!({"issuer": ISSUER, "algorithms": ["ES256"], "jwks_url": url});
        answer(server.client().put("/v1/issuers/id").json(&body)).await.status
    }

    async fn token(&self, server: &Server) -> String {
        let encode = |part: String| URL_SAFE_NO_PAD.encode(part);
        let claims = claims(now(server).await, &["publish:t", "manage:t"]);
        let signed =
            format!("{}.{}", encode(json!({"alg": "ES256", "kid": "1"}).to_string()), encode(claims.to_string()));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).expect("it can sign");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// Fails when the set is not kept, or is fetched before a token needs it.
#[tokio::test(flavor = "multi_thread")]
async fn the_keys_of_an_issuer_are_fetched_over_https_once_for_many_tokens() {
    let publisher = Publisher::start().await;
    let server = publisher.node(&AUTHORITY, "localhost").await;
    assert_eq!(publisher.trusted_by(&server, "localhost").await, 201);
    assert_eq!(publisher.asked(), 0, "no token has come");
    for _ in 0..3 {
        let client = holder(&server, &publisher.token(&server).await);
        assert_eq!(answer(client.publishing("t", "text/plain", "x")).await.status, 201);
    }
    assert_eq!(publisher.asked(), 1);
}

/// Fails when the node takes any certificate.
#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_whose_certificate_is_of_an_unknown_authority_publishes_nothing() {
    let publisher = Publisher::start().await;
    let server = publisher.node(&Authority::new(), "localhost").await;
    assert_eq!(publisher.trusted_by(&server, "localhost").await, 201);
    let refused = answer(holder(&server, &publisher.token(&server).await).get("/v1/topics")).await.problem();
    assert_eq!((refused.status, refused.reason.as_deref()), (401, Some("untrusted")));
    assert!(publisher.asked() > 0, "it was the certificate");
}

/// Fails when the addresses of a name are not looked at before the connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_private_host_that_the_operator_has_not_named_is_never_asked() {
    let publisher = Publisher::start().await;
    let server = publisher.node(&AUTHORITY, "").await;
    // What a name leads to is looked at when it is asked (`egress::tests`).
    for host in ["127.0.0.1", "localhost"] {
        assert_eq!(publisher.trusted_by(&server, host).await, 422, "{host}");
    }
    let refused = answer(holder(&server, &publisher.token(&server).await).get("/v1/topics")).await.problem();
    assert_eq!((refused.status, refused.reason.as_deref()), (401, Some("untrusted")));
    assert_eq!(publisher.asked(), 0);
}
