use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;

/// A resolver whose answers the test has written, one after the other; the last one stays.
struct Written {
    answers: Mutex<Vec<Vec<IpAddr>>>,
    asked: AtomicUsize,
}

impl Written {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let parse = |list: &&[&str]| list.iter().map(|text| text.parse().expect("an address")).collect();
        Arc::new(Self { answers: Mutex::new(answers.iter().map(parse).collect()), asked: AtomicUsize::new(0) })
    }
}

impl Resolve for Written {
    fn resolve(&self, _name: Name) -> Resolving {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().expect("no one panics");
        let found = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
        let found: Vec<SocketAddr> = found.into_iter().map(|address| SocketAddr::new(address, 0)).collect();
        Box::pin(async move { Ok(Box::new(found.into_iter()) as Addrs) })
    }
}

/// A listener that counts who connects, and answers everything with one text.
struct Trap {
    port: u16,
    hits: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Trap {
    async fn set(address: &str, port: u16, answer: Option<Vec<u8>>) -> Self {
        let listener = TcpListener::bind((address, port)).await.expect("an address of this machine");
        let (port, hits, mut tasks) = (listener.local_addr().expect("bound").port(), Arc::default(), JoinSet::new());
        let counted: Arc<AtomicUsize> = Arc::clone(&hits);
        tasks.spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut socket, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                if let Some(answer) = &answer {
                    let mut head = [0; 4096];
                    let _ = socket.read(&mut head).await;
                    let _ = socket.write_all(answer).await;
                } else {
                    open.push(socket);
                }
            }
        });
        Self { port, hits, _tasks: tasks }
    }

    fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }
}

fn http(status: &str, headers: &str, body: &str) -> Option<Vec<u8>> {
    let length = body.len();
    Some(
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}connection: close\r\n\r\n{body}")
            .into_bytes(),
    )
}

fn egress(resolver: Arc<Written>, private_hosts: &[&str]) -> Egress {
    let private_hosts = private_hosts.iter().map(ToString::to_string).collect();
    Egress::new(EgressOptions { private_hosts, resolver, roots: None })
}

fn post(url: &str) -> Post<'_> {
    let header = ("x-signature", "s".to_owned());
    let within = Duration::from_secs(5);
    Post { url, media_type: "application/json", header, body: Bytes::from_static(b"{}"), bytes_max: 1000, within }
}

/// Fails when `Guard` lets an address through, or `check` a literal: then the trap is hit.
#[tokio::test]
async fn nothing_private_is_ever_connected_to() {
    let trap = Trap::set("127.0.0.1", 0, http("200 OK", "", "secret")).await;
    for answer in [
        &["127.0.0.1"][..],
        &["127.0.0.2"],
        &["0.0.0.0"],
        &["10.0.0.1"],
        &["169.254.169.254"],
        &["100.64.0.1"],
        &["192.168.0.1"],
        &["::1"],
        &["::ffff:127.0.0.1"],
        &["fe80::1"],
        &["fd00:ec2::254"],
        &["64:ff9b::7f00:1"],
        &["1.1.1.1", "127.0.0.1"],
        &["127.0.0.1", "1.1.1.1"],
    ] {
        let egress = egress(Written::new(&[answer]), &[]);
        let url = format!("https://evil.example:{}/keys", trap.port);
        assert_eq!(egress.fetch(&url, 1000).await, Err(NOT_PUBLIC), "{answer:?}");
        assert_eq!(egress.post(post(&url)).await, Err(NOT_PUBLIC), "{answer:?}");
    }
    let egress = egress(Written::new(&[&["127.0.0.1"]]), &[]);
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::]",
        "169.254.169.254",
        "localhost",
        "localhost.",
        "LOCALHOST",
        "evil.example",
        "user@127.0.0.1",
        "user:secret@evil.example",
    ] {
        for scheme in ["https", "http", "ftp", "file", "gopher"] {
            let refused = egress.fetch(&format!("{scheme}://{host}:{}/keys", trap.port), 1000).await;
            assert!(matches!(refused, Err(EgressError::Refused(_))), "{scheme} {host}: {refused:?}");
        }
    }
    for text in ["", "keys", "https://", "javascript:alert(1)", &format!("https://{}", "a".repeat(2000))] {
        assert!(matches!(egress.check(text), Err(EgressError::Refused(_))), "{text}");
    }
    assert_eq!(trap.hits(), 0);
}

/// A name that is harmless when it is checked and means another host when it is connected to. Fails when the name is
/// resolved a second time: then the other trap is hit.
#[tokio::test]
async fn the_connection_goes_to_the_address_that_was_checked() {
    let first = Trap::set("127.0.0.1", 0, http("200 OK", "", "keys")).await;
    let second = Trap::set("127.0.0.2", first.port, http("200 OK", "", "secret")).await;
    let resolver = Written::new(&[&["127.0.0.1"], &["127.0.0.2"]]);
    let egress = egress(Arc::clone(&resolver), &["lab.example"]);
    let fetched = egress.fetch(&format!("http://lab.example:{}/keys", first.port), 1000).await;
    assert_eq!(fetched.as_deref(), Ok(&b"keys"[..]));
    assert_eq!((first.hits(), second.hits(), resolver.asked.load(Ordering::SeqCst)), (1, 0, 1));
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_what_is_too_large_is_not_read() {
    let target = Trap::set("127.0.0.1", 0, http("200 OK", "", "secret")).await;
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
        let location = format!("location: http://127.0.0.1:{}/\r\n", target.port);
        let trap = Trap::set("127.0.0.1", 0, http(status, &location, "")).await;
        let egress = egress(Written::new(&[&["127.0.0.1"]]), &["lab.example", "127.0.0.1"]);
        let refused = egress.fetch(&format!("http://lab.example:{}/keys", trap.port), 1000).await;
        assert_eq!(refused, Err(EgressError::Answered(status[..3].parse().expect("a status"))));
    }
    assert_eq!(target.hits(), 0);
    let long = Trap::set("127.0.0.1", 0, http("200 OK", "", &"x".repeat(1001))).await;
    let endless = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n800\r\n".to_vec();
    let endless = Trap::set("127.0.0.1", 0, Some([endless, vec![b'x'; 0x800]].concat())).await;
    let garbage = Trap::set("127.0.0.1", 0, Some(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec())).await;
    let egress = egress(Written::new(&[&["127.0.0.1"]]), &["lab.example"]);
    for trap in [&long, &endless] {
        let refused = egress.fetch(&format!("http://lab.example:{}/keys", trap.port), 1000).await;
        assert_eq!(refused, Err(EgressError::Failed("the answer has more than 1000 bytes".into())));
    }
    let refused = egress.fetch(&format!("http://lab.example:{}/keys", garbage.port), 1000).await;
    assert!(matches!(refused, Err(EgressError::Failed(_))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_is_given_up() {
    let silent = Trap::set("127.0.0.1", 0, None).await;
    let egress = egress(Written::new(&[&["127.0.0.1"]]), &["lab.example"]);
    let refused = egress.fetch(&format!("http://lab.example:{}/keys", silent.port), 1000).await;
    assert!(matches!(&refused, Err(EgressError::TimedOut(why)) if why.contains("no ")), "{refused:?}");
}

#[tokio::test]
async fn without_tls_and_in_private_only_named_hosts_are_asked() {
    let trap = Trap::set("127.0.0.1", 0, http("200 OK", "", "keys")).await;
    let egress = egress(Written::new(&[&["127.0.0.1"]]), &["lab.example"]);
    let refused = egress.fetch(&format!("http://other.lab.example:{}/", trap.port), 1000).await;
    assert!(matches!(refused, Err(EgressError::Refused(_))), "{refused:?}");
    let refused = egress.fetch(&format!("https://other.lab.example:{}/", trap.port), 1000).await;
    assert_eq!(refused, Err(NOT_PUBLIC));
    assert_eq!(trap.hits(), 0);
    // With TLS it must be TLS.
    let refused = egress.fetch(&format!("https://lab.example:{}/", trap.port), 1000).await;
    assert!(matches!(refused, Err(EgressError::Failed(_))), "{refused:?}");
    assert_eq!(trap.hits(), 1);
}

/// A server with a certificate for `name`.
async fn tls_trap(name: &str) -> (u16, Certificate, JoinSet<()>) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
    let root = Certificate::from_der(made.cert.der()).expect("a certificate");
    let key = tokio_rustls::rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let config = tokio_rustls::rustls::ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![made.cert.der().clone()], key).expect("a certificate and its key");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("an address");
    let (port, mut tasks) = (listener.local_addr().expect("bound").port(), JoinSet::new());
    tasks.spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(mut socket) = acceptor.accept(socket).await else { continue };
            let mut head = [0; 4096];
            let _ = socket.read(&mut head).await;
            let _ = socket.write_all(&http("200 OK", "", "keys").expect("an answer")).await;
            let _ = socket.shutdown().await;
        }
    });
    (port, root, tasks)
}

#[tokio::test]
async fn the_other_side_must_have_a_certificate_for_the_name() {
    let (port, root, _tasks) = tls_trap("lab.example").await;
    let asks = |roots: Vec<Certificate>| {
        let private_hosts = vec!["lab.example".to_owned(), "other.example".to_owned()];
        Egress::new(EgressOptions { private_hosts, resolver: Written::new(&[&["127.0.0.1"]]), roots: Some(roots) })
    };
    let trusting = asks(vec![root]);
    let fetched = trusting.fetch(&format!("https://lab.example:{port}/keys"), 1000).await;
    assert_eq!(fetched.as_deref(), Ok(&b"keys"[..]));
    let refused = trusting.fetch(&format!("https://other.example:{port}/keys"), 1000).await;
    assert!(matches!(refused, Err(EgressError::Failed(_))), "another name: {refused:?}");
    let (_, stranger, _more) = tls_trap("lab.example").await;
    let refused = asks(vec![stranger]).fetch(&format!("https://lab.example:{port}/keys"), 1000).await;
    assert!(matches!(refused, Err(EgressError::Failed(_))), "another root: {refused:?}");
}
