//! Keys that an issuer publishes: rotation, withdrawal, outage, and how often it is asked. The issuer is a server of the test.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use reqwest::Certificate;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;
use crate::egress::{Egress, EgressOptions};

/// Every name is this machine.
struct Here;

impl Resolve for Here {
    fn resolve(&self, _name: Name) -> Resolving {
        let here: [SocketAddr; 1] = [([127, 0, 0, 1], 0).into()];
        Box::pin(async move { Ok(Box::new(here.into_iter()) as Addrs) })
    }
}

/// An issuer's server, over TLS: what it publishes, or nothing while it is away; and how often it was asked.
struct Publisher {
    url: String,
    root: Certificate,
    document: Arc<Mutex<Option<String>>>,
    hits: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Publisher {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
        let url = format!("https://lab.example:{}/jwks.json", listener.local_addr().expect("bound").port());
        let made = rcgen::generate_simple_self_signed(vec!["lab.example".to_owned()]).expect("a certificate");
        let root = Certificate::from_der(made.cert.der()).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![made.cert.der().clone()], key).expect("a certificate and its key");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (document, hits, mut tasks) =
            (Arc::new(Mutex::new(None::<String>)), Arc::new(AtomicUsize::new(0)), JoinSet::new());
        let (served, counted) = (Arc::clone(&document), Arc::clone(&hits));
        tasks.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let Ok(mut socket) = acceptor.accept(socket).await else { continue };
                let _ = socket.read(&mut [0; 4096]).await;
                let body = served.lock().expect("no one panics").clone();
                let status = if body.is_some() { "200 OK" } else { "503 Away" };
                let body = body.unwrap_or_default();
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
                let _ = socket.write_all(answer.as_bytes()).await;
                let _ = socket.shutdown().await;
            }
        });
        Self { url, root, document, hits, _tasks: tasks }
    }

    fn publishes(&self, keys: &[Value]) {
        *self.document.lock().expect("no one panics") = Some(json!({ "keys": keys }).to_string());
    }

    fn is_away(&self) {
        *self.document.lock().expect("no one panics") = None;
    }

    fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }
}

/// A tenant that trusts what the publisher publishes.
async fn lab() -> (World, Publisher) {
    let mut world = world().await;
    let publisher = Publisher::start().await;
    let roots = Some(vec![publisher.root.clone()]);
    let egress = EgressOptions { private_hosts: vec!["lab.example".into()], resolver: Arc::new(Here), roots };
    world.auth =
        Auth::open_with(world.log.clone(), Some(ROOT.into()), Egress::new(egress)).await.expect("credentials").0;
    let request = IssuerRequest { jwks: None, jwks_url: Some(publisher.url.clone()), ..asymmetric(&["ES256"], &[]) };
    world.trust("default", "id", request).await;
    (world, publisher)
}

fn token(signer: &Signer, kid: &str) -> String {
    let mut claims = claims();
    claims["exp"] = json!(NOW + 80_000);
    signer.token(&json!({"alg": "ES256", "kid": kid}), &claims)
}

impl World {
    async fn admitted(&self, token: &str) -> Result<Caller, Fault> {
        match self.auth.admit(Credential::Bearer(token), None).await {
            Ok(caller) => Ok(caller),
            Err(Denied::Token(fault)) => Err(fault.fault),
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn keys_are_fetched_when_they_are_needed_and_a_new_one_is_found_within_half_a_minute() {
    let (world, publisher) = lab().await;
    let (old, new) = (Signer::p256(), Signer::p256());
    publisher.publishes(&[old.jwk(Some("1"))]);
    assert_eq!(publisher.hits(), 0, "no token has come");
    for _ in 0..10 {
        assert!(world.admitted(&token(&old, "1")).await.is_ok());
    }
    assert_eq!(publisher.hits(), 1);
    publisher.publishes(&[old.jwk(Some("1")), new.jwk(Some("2")), HS.jwk(None), json!({"kty": "RSA", "use": "enc"})]);
    for kid in 0..100 {
        assert_eq!(world.admitted(&token(&new, &format!("unknown-{kid}"))).await.err(), Some(Fault::UnknownKey));
    }
    assert_eq!(publisher.hits(), 1, "one request in 30 seconds, whatever comes");
    world.pass(30);
    assert!(world.admitted(&token(&new, "2")).await.is_ok());
    assert!(world.admitted(&token(&old, "1")).await.is_ok());
    assert_eq!(publisher.hits(), 2);
}

#[tokio::test]
async fn many_tokens_at_once_make_one_request() {
    let (world, publisher) = lab().await;
    let signer = Signer::p256();
    publisher.publishes(&[signer.jwk(Some("1"))]);
    let tokens: Vec<String> = (0..50).map(|_| token(&signer, "1")).collect();
    let admitted = futures::future::join_all(tokens.iter().map(|token| world.admitted(token))).await;
    assert!(admitted.iter().all(Result::is_ok));
    assert_eq!(publisher.hits(), 1);
}

#[tokio::test]
async fn a_key_that_is_withdrawn_counts_for_ten_minutes_more() {
    let (world, publisher) = lab().await;
    let (old, new) = (Signer::p256(), Signer::p256());
    publisher.publishes(&[old.jwk(Some("1"))]);
    let caller = world.admitted(&token(&old, "1")).await.expect("published");
    publisher.publishes(&[new.jwk(Some("2"))]);
    world.pass(599);
    assert!(world.admitted(&token(&old, "1")).await.is_ok() && world.auth.is_live(&caller));
    world.pass(1);
    assert_eq!(world.admitted(&token(&old, "1")).await.err(), Some(Fault::UnknownKey));
    assert!(!world.auth.is_live(&caller), "what is open ends, too");
    assert_eq!(publisher.hits(), 2);
}

/// Nobody brings a new token: the open connection makes its issuer's keys be fetched again.
#[tokio::test]
async fn an_open_connection_finds_out_that_its_key_is_withdrawn() {
    let (world, publisher) = lab().await;
    let old = Signer::p256();
    publisher.publishes(&[old.jwk(Some("1"))]);
    let caller = world.admitted(&token(&old, "1")).await.expect("published");
    publisher.publishes(&[]);
    world.pass(600);
    assert!(world.auth.is_live(&caller), "it is only being fetched");
    world.auth.close().await;
    assert_eq!(publisher.hits(), 2);
    assert!(!world.auth.is_live(&caller));
}

#[tokio::test]
async fn while_an_issuer_is_away_its_keys_count_for_an_hour_and_then_not() {
    let (world, publisher) = lab().await;
    let signer = Signer::p256();
    publisher.publishes(&[signer.jwk(Some("1"))]);
    let caller = world.admitted(&token(&signer, "1")).await.expect("published");
    publisher.is_away();
    world.pass(600);
    for _ in 0..10 {
        assert!(world.admitted(&token(&signer, "1")).await.is_ok());
    }
    assert_eq!(publisher.hits(), 2, "and it is asked once in 30 seconds");
    world.pass(2999);
    assert!(world.admitted(&token(&signer, "1")).await.is_ok() && world.auth.is_live(&caller));
    world.pass(1);
    assert_eq!(world.admitted(&token(&signer, "1")).await.err(), Some(Fault::KeysUnavailable));
    assert!(!world.auth.is_live(&caller));
    publisher.publishes(&[signer.jwk(Some("1"))]);
    assert_eq!(world.admitted(&token(&signer, "1")).await.err(), Some(Fault::KeysUnavailable));
    world.pass(30);
    assert!(world.admitted(&token(&signer, "1")).await.is_ok() && world.auth.is_live(&caller));
}

#[tokio::test]
async fn what_is_no_key_set_is_as_no_answer() {
    let (world, publisher) = lab().await;
    let signer = Signer::p256();
    for document in ["", "not json", "[]", "{}", r#"{"keys": 7}"#, &"x".repeat(200_000)] {
        *publisher.document.lock().expect("no one panics") = Some(document.to_owned());
        assert_eq!(world.admitted(&token(&signer, "1")).await.err(), Some(Fault::KeysUnavailable), "{document:.20}");
        world.pass(30);
    }
    assert_eq!(publisher.hits(), 6);
}

#[tokio::test]
async fn an_address_that_must_not_be_asked_is_not_taken() {
    let (world, publisher) = lab().await;
    for url in [
        "http://id.example/jwks.json",
        "https://127.0.0.1/jwks.json",
        "https://[::1]/",
        "https://u:p@id.example/",
        "ftp://id.example/",
        "x",
    ] {
        let request = IssuerRequest { jwks: None, jwks_url: Some(url.into()), ..asymmetric(&["ES256"], &[]) };
        assert!(matches!(world.refusal(request).await, Error::Unprocessable(_)), "{url}");
    }
    let both =
        IssuerRequest { jwks_url: Some(publisher.url.clone()), ..asymmetric(&["ES256"], &[Signer::p256().jwk(None)]) };
    assert!(matches!(world.refusal(both).await, Error::Unprocessable(_)));
    let secret = IssuerRequest { jwks_url: Some(publisher.url.clone()), ..symmetric(&["HS256"]) };
    assert!(matches!(world.refusal(secret).await, Error::Unprocessable(_)));
    // A name that turns out to be private is refused when it is asked.
    let request =
        IssuerRequest { jwks: None, jwks_url: Some("https://evil.example/".into()), ..asymmetric(&["ES256"], &[]) };
    world.trust("default", "id", request).await;
    assert_eq!(world.admitted(&token(&Signer::p256(), "1")).await.err(), Some(Fault::KeysUnavailable));
    assert_eq!(publisher.hits(), 0);
}
