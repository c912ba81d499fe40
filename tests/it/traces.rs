//! Traces: from a request to the PUT of the object that holds its records, as a collector gets them by OTLP.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use futures::future::join_all;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value as Any};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::client::{BATCH, Client, answer};
use crate::harness::{Options, ROOT_KEY, Server};
use crate::ws::Socket;

const CANARY: &str = "CANARY7f3a";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

type Exports = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

/// A collector that keeps what it gets.
struct Collector {
    endpoint: String,
    exports: Exports,
    _serving: JoinSet<()>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let exports = Exports::default();
        let keep = async |State(exports): State<Exports>, headers: HeaderMap, body: Bytes| {
            exports.lock().unwrap().push((headers, body));
            StatusCode::OK
        };
        let router = Router::new().route("/v1/traces", post(keep)).with_state(Arc::clone(&exports));
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { endpoint, exports, _serving: serving }
    }

    /// A server that sends its traces here.
    async fn server(&self, ratio: &str) -> Server {
        let env = [
            ("PLINTH_OTLP_ENDPOINT", self.endpoint.as_str()),
            ("PLINTH_TRACE_RATIO", ratio),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-collector-key=k1"),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Server::start_with(Options { env, ..Options::default() }).await
    }

    /// All spans of a server, which is ended so that it sends the last.
    async fn spans(&self, mut server: Server) -> Vec<Span> {
        assert_eq!(server.terminate().await.code(), Some(0));
        let exports = self.exports.lock().unwrap();
        let mut spans = Vec::new();
        for (headers, body) in exports.iter() {
            assert_eq!(
                (&headers["content-type"], &headers["x-collector-key"]),
                (&"application/x-protobuf".parse().unwrap(), &"k1".parse().unwrap())
            );
            let request = ExportTraceServiceRequest::decode(body.clone()).expect("an export is protobuf");
            for of_resource in request.resource_spans {
                let resource = of_resource.resource.expect("it names its service").attributes;
                assert_eq!(attribute(&resource, "service.name"), Some(text("plinth")));
                spans.extend(of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        }
        spans
    }

    /// Everything that was exported, as text.
    fn text(&self) -> String {
        let exports = self.exports.lock().unwrap();
        exports.iter().map(|(_, body)| String::from_utf8_lossy(body).into_owned()).collect()
    }
}

fn attribute(attributes: &[KeyValue], name: &str) -> Option<Any> {
    attributes.iter().find(|attribute| attribute.key == name)?.value.clone()?.value
}

fn text(text: &str) -> Any {
    Any::StringValue(text.to_owned())
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

fn of(span: &Span, name: &str) -> Option<Any> {
    attribute(&span.attributes, name)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn traced(client: &Client, body: &str) -> reqwest::RequestBuilder {
    client.publishing("t", "text/plain", body.to_owned()).header("traceparent", format!("00-{TRACE}-{PARENT}-01"))
}

/// Fails when the flush is not linked, the PUT is outside of it, or a request does not go on with its client's trace.
#[tokio::test(flavor = "multi_thread")]
async fn a_trace_leads_from_the_request_of_its_client_to_the_put_of_its_object() {
    let collector = Collector::start().await;
    let server = collector.server("0").await;
    let published =
        answer(traced(&server.client(), "x").header("tracestate", "vendor=1").header("X-Request-Id", "r-1")).await;
    assert_eq!(published.status, 201, "{}", published.text());
    let page = server.client().page("t", "from=earliest").await;
    let spans = collector.spans(server).await;

    let requests = named(&spans, "POST /v1/topics/{topic}/records");
    let [request] = requests[..] else { panic!("{spans:#?}") };
    assert_eq!((hex(&request.trace_id).as_str(), hex(&request.parent_span_id).as_str()), (TRACE, PARENT));
    assert_eq!((request.kind, request.trace_state.as_str()), (2, "vendor=1"), "of a server");
    for (name, value) in [
        ("http.request.method", text("POST")),
        ("http.route", text("/v1/topics/{topic}/records")),
        ("http.response.status_code", Any::IntValue(201)),
        ("messaging.system", text("plinth")),
        ("messaging.operation.type", text("send")),
        ("plinth.request_id", text("r-1")),
    ] {
        assert_eq!(of(request, name), Some(value), "{name}");
    }
    let here = format!("00-{TRACE}-{}-01", hex(&request.span_id));
    assert_eq!(published.header("traceparent"), Some(here.as_str()), "the answer says where its span is");

    let [append] = named(&spans, "append")[..] else { panic!("{spans:#?}") };
    assert_eq!((&append.trace_id, &append.parent_span_id), (&request.trace_id, &request.span_id));
    assert_eq!(of(append, "plinth.records"), Some(Any::IntValue(1)));

    let [flush] = named(&spans, "flush")[..] else { panic!("{spans:#?}") };
    assert!(flush.parent_span_id.is_empty() && flush.trace_id != append.trace_id, "it is that of many requests");
    let [link] = &flush.links[..] else { panic!("{flush:#?}") };
    assert_eq!((&link.trace_id, &link.span_id), (&append.trace_id, &append.span_id));

    let [put] = named(&spans, "put")[..] else { panic!("{spans:#?}") };
    assert_eq!((&put.trace_id, &put.parent_span_id), (&flush.trace_id, &flush.span_id));
    assert_eq!(of(put, "plinth.object.kind"), Some(text("wal")));
    assert_eq!(of(put, "plinth.answer"), Some(text("created")));
    assert_eq!(of(put, "plinth.object.bytes"), of(flush, "plinth.object.bytes"));
    assert!(put.end_time_unix_nano > put.start_time_unix_nano && flush.end_time_unix_nano >= put.end_time_unix_nano);

    let kept = &page.records[0].headers;
    let client = format!("00-{TRACE}-{PARENT}-01");
    assert_eq!(kept.get("traceparent"), Some(&client), "readers get the trace of the client");
    assert_eq!(kept.get("tracestate").map(String::as_str), Some("vendor=1"));
    assert_eq!(spans.len(), 4, "nothing else is traced: {spans:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_is_linked_with_all_requests_that_it_carries_and_others_are_not_traced() {
    let collector = Collector::start().await;
    let server = collector.server("0").await;
    let client = server.client();
    client.publish("t", "text/plain", "x").await;
    let untraced = client.publishing("t", "text/plain", "x").header("traceparent", format!("00-{TRACE}-{PARENT}-00"));
    let broken = client.publishing("t", "text/plain", "x").header("traceparent", "00-XYZ");
    for request in [untraced, broken] {
        let answer = answer(request).await;
        assert_eq!((answer.status, answer.header("traceparent")), (201, None));
    }
    let answers = join_all((0..40).map(|_| answer(traced(&client, "x")))).await;
    assert!(answers.iter().all(|answer| answer.status == 201));
    let spans = collector.spans(server).await;
    let appends = named(&spans, "append").iter().map(|span| span.span_id.clone()).collect::<Vec<_>>();
    assert_eq!(appends.len(), 40);
    let flushes = named(&spans, "flush");
    assert!(flushes.iter().all(|flush| !flush.links.is_empty()), "one that carries nothing traced is not traced");
    let mut linked: Vec<_> = flushes.iter().flat_map(|flush| &flush.links).map(|link| link.span_id.clone()).collect();
    assert!(flushes.len() < 40, "one flush carries several requests");
    linked.sort_unstable();
    let mut expected = appends;
    expected.sort_unstable();
    assert_eq!(linked, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_to_the_collector_has_nothing_of_a_tenant() {
    let collector = Collector::start().await;
    let server = collector.server("1").await;
    let client = server.client();
    let topic = format!("topic-{CANARY}");
    let publish = client.publishing(&topic, "text/plain", format!("payload-{CANARY}"));
    let publish =
        publish.header("Record-Key", CANARY).header("Record-Header-A", CANARY).header("Idempotency-Key", CANARY);
    assert_eq!(answer(publish).await.status, 201);
    client.publish(&topic, BATCH, json!({"records": [{"text": CANARY, "key": CANARY}]}).to_string()).await;
    assert_eq!(client.page(&topic, "from=earliest").await.records.len(), 2);
    for bad in [
        client.publishing(&topic, BATCH, format!("{{\"records\": \"{CANARY}\"}}")),
        client.get(&format!("/v1/topics?{CANARY}={CANARY}")),
        client.get(&format!("/{CANARY}")),
        server.root().acting_in(CANARY).get("/v1/topics"),
        Client::new(server.url(), Some(CANARY)).get("/v1/topics"),
    ] {
        assert!((400..500).contains(&answer(bad).await.status));
    }
    let mut socket =
        Socket::open(&server, "/v1/ws", &[("authorization", format!("Bearer {}", server.key()))]).await.ok().unwrap();
    socket.frame("welcome").await;
    let record = json!({"text": CANARY, "key": CANARY, "headers": {"a": CANARY}});
    socket.send(json!({"type": "publish", "id": CANARY, "topic": topic, "records": [record]})).await;
    socket.frame("published").await;
    drop(socket);
    let key = server.key().to_owned();
    let spans = collector.spans(server).await;
    // Three publishes, and what is written about requests of an administrator.
    assert!(named(&spans, "append").len() >= 3);
    assert!(!named(&spans, "publish over WebSocket").is_empty());
    let sent = collector.text();
    for secret in [CANARY, ROOT_KEY, &key, "default"] {
        assert!(!sent.contains(secret), "{secret}");
    }
}
