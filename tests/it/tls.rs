//! TLS: what is spoken, by whom, with which certificate, and what is refused.

use std::path::Path;
use std::sync::Arc;

use reqwest::Version;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ProtocolVersion, version};

use crate::authority::{AUTHORITY, Authority, Issued};
use crate::cli::{TRANSPORTS, plinth, run};
use crate::client::{answer, texts, within};
use crate::harness::{Options, Server, refused};

/// A server with a certificate of the authority of these tests.
async fn secure() -> (Server, TempDir, Issued) {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let issued = AUTHORITY.issue(dir.path());
    (Server::start_with(issued.options()).await, dir, issued)
}

fn address(server: &Server) -> &str {
    server.url().strip_prefix("https://").expect("it says that it speaks TLS")
}

async fn shake(server: &Server, config: Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address(server)).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    within("a handshake", TlsConnector::from(config).connect(name, stream)).await
}

async fn shown(server: &Server) -> CertificateDer<'static> {
    let stream = shake(server, AUTHORITY.http1()).await.expect("the certificate is trusted");
    stream.get_ref().1.peer_certificates().expect("one is shown")[0].clone()
}

/// What comes back for plain bytes.
async fn plain(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address(server)).await.expect("it listens");
    let _ = stream.write_all(bytes).await;
    let mut all = Vec::new();
    let _ = within("the end", stream.read_to_end(&mut all)).await;
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn the_handshake_chooses_the_version_of_http_and_nothing_is_served_without_one() {
    let (server, _dir, _) = secure().await;
    for (http1, expected) in [(true, Version::HTTP_11), (false, Version::HTTP_2)] {
        let client = reqwest::Client::builder().no_proxy();
        let client = if http1 { client.http1_only() } else { client };
        let authority = reqwest::Certificate::from_pem(AUTHORITY.pem().as_bytes()).unwrap();
        let client = client.tls_certs_only([authority]).build().unwrap();
        let answer = client.get(format!("{}/livez", server.url())).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, expected));
        assert_eq!(answer.headers()["strict-transport-security"], "max-age=31536000");
    }
    for request in ["GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let answer = plain(&server, request.as_bytes()).await;
        assert!(!answer.starts_with(b"HTTP") && answer.len() < 100, "{answer:?}");
    }
}

// Fails if the oldest version that is accepted were lower, or if one of the two that are were refused.
#[tokio::test(flavor = "multi_thread")]
async fn tls_1_2_and_1_3_are_spoken_and_nothing_older() {
    let (server, _dir, _) = secure().await;
    for (version, expected) in
        [(&version::TLS12, ProtocolVersion::TLSv1_2), (&version::TLS13, ProtocolVersion::TLSv1_3)]
    {
        let stream = shake(&server, AUTHORITY.client(&[version], &[])).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(expected));
    }
    // The hello of TLS 1.1, with one suite of that time.
    let body = [&[3, 2][..], &[7; 32], &[0, 0, 2, 0xc0, 0x13, 1, 0]].concat();
    let message = [&[1, 0, 0, u8::try_from(body.len()).unwrap()][..], &body].concat();
    let record = [&[22, 3, 1, 0, u8::try_from(message.len()).unwrap()][..], &message].concat();
    let answer = plain(&server, &record).await;
    assert_eq!(answer.first(), Some(&21), "an alert: {answer:?}");
}

/// Fails without the flush in `Live::poll`: of a large record the end stays behind.
#[tokio::test(flavor = "multi_thread")]
async fn every_transport_carries_records_of_all_sizes_over_tls() {
    let (server, _dir, _) = secure().await;
    let client = server.client();
    client.make_topic("t", 1).await;
    let mut events = client.sse("/v1/topics/t/records?from=earliest", None).await;
    let mut lines = client.ndjson("/v1/topics/t/records?from=earliest").await;
    let mut socket = client.ws().await;
    socket.subscribe("t", "earliest").await;
    let sizes = [1, 16 * 1024, 900 * 1024, 5];
    for size in sizes {
        let text = "x".repeat(size);
        client.publish("t", "text/plain", text.clone()).await;
        assert_eq!(texts(&events.records(1).await), [text.as_str()], "{size}");
        assert_eq!(texts(&lines.records(1).await), [text.as_str()], "{size}");
        assert_eq!(texts(&socket.records(1).await), [text.as_str()], "{size}");
    }
    assert_eq!(client.count("t").await, 4);
}

/// Fails if only SIGHUP, or nothing, made the node look at its files, or if a broken file took the place of a good one.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_renewed_is_shown_from_then_on_and_a_broken_one_never() {
    let (server, dir, first) = secure().await;
    assert_eq!(shown(&server).await, first.der);
    let mut open = shake(&server, AUTHORITY.http1()).await.unwrap();
    let second = AUTHORITY.issue(dir.path());
    within("the new certificate", async { while shown(&server).await != second.der {} }).await;
    // Who came before goes on.
    open.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    within("the answer", open.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    for broken in ["", "no certificate", &std::fs::read_to_string(&second.key).unwrap()] {
        std::fs::write(&second.cert, broken).unwrap();
        server.signal("HUP").await;
    }
    within("what is said of it", async { while !server.stderr().contains("the one before stays") {} }).await;
    assert_eq!(shown(&server).await, second.der);
    let third = AUTHORITY.issue(dir.path());
    within("the next certificate", async { while shown(&server).await != third.der {} }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_for_tls_refuses_the_start_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let good = AUTHORITY.issue(dir.path());
    let elsewhere = tempfile::tempdir().unwrap();
    let other = AUTHORITY.issue(elsewhere.path());
    let name = |path: &Path| path.to_str().unwrap().to_owned();
    let (cert, key, missing) = (name(&good.cert), name(&good.key), name(&dir.path().join("missing")));
    for (env, said) in [
        (vec![("PLINTH_TLS_CERT", cert.clone())], "tls_key must be given"),
        (vec![("PLINTH_TLS_KEY", key.clone())], "tls_cert must be given"),
        (vec![("PLINTH_TLS_CERT", missing.clone()), ("PLINTH_TLS_KEY", key.clone())], "missing cannot be read"),
        (vec![("PLINTH_TLS_CERT", key.clone()), ("PLINTH_TLS_KEY", key.clone())], "holds no certificate"),
        (vec![("PLINTH_TLS_CERT", cert.clone()), ("PLINTH_TLS_KEY", cert.clone())], "holds no private key"),
        (vec![("PLINTH_TLS_CERT", cert.clone()), ("PLINTH_TLS_KEY", name(&other.key))], "cannot be used"),
        (
            vec![("PLINTH_TLS_CERT", cert), ("PLINTH_TLS_KEY", key), ("PLINTH_PLAIN_HTTP", "true".into())],
            "plain_http must be false",
        ),
    ] {
        let env = env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let refusal = refused(dir.path(), &Options { env, ..Options::default() }).await;
        assert_eq!(refusal.code, Some(2), "{}", refusal.stderr);
        assert!(refusal.stderr.contains(said), "{said}: {}", refusal.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_spoken_to_other_machines_only_when_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let listen = ("PLINTH_LISTEN".to_owned(), "0.0.0.0:0".to_owned());
    let refusal = refused(dir.path(), &Options { env: vec![listen.clone()], ..Options::default() }).await;
    assert_eq!(refusal.code, Some(2), "{}", refusal.stderr);
    assert!(refusal.stderr.contains("--tls-cert") && refusal.stderr.contains("--plain-http"), "{}", refusal.stderr);
    let asked = ("PLINTH_PLAIN_HTTP".to_owned(), "true".to_owned());
    let server = Server::start_with(Options { env: vec![listen, asked], ..Options::default() }).await;
    let alive = answer(server.stranger().get("/livez")).await;
    assert_eq!(alive.status, 200);
    assert!(!alive.headers.contains_key("strict-transport-security"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_trust_an_authority_that_is_named_and_no_stranger() {
    let (server, dir, issued) = secure().await;
    let known = dir.path().join("authority.pem");
    std::fs::write(&known, AUTHORITY.pem()).unwrap();
    let unknown = dir.path().join("stranger.pem");
    std::fs::write(&unknown, Authority::new().pem()).unwrap();
    let url = server.url().replace("127.0.0.1", "localhost");
    let env = |ca: &'static str| [("PLINTH_URL", url.as_str()), ("PLINTH_KEY", server.key()), ("PLINTH_CA_CERT", ca)];
    let known: &'static str = known.to_str().unwrap().to_owned().leak();
    let unknown: &'static str = unknown.to_str().unwrap().to_owned().leak();
    let published = run(&["publish", "t"], &env(known), b"hello").await;
    assert_eq!(published.code, 0, "{}", published.stderr);
    for transport in TRANSPORTS {
        let args = ["subscribe", "t", "--from", "earliest", "--transport", transport, "--limit", "1"];
        let read = run(&args, &env(known), b"").await;
        assert_eq!(read.code, 0, "{transport}: {}", read.stderr);
        assert!(read.lines()[0].contains("hello"), "{transport}");
    }
    for ca in [unknown, issued.key.to_str().unwrap().to_owned().leak()] {
        let refused = run(&["topics", "list"], &env(ca), b"").await;
        assert_ne!(refused.code, 0, "{ca}");
    }
    let listen = address(&server);
    let healthy = |env: &[(&str, &str)]| plinth(&["healthcheck", "--listen", listen], env).status();
    assert!(healthy(&[("PLINTH_TLS_CERT", issued.cert.to_str().unwrap())]).await.unwrap().success());
    assert!(!healthy(&[]).await.unwrap().success());
}
