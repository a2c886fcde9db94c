//! Logs, traces and request ids.
//!
//! Logs go to stderr as text or JSON. With an OTLP endpoint, spans are exported too. A request is known by its
//! [`RequestId`], the low half of its W3C trace id, so one number finds it in logs, in replies and in a tracing backend.
//! No log line holds message text, a UserSig or a key.

use std::fmt;
use std::future::Future;
use std::io::IsTerminal;

use http::HeaderMap;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, Sampler, SdkTracerProvider};
use serde::{Deserialize, Serialize};
use tonic::metadata::MetadataMap;
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::Problem;
use crate::error::{Error, Result};
use crate::rng::Rng;

const TRACEPARENT: &str = "traceparent";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One readable line an event.
    #[default]
    Text,
    /// One JSON object an event.
    Json,
}

crate::config! {
    /// Logs and traces.
    pub struct LogConfig {
        /// `text` for people, `json` for log collectors.
        pub format: LogFormat = LogFormat::Text, "", restart;
        /// What is logged: a level, or levels by module (`info,linnet_group=debug`). More detail costs CPU and disk.
        pub filter: String = "info".to_owned(), "", restart;
        /// OTLP/gRPC address spans are sent to (`http://collector:4317`); empty for none. Costs a few µs a span.
        pub otlp: String = String::new(), "", restart;
        /// Share of new traces that are sent, 0 to 100; a request that arrives with a sampled trace is always sent.
        pub otlp_percent: u8 = 10, "percent", restart;
    }
    check problems;
}

fn problems(config: &LogConfig) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Err(error) = EnvFilter::try_new(&config.filter) {
        problems.push(Problem::new("filter", error.to_string()));
    }
    if config.otlp_percent > 100 {
        problems.push(Problem::new("otlp_percent", "must be at most 100"));
    }
    problems
}

/// Keeps the exporter alive; call [`Telemetry::shutdown`] last.
#[derive(Debug)]
#[must_use = "spans are lost when this is dropped early"]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Sends what is still buffered. Blocks for up to a few seconds when the collector is away.
    pub fn shutdown(self) {
        if let Some(Err(error)) = self.provider.map(|provider| provider.shutdown()) {
            tracing::warn!(%error, "some spans were not exported");
        }
    }
}

/// Installs the process's subscriber; for binaries only, once, inside the runtime when `otlp` is set.
///
/// # Errors
/// [`Error::Telemetry`] for a bad filter, a bad endpoint, or a second call.
pub fn init(service: &'static str, config: &LogConfig) -> Result<Telemetry> {
    let bad = |error: &dyn fmt::Display| Error::Telemetry(error.to_string());
    // What is configured comes later and counts; the bus client tells every connection it makes.
    let filter = format!("async_nats=warn,{}", config.filter);
    let filter = EnvFilter::try_new(filter).map_err(|error| bad(&error))?;
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let lines = match config.format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
    };
    let provider = if config.otlp.is_empty() { None } else { Some(provider(service, exporter(&config.otlp)?, config)) };
    let spans = provider.as_ref().map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer("linnet")));
    let subscriber = tracing_subscriber::registry().with(filter).with(spans).with(lines);
    subscriber.try_init().map_err(|error| bad(&error))?;
    Ok(Telemetry { provider })
}

fn exporter(endpoint: &str) -> Result<SpanExporter> {
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build();
    exporter.map_err(|error| Error::Telemetry(error.to_string()))
}

fn provider(
    service: &'static str,
    exporter: impl opentelemetry_sdk::trace::SpanExporter + 'static,
    config: &LogConfig,
) -> SdkTracerProvider {
    let share = Sampler::TraceIdRatioBased(f64::from(config.otlp_percent) / 100.0);
    SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_id_generator(RequestIds::default())
        .with_sampler(Sampler::ParentBased(Box::new(share)))
        .with_resource(Resource::builder().with_service_name(service).build())
        .build()
}

/// Gives a new trace the id of the request it belongs to.
#[derive(Debug, Default)]
struct RequestIds(RandomIdGenerator);

impl IdGenerator for RequestIds {
    fn new_trace_id(&self) -> TraceId {
        TraceContext::current().map_or_else(|| self.0.new_trace_id(), |context| context.trace_id())
    }
    fn new_span_id(&self) -> SpanId {
        self.0.new_span_id()
    }
}

/// Names one request in logs and replies: 16 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(u64);

impl RequestId {
    /// A new id.
    #[must_use]
    pub fn new(rng: &Rng) -> Self {
        Self(rng.u64().max(1))
    }

    /// The id of the request being served by this task.
    #[must_use]
    pub fn current() -> Option<Self> {
        TraceContext::current().map(|context| context.request)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A request's place in its trace (W3C Trace Context, version 00).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    high: u64,
    /// The request's id, the low half of the trace id.
    pub request: RequestId,
    parent: u64,
    sampled: bool,
}

tokio::task_local! {
    static CURRENT: TraceContext;
}

impl TraceContext {
    /// A new request, as the edge makes it.
    #[must_use]
    pub fn new(rng: &Rng) -> Self {
        Self { high: rng.u64(), request: RequestId::new(rng), parent: rng.u64().max(1), sampled: false }
    }

    /// The request being served by this task.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|context| *context).ok()
    }

    /// Reads a `traceparent` value; anything malformed is `None`.
    #[must_use]
    pub fn parse(traceparent: &str) -> Option<Self> {
        let hex = |range: std::ops::Range<usize>| -> Option<u64> {
            let text = traceparent.get(range)?;
            let lower = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            lower.then(|| u64::from_str_radix(text, 16).ok())?
        };
        let dashes = traceparent.len() >= 55 && [2, 35, 52].iter().all(|&at| traceparent.as_bytes()[at] == b'-');
        let version = hex(0..2)?;
        if !dashes || version == 0xff || (version == 0 && traceparent.len() != 55) {
            return None;
        }
        let (high, low, parent, flags) = (hex(3..19)?, hex(19..35)?, hex(36..52)?, hex(53..55)?);
        let valid = low != 0 && parent != 0;
        valid.then_some(Self { high, request: RequestId(low), parent, sampled: flags & 1 == 1 })
    }

    /// The `traceparent` value for calls made by this request.
    #[must_use]
    pub fn traceparent(&self) -> String {
        format!("00-{:016x}{}-{:016x}-{:02x}", self.high, self.request, self.parent, u8::from(self.sampled))
    }

    /// Runs `future` as this request: its id is in every log line, and calls made inside carry the trace.
    pub async fn scope<F: Future>(self, operation: &'static str, future: F) -> F::Output {
        let traced = async move {
            let span = tracing::info_span!("request", op = operation, request_id = %self.request);
            self.adopt(&span);
            future.instrument(span).await
        };
        CURRENT.scope(self, traced).await
    }

    fn adopt(&self, span: &Span) {
        let flags = if self.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
        if self.sampled {
            let parent = SpanId::from(self.parent);
            let remote = SpanContext::new(self.trace_id(), parent, flags, true, TraceState::NONE);
            // Fails only when no exporter is installed, which is the usual case.
            let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(remote));
        }
    }

    fn trace_id(&self) -> TraceId {
        TraceId::from((u128::from(self.high) << 64) | u128::from(self.request.0))
    }

    /// This task's context, with the exported span as parent when there is one.
    fn outgoing() -> Option<Self> {
        let current = Self::current()?;
        let exported = Span::current().context();
        let span = exported.span();
        let ids = span.span_context();
        if !ids.is_valid() {
            return Some(current);
        }
        let trace = u128::from_be_bytes(ids.trace_id().to_bytes());
        let low = u64::try_from(trace & u128::from(u64::MAX)).expect("masked");
        let high = u64::try_from(trace >> 64).expect("shifted");
        let parent = u64::from_be_bytes(ids.span_id().to_bytes());
        Some(Self { high, request: RequestId(low), parent, sampled: ids.is_sampled() })
    }
}

/// Marks an outgoing HTTP request with this task's trace.
pub fn inject(headers: &mut HeaderMap) {
    if let Some(context) = TraceContext::outgoing() {
        let value = http::HeaderValue::from_str(&context.traceparent()).expect("hex and dashes");
        headers.insert(TRACEPARENT, value);
    }
}

/// Marks an outgoing gRPC request with this task's trace.
pub fn inject_metadata(metadata: &mut MetadataMap) {
    if let Some(context) = TraceContext::outgoing() {
        metadata.insert(TRACEPARENT, context.traceparent().parse().expect("hex and dashes"));
    }
}

/// The trace an incoming request belongs to; `None` when it names none or a malformed one.
#[must_use]
pub fn extract(headers: &HeaderMap) -> Option<TraceContext> {
    TraceContext::parse(headers.get(TRACEPARENT)?.to_str().ok()?)
}

#[cfg(test)]
mod tests;
