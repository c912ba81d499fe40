//! One HTTP/1 connection that costs as little as can be: hyper without a pool, driven by the task that uses it.
//!
//! Client and server share the cores in a benchmark on one machine, so what the client saves, both sides of a ratio
//! gain. The same connection is used for the yardstick and for the node.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Connection, SendRequest, handshake};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

type Driver = Pin<Box<Connection<TokioIo<TcpStream>, Full<Bytes>>>>;

/// Where requests go and as whom.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) key: Option<String>,
    /// What else each request has.
    pub(super) header: Option<(&'static str, &'static str)>,
}

/// An open connection.
pub(super) struct Wire {
    sender: SendRequest<Full<Bytes>>,
    driver: Driver,
    target: Target,
}

/// The answer to a request, whole.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
    headers: HeaderMap,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Wire {
    pub(super) async fn connect(target: &Target) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(target.address).await?;
        stream.set_nodelay(true)?;
        let (sender, driver) = handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, driver: Box::pin(driver), target: target.clone() })
    }

    /// Posts `body` to `path` and takes the answer.
    pub(super) async fn post(&mut self, path: &str, content_type: &str, body: Bytes) -> anyhow::Result<Answer> {
        self.send("POST", path, (content_type, body)).await
    }

    /// Sends a body of a content type to `path` and takes the answer.
    pub(super) async fn send(
        &mut self,
        method: &str,
        path: &str,
        (content_type, body): (&str, Bytes),
    ) -> anyhow::Result<Answer> {
        let request = self.request(method, path).header("content-type", content_type).body(Full::new(body))?;
        let Self { sender, driver, .. } = self;
        let exchange = async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok(Answer { status: head.status.as_u16(), body, headers: head.headers })
        };
        let both = async {
            tokio::select! {
                biased;
                answer = exchange => answer,
                ended = driver.as_mut() => ended.context("the connection failed").and(Err(anyhow::anyhow!("it was closed"))),
            }
        };
        timeout(ANSWER_TIMEOUT, both).await.context("no answer in time")?
    }

    /// Asks for `path` and gives its answer piece by piece.
    pub(super) async fn stream(mut self, path: &str, accept: &str) -> anyhow::Result<Pieces> {
        let request = self.request("GET", path).header("accept", accept).body(Full::default())?;
        let exchange = self.sender.send_request(request);
        let both = async {
            tokio::select! {
                biased;
                answer = exchange => answer.context("the request failed"),
                ended = self.driver.as_mut() => ended.context("the connection failed").and(Err(anyhow::anyhow!("it was closed"))),
            }
        };
        let response: Response<Incoming> = timeout(ANSWER_TIMEOUT, both).await.context("no answer in time")??;
        anyhow::ensure!(response.status().is_success(), "GET {path} answers {}", response.status());
        let (head, body) = response.into_parts();
        Ok(Pieces { headers: head.headers, body, driver: self.driver, _sender: self.sender })
    }

    fn request(&self, method: &str, path: &str) -> hyper::http::request::Builder {
        let request = Request::builder().method(method).uri(path).header("host", "127.0.0.1");
        let request = match self.target.header {
            Some((name, value)) => request.header(name, value),
            None => request,
        };
        match &self.target.key {
            Some(key) => request.header("authorization", format!("Bearer {key}")),
            None => request,
        }
    }
}

/// An answer that is read as it comes.
pub(super) struct Pieces {
    headers: HeaderMap,
    body: Incoming,
    driver: Driver,
    _sender: SendRequest<Full<Bytes>>,
}

impl Pieces {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The next piece; `None` at the end. Cancel safe.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            let frame = tokio::select! {
                biased;
                frame = self.body.frame() => frame,
                ended = self.driver.as_mut() => {
                    ended.context("the connection failed")?;
                    return Ok(None);
                }
            };
            match frame {
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        return Ok(Some(data));
                    }
                }
                None => return Ok(None),
            }
        }
    }
}

/// The decimal number right after the first `label` in `text`.
pub(super) fn number_after(text: &[u8], label: &[u8]) -> Option<u64> {
    let start = memchr::memmem::find(text, label)? + label.len();
    let digits = text[start..].iter().take_while(|byte| byte.is_ascii_digit());
    let mut number = None;
    for digit in digits {
        number = Some(number.unwrap_or(0_u64).checked_mul(10)?.checked_add(u64::from(digit - b'0'))?);
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_behind_its_label() {
        assert_eq!(number_after(br#"{"offset":1204,"x":1}"#, b"\"offset\":"), Some(1204));
        assert_eq!(number_after(br#"{"offset":"no"}"#, b"\"offset\":"), None);
        assert_eq!(number_after(b"", b"\"offset\":"), None);
    }
}
