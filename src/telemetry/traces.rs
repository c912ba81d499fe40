//! Traces: which requests are traced, and the way of their spans to a collector by OTLP (HTTP, protobuf).
//!
//! Spans are those with the target of `plinth_storage::spans`, and nothing else: no log line, no span of a library, so
//! no attribute that is not written out in this crate or in the log core. A request that is not traced has no span at all.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use plinth_storage::env::{Rng, SystemRng};
use plinth_storage::ids::Timestamp;
use plinth_storage::spans::TARGET;
use tokio::runtime::Handle;
use tracing::level_filters::LevelFilter;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use super::context::TraceContext;

/// The name of the span of a request.
pub const REQUEST: &str = "request";

/// Most requests that are traced per second of those that the ratio chooses, and of those that their clients trace: two
/// budgets, for anybody can say that he traces.
pub const TRACED_PER_SECOND_MAX: u32 = 100;

/// How long one export may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the spans of the last seconds may take to get out at the end.
const LAST_EXPORT: Duration = Duration::from_secs(5);

/// Where spans go, and how many.
#[derive(Clone, Debug)]
pub struct TraceOptions {
    /// The address of the collector, without the path `/v1/traces`.
    pub endpoint: String,
    /// How many of a million requests are traced that their clients do not trace.
    pub per_million: u32,
}

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
#[error("traces cannot be sent to {endpoint}")]
pub struct TraceError {
    endpoint: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// The way to the collector.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
    sampling: Arc<Sampling>,
}

impl Traces {
    /// Opens the way; nothing is sent yet. Within a runtime, which must outlive it.
    ///
    /// # Errors
    /// When the client or the exporter refuses its settings, among them the variables `OTEL_EXPORTER_OTLP_*`.
    pub fn open(options: &TraceOptions) -> Result<Self, TraceError> {
        let endpoint = options.endpoint.trim_end_matches('/');
        let failed = |source| TraceError { endpoint: endpoint.to_owned(), source };
        let exporter = exporter(&format!("{endpoint}/v1/traces")).map_err(failed)?;
        let resource = Resource::builder()
            .with_attributes([KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))])
            .with_attributes(
                std::env::var_os("OTEL_SERVICE_NAME").is_none().then(|| KeyValue::new("service.name", "plinth")),
            )
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            // There is a span only where it is to be sent.
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(resource)
            .build();
        Ok(Self { provider, sampling: Arc::new(Sampling::new(options.per_million)) })
    }

    /// Which requests are traced.
    #[must_use]
    pub fn sampling(&self) -> Arc<Sampling> {
        Arc::clone(&self.sampling)
    }

    /// What follows the spans.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        // Whoever makes such a span has made sure that it is to be followed.
        let followed = filter_fn(|metadata| metadata.is_span() && metadata.target() == TARGET)
            .with_max_level_hint(LevelFilter::INFO);
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("plinth"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(followed)
    }

    /// Sends what is left. Blocks for up to five seconds.
    pub fn close(self) {
        if let Err(error) = self.provider.shutdown_with_timeout(LAST_EXPORT) {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn exporter(endpoint: &str) -> Result<SpanExporter, Failure> {
    let client =
        reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(EXPORT_TIMEOUT).build()?;
    let post = Post { client, runtime: Handle::current() };
    let exporter = SpanExporter::builder().with_http().with_http_client(post).with_endpoint(endpoint);
    Ok(exporter.with_protocol(Protocol::HttpBinary).build()?)
}

/// Sends for the exporter, whose thread is not one of the runtime.
#[derive(Debug)]
struct Post {
    client: reqwest::Client,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for Post {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let exchange = async move {
            let answer = client.execute(request.try_into()?).await.map_err(reqwest::Error::without_url)?;
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = answer.status();
            *response.body_mut() = answer.bytes().await.map_err(reqwest::Error::without_url)?;
            Ok(response)
        };
        self.runtime.spawn(exchange).await?
    }
}

/// Chooses the requests that are traced.
pub struct Sampling {
    /// Those whose random number is below.
    below: u64,
    drawn: AtomicU64,
    /// The second that is running, and how many were chosen in it by the ratio and by their clients.
    chosen: Mutex<(u64, [u32; 2])>,
}

impl Sampling {
    fn new(per_million: u32) -> Self {
        let below = u128::from(u64::MAX) * u128::from(per_million) / 1_000_000;
        let [a, b, c, d, e, f, g, h, ..] = SystemRng.bytes();
        Self {
            below: u64::try_from(below).unwrap_or(u64::MAX),
            drawn: AtomicU64::new(u64::from_le_bytes([a, b, c, d, e, f, g, h])),
            chosen: Mutex::new((0, [0, 0])),
        }
    }

    /// Whether a request is traced: as its client does; without a trace of the client by chance. Of either kind no more
    /// than so many per second.
    #[must_use]
    pub fn chooses(&self, parent: Option<&TraceContext>, now: Timestamp) -> bool {
        let wanted = parent.map_or_else(|| self.draw() < self.below, |parent| parent.sampled);
        wanted && self.has_room(usize::from(parent.is_some()), now.0 / 1_000)
    }

    /// A number by chance: SplitMix64 over a counter.
    fn draw(&self) -> u64 {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self.drawn.fetch_add(GOLDEN, Ordering::Relaxed);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn has_room(&self, budget: usize, second: u64) -> bool {
        let mut chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
        if chosen.0 != second {
            *chosen = (second, [0, 0]);
        }
        chosen.1[budget] += 1;
        chosen.1[budget] <= TRACED_PER_SECOND_MAX
    }
}

impl fmt::Debug for Sampling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sampling").field("below", &self.below).finish_non_exhaustive()
    }
}

/// Puts `span` into the trace of its client. `state` is the header `tracestate`, which goes on as it is.
pub fn continues(span: &Span, parent: &TraceContext, state: &str) {
    let parent = SpanContext::new(
        TraceId::from_bytes(parent.trace_id.to_be_bytes()),
        SpanId::from_bytes(parent.span_id.to_be_bytes()),
        if parent.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() },
        true,
        state.parse::<TraceState>().unwrap_or_default(),
    );
    // A span that nobody follows has no parent either.
    let _followed = span.set_parent(Context::new().with_remote_span_context(parent));
}

/// Where a span is, for whoever is told of it; `None` for one that nobody follows.
#[must_use]
pub fn context_of(span: &Span) -> Option<TraceContext> {
    let context = span.context();
    let span = context.span();
    let here = span.span_context();
    here.is_valid().then(|| TraceContext {
        trace_id: u128::from_be_bytes(here.trace_id().to_bytes()),
        span_id: u64::from_be_bytes(here.span_id().to_bytes()),
        sampled: here.is_sampled(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLED: TraceContext = TraceContext { trace_id: 1, span_id: 2, sampled: true };
    const NOT_SAMPLED: TraceContext = TraceContext { trace_id: 1, span_id: 2, sampled: false };

    #[test]
    fn a_request_is_traced_as_its_client_does_and_otherwise_by_chance() {
        let sampling = Sampling::new(100_000);
        let chosen = (0..10_000).filter(|number| sampling.chooses(None, Timestamp(number * 1_000))).count();
        assert!((700..1_300).contains(&chosen), "{chosen} of 10000");
        let (none, all) = (Sampling::new(0), Sampling::new(1_000_000));
        assert!(!none.chooses(None, Timestamp(0)) && none.chooses(Some(&SAMPLED), Timestamp(0)));
        assert!(all.chooses(None, Timestamp(0)) && !all.chooses(Some(&NOT_SAMPLED), Timestamp(0)));
    }

    #[test]
    fn clients_cannot_have_more_traced_than_so_many_per_second() {
        let sampling = Sampling::new(1_000_000);
        let in_second = |second: u64| {
            let chosen = |number: &u64| sampling.chooses(Some(&SAMPLED), Timestamp(second * 1_000 + number / 10));
            (0..5_000).filter(chosen).count()
        };
        assert_eq!(in_second(1), TRACED_PER_SECOND_MAX as usize);
        assert_eq!(in_second(2), TRACED_PER_SECOND_MAX as usize);
        // Fails when there is one budget for both: strangers would take the operator's.
        assert!(sampling.chooses(None, Timestamp(2_999)), "what the ratio chooses is traced all the same");
    }
}
