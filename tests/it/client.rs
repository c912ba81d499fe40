//! A client of the public surface: requests, pages, and live streams whose every wait has a deadline.

use std::pin::Pin;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use eventsource_stream::Eventsource;
use futures::{SinkExt, Stream, StreamExt, TryStreamExt};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use plinth_api::error::Problem;
use plinth_api::records::{Receipt, Record, RecordPage};
use plinth_api::topics::Topic;
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::io::{AsyncBufRead, AsyncBufReadExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};
use tokio_util::io::StreamReader;

use crate::authority::AUTHORITY;
use crate::contract;
use crate::harness::DEADLINE;

/// Media type of a batch in JSON.
pub(crate) const BATCH: &str = "application/vnd.plinth.batch+json";
/// Media type of one JSON value per line.
pub(crate) const NDJSON: &str = "application/x-ndjson";
/// Media type of server-sent events.
pub(crate) const SSE: &str = "text/event-stream";

/// A client with one credential.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
    tenant: Option<String>,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) body: Bytes,
}

/// A live SSE stream.
pub(crate) struct SseStream {
    events: Pin<Box<dyn Stream<Item = SseEvent> + Send>>,
}

/// One event of an SSE stream.
#[derive(Clone, Debug)]
pub(crate) struct SseEvent {
    /// Its kind; `message` when it has none.
    pub(crate) event: String,
    /// The cursor.
    pub(crate) id: String,
    /// The data.
    pub(crate) data: String,
}

/// A live NDJSON stream.
pub(crate) struct LineStream {
    lines: tokio::io::Lines<Pin<Box<dyn AsyncBufRead + Send>>>,
}

/// A WebSocket connection.
pub(crate) struct Ws {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// A frame of the server; only the fields that the tests look at.
#[derive(Debug, Deserialize)]
pub(crate) struct Frame {
    /// `type`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Of the request.
    #[serde(default)]
    pub(crate) id: Option<String>,
    /// The subscription.
    #[serde(default)]
    pub(crate) sub: Option<String>,
    /// The records, with the bytes they were sent with.
    #[serde(default)]
    pub(crate) records: Vec<Record>,
    /// The position.
    #[serde(default)]
    pub(crate) cursor: Option<String>,
    /// The topic that ended.
    #[serde(default)]
    pub(crate) topic: Option<String>,
    /// The receipts of a publish.
    #[serde(default)]
    pub(crate) receipts: Vec<Receipt>,
    /// Why a request failed.
    #[serde(default)]
    pub(crate) problem: Option<Problem>,
    /// The frame as it came.
    #[serde(skip)]
    pub(crate) text: String,
}

impl Client {
    /// A client of the server at `base`.
    pub(crate) fn new(base: &str, token: Option<&str>) -> Self {
        let http = reqwest::Client::builder().no_proxy().read_timeout(DEADLINE);
        let http = if base.starts_with("https") {
            let authority = reqwest::Certificate::from_pem(AUTHORITY.pem().as_bytes()).expect("it is one");
            // As EventSource does it in a browser without HTTP/2: the stream is alone on its connection.
            http.tls_certs_only([authority]).http1_only()
        } else {
            http
        };
        let http = http.build().expect("a client without certificates of its own can be made");
        Self { http, base: base.to_owned(), token: token.map(str::to_owned), tenant: None }
    }

    /// The operator within a tenant.
    pub(crate) fn acting_in(mut self, tenant: &str) -> Self {
        self.tenant = Some(tenant.to_owned());
        self
    }

    /// The same client at another address.
    pub(crate) fn at(mut self, base: &str) -> Self {
        base.clone_into(&mut self.base);
        self
    }

    /// The credential.
    pub(crate) fn token(&self) -> &str {
        self.token.as_deref().expect("this client has one")
    }

    /// A request with the credential.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(tenant) = &self.tenant {
            request = request.header("Plinth-Tenant", tenant);
        }
        request
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.request(Method::POST, path)
    }

    pub(crate) fn put(&self, path: &str) -> RequestBuilder {
        self.request(Method::PUT, path)
    }

    pub(crate) fn patch(&self, path: &str) -> RequestBuilder {
        self.request(Method::PATCH, path)
    }

    pub(crate) fn delete(&self, path: &str) -> RequestBuilder {
        self.request(Method::DELETE, path)
    }

    /// Makes an API key and returns it.
    pub(crate) async fn make_key(&self, scopes: &[&str]) -> String {
        let made = answer(self.post("/v1/keys").json(&json!({"name": "test", "scopes": scopes}))).await;
        assert_eq!(made.status, 201, "{}", made.text());
        made.json()["key"].as_str().expect("a key is shown once").to_owned()
    }

    /// Makes a topic.
    pub(crate) async fn make_topic(&self, topic: &str, partitions: u32) -> Topic {
        let made = answer(self.put(&topic_path(topic)).json(&json!({"partitions": partitions}))).await;
        assert_eq!(made.status, 201, "{}", made.text());
        made.parse()
    }

    /// The view of a topic.
    pub(crate) async fn topic(&self, topic: &str) -> Topic {
        let view = answer(self.get(&topic_path(topic))).await;
        assert_eq!(view.status, 200, "{}", view.text());
        view.parse()
    }

    /// Records of a topic over all partitions; 0 when there is no such topic.
    pub(crate) async fn count(&self, topic: &str) -> u64 {
        let view = answer(self.get(&topic_path(topic))).await;
        if view.status == 404 { 0 } else { view.parse::<Topic>().partition_bounds.iter().map(|at| at.tail).sum() }
    }

    /// A publish that is not sent yet.
    pub(crate) fn publishing(&self, topic: &str, content_type: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.post(&records_path(topic)).header("Content-Type", content_type).body(body)
    }

    /// Publishes and expects a receipt.
    pub(crate) async fn publish(&self, topic: &str, content_type: &str, body: impl Into<reqwest::Body>) -> Receipt {
        let answer = answer(self.publishing(topic, content_type, body)).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.parse()
    }

    /// Publishes text records as one batch.
    pub(crate) async fn publish_texts(&self, topic: &str, texts: &[&str]) -> Receipt {
        let records: Vec<Value> = texts.iter().map(|text| json!({"text": text})).collect();
        self.publish(topic, BATCH, json!({"records": records}).to_string()).await
    }

    /// One page.
    pub(crate) async fn page(&self, topic: &str, query: &str) -> RecordPage {
        let answer = answer(self.get(&format!("{}?{query}", records_path(topic)))).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.parse()
    }

    /// All records of a partition, page by page.
    pub(crate) async fn read_all(&self, topic: &str, partition: u32) -> Vec<Record> {
        let mut page = self.page(topic, &format!("from=earliest&partition={partition}")).await;
        let mut records = Vec::new();
        loop {
            records.append(&mut page.records);
            if page.caught_up {
                return records;
            }
            page = self.page(topic, &format!("from={}&partition={partition}", from_cursor(&page.next))).await;
        }
    }

    /// Follows by SSE; `path` has its query.
    pub(crate) async fn sse(&self, path: &str, last_event_id: Option<&str>) -> SseStream {
        let mut request = self.get(path).header("Accept", SSE);
        if let Some(id) = last_event_id {
            request = request.header("Last-Event-ID", id);
        }
        let response = request.send().await.expect("the server answers");
        let status = response.status();
        assert_eq!(status, 200, "{}", response.text().await.unwrap_or_default());
        SseStream::new(response)
    }

    /// Follows by NDJSON; `path` has its query.
    pub(crate) async fn ndjson(&self, path: &str) -> LineStream {
        let response = self.get(path).header("Accept", NDJSON).send().await.expect("the server answers");
        let status = response.status();
        assert_eq!(status, 200, "{}", response.text().await.unwrap_or_default());
        LineStream::new(response)
    }

    /// Opens a WebSocket, the credential in the subprotocol as a browser gives it, and awaits `welcome`.
    pub(crate) async fn ws(&self) -> Ws {
        let mut ws = self.try_ws().await.expect("the upgrade is accepted");
        let welcome = ws.next().await.expect("the connection is open");
        assert_eq!(welcome.kind, "welcome", "{}", welcome.text);
        ws
    }

    /// Opens a WebSocket; `None` when that fails.
    pub(crate) async fn try_ws(&self) -> Option<Ws> {
        let token = self.token.as_deref().expect("a WebSocket of these tests has a credential");
        let url = format!("{}/v1/ws", self.base.replacen("http", "ws", 1));
        let mut request = url.into_client_request().expect("the address is valid");
        let protocols = format!("plinth.v1.json, bearer.{}", URL_SAFE_NO_PAD.encode(token));
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocols.parse().expect("base64url is a token"));
        let trusted =
            if self.base.starts_with("https") { Connector::Rustls(AUTHORITY.http1()) } else { Connector::Plain };
        let opened =
            tokio::time::timeout(DEADLINE, connect_async_tls_with_config(request, None, false, Some(trusted))).await;
        let (socket, _) = opened.expect("an upgrade is answered in time").ok()?;
        Some(Ws { socket })
    }
}

impl Answer {
    /// The body as JSON of any form.
    pub(crate) fn json(&self) -> Value {
        self.parse()
    }

    /// The body as one type.
    pub(crate) fn parse<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    /// The body as a problem document, which must have the right media type, status and id.
    pub(crate) fn problem(&self) -> Problem {
        assert_eq!(self.headers.get("content-type").and_then(|v| v.to_str().ok()), Some("application/problem+json"));
        let problem: Problem = self.parse();
        assert_eq!(problem.status, self.status);
        assert_eq!(problem.kind, format!("/docs/errors/{}", problem.code.as_str()));
        assert_eq!(problem.request_id.as_deref(), self.header("x-request-id"), "the id is in the body and the header");
        problem
    }

    /// A header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl SseStream {
    /// Reads the events of an answer.
    pub(crate) fn new(response: reqwest::Response) -> Self {
        let events = response.bytes_stream().eventsource().take_while(|event| futures::future::ready(event.is_ok()));
        let events = events.filter_map(|event| async move {
            event.ok().map(|event| SseEvent { event: event.event, id: event.id, data: event.data })
        });
        Self { events: Box::pin(events) }
    }

    /// The next event; `None` when the stream is over, cut or whole.
    pub(crate) async fn next(&mut self) -> Option<SseEvent> {
        within("an SSE event", self.events.next()).await
    }

    /// The next record and the cursor after it, past markers that are not records.
    pub(crate) async fn record(&mut self) -> Option<(Record, String)> {
        loop {
            let event = self.next().await?;
            match event.event.as_str() {
                "record" | "message" => {
                    return Some((serde_json::from_str(&event.data).expect("a record is JSON"), event.id));
                }
                "caught_up" => {}
                other => panic!("event {other} instead of a record: {}", event.data),
            }
        }
    }

    /// The next `count` records.
    pub(crate) async fn records(&mut self, count: usize) -> Vec<Record> {
        let mut records = Vec::with_capacity(count);
        while records.len() < count {
            records.push(self.record().await.expect("the stream goes on").0);
        }
        records
    }

    /// The next event of a kind, past records.
    pub(crate) async fn event(&mut self, kind: &str) -> SseEvent {
        loop {
            let event = self.next().await.unwrap_or_else(|| panic!("the stream is over before `{kind}`"));
            if event.event == kind {
                return event;
            }
        }
    }
}

impl LineStream {
    /// Reads the lines of an answer.
    pub(crate) fn new(response: reqwest::Response) -> Self {
        let reader = StreamReader::new(response.bytes_stream().map_err(std::io::Error::other));
        let reader: Pin<Box<dyn AsyncBufRead + Send>> = Box::pin(reader);
        Self { lines: reader.lines() }
    }

    /// The next line, past empty ones, which are signs of life; `None` when the stream is over, cut or whole.
    pub(crate) async fn next(&mut self) -> Option<String> {
        loop {
            let line = within("a line", self.lines.next_line()).await.ok().flatten()?;
            if !line.is_empty() {
                return Some(line);
            }
        }
    }

    /// The next `count` records, past control lines.
    pub(crate) async fn records(&mut self, count: usize) -> Vec<Record> {
        let mut records = Vec::with_capacity(count);
        while records.len() < count {
            let line = self.next().await.expect("the stream goes on");
            if !line.starts_with("{\"control\"") {
                records.push(serde_json::from_str(&line).expect("a line is a record"));
            }
        }
        records
    }

    /// The next control line.
    pub(crate) async fn control(&mut self) -> Value {
        loop {
            let line = self.next().await.expect("the stream goes on");
            if line.starts_with("{\"control\"") {
                return serde_json::from_str(&line).expect("a line is JSON");
            }
        }
    }
}

impl Ws {
    /// Sends one frame.
    pub(crate) async fn send(&mut self, frame: &Value) {
        // A connection that just ended shows it at the next read.
        drop(self.socket.send(Message::text(frame.to_string())).await);
    }

    /// The next frame; `None` when the connection is over.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            match within("a frame", self.socket.next()).await?.ok()? {
                Message::Text(text) => {
                    let mut frame: Frame = serde_json::from_str(&text).expect("a frame is JSON with a type");
                    text.as_str().clone_into(&mut frame.text);
                    return Some(frame);
                }
                Message::Close(_) => return None,
                Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_) => {}
            }
        }
    }

    /// The next frame of a kind, past others.
    pub(crate) async fn frame(&mut self, kind: &str) -> Frame {
        loop {
            let frame = self.next().await.unwrap_or_else(|| panic!("the connection is over before `{kind}`"));
            assert!(kind == "error" || frame.kind != "error", "{}", frame.text);
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// Follows one topic.
    pub(crate) async fn subscribe(&mut self, topic: &str, from: &str) {
        self.send(&json!({"type": "subscribe", "id": "s", "topics": [topic], "from": from})).await;
        self.frame("subscribed").await;
    }

    /// The next `count` records.
    pub(crate) async fn records(&mut self, count: usize) -> Vec<Record> {
        let mut records = Vec::with_capacity(count);
        while records.len() < count {
            records.append(&mut self.frame("records").await.records);
        }
        records
    }
}

/// Sends a request, reads the whole answer, and holds it against the OpenAPI document.
pub(crate) async fn answer(request: RequestBuilder) -> Answer {
    try_answer(request).await.expect("the server answers")
}

/// The same where the server may be gone.
pub(crate) async fn try_answer(request: RequestBuilder) -> reqwest::Result<Answer> {
    let (client, request) = request.build_split();
    let request = request?;
    let (method, path) = (request.method().clone(), request.url().path().to_owned());
    let response = client.execute(request).await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.bytes().await?;
    contract::check(&method, &path, &contract::Seen { status, headers: &headers, body: Some(&body) });
    Ok(Answer { status, headers, body })
}

/// Fails the test when the thing does not come within the deadline.
pub(crate) async fn within<T>(what: &str, thing: impl Future<Output = T>) -> T {
    let waited: Result<T, tokio::time::error::Elapsed> = tokio::time::timeout(DEADLINE, thing).await;
    waited.unwrap_or_else(|_| panic!("{what} did not come within {} s", Duration::as_secs(&DEADLINE)))
}

/// The path of a topic.
pub(crate) fn topic_path(topic: &str) -> String {
    format!("/v1/topics/{}", escape(topic))
}

/// The path of a topic's records.
pub(crate) fn records_path(topic: &str) -> String {
    format!("{}/records", topic_path(topic))
}

/// `from` at a cursor.
pub(crate) fn from_cursor(cursor: &str) -> String {
    format!("cursor:{}", escape(cursor))
}

/// A part of a path or query.
pub(crate) fn escape(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// The payload of a record as it was published.
pub(crate) fn payload(record: &Record) -> Vec<u8> {
    match (&record.value, &record.text, &record.base64) {
        (Some(value), None, None) => RawValue::get(value).as_bytes().to_vec(),
        (None, Some(text), None) => text.as_bytes().to_vec(),
        (None, None, Some(base64)) => STANDARD.decode(base64).expect("base64 is standard"),
        (None, None, None) => Vec::new(),
        _ => panic!("a record has one payload: {record:?}"),
    }
}

/// The payloads of text records.
pub(crate) fn texts(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| String::from_utf8(payload(record)).expect("the payload is text")).collect()
}

/// The offsets of records.
pub(crate) fn offsets(records: &[Record]) -> Vec<u64> {
    records.iter().map(|record| record.offset).collect()
}
