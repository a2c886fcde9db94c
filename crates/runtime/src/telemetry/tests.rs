use std::sync::Arc;

use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::SpanData;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::Rng;

const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn w3c_example_round_trips() {
    let context = TraceContext::parse(EXAMPLE).expect("valid");
    assert_eq!(context.request.to_string(), "a3ce929d0e0e4736");
    assert_eq!(context.traceparent(), EXAMPLE);
}

#[test]
fn malformed_traceparents_are_ignored() {
    let zero = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
    let upper = EXAMPLE.to_uppercase();
    let longer = format!("{EXAMPLE}-x");
    for bad in ["", "00", zero, &upper, &longer, &EXAMPLE.replace("00-", "ff-"), &EXAMPLE.replace('-', "_")] {
        assert_eq!(TraceContext::parse(bad), None, "{bad}");
    }
    assert!(TraceContext::parse(&longer.replacen("00", "01", 1)).is_some(), "a later version may be longer");
}

proptest! {
    #[test]
    fn parse_never_panics(text in "\\PC{0,80}") {
        let _ = TraceContext::parse(&text);
    }
}

#[tokio::test]
async fn calls_inside_a_request_carry_its_trace() {
    let context = TraceContext::new(&Rng::seeded(1));
    let (id, headers) = context
        .scope("test", async {
            let mut headers = HeaderMap::new();
            inject(&mut headers);
            (RequestId::current(), headers)
        })
        .await;
    assert_eq!(id, Some(context.request));
    assert_eq!(extract(&headers), Some(context));
    assert_eq!(RequestId::current(), None);
}

/// Keeps what is exported.
#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Vec<SpanData>>>);

impl opentelemetry_sdk::trace::SpanExporter for Kept {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().extend(batch);
        Ok(())
    }
}

/// Runs `call` with spans exported, and gives its result with the exported spans.
fn exported<T>(percent: u8, call: impl Future<Output = T>) -> (T, Vec<SpanData>) {
    let kept = Kept::default();
    let provider = provider("test", kept.clone(), &LogConfig { otlp_percent: percent, ..LogConfig::default() });
    let spans = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    let subscriber = tracing_subscriber::registry().with(spans);
    let result = tracing::subscriber::with_default(subscriber, || runtime.block_on(call));
    provider.force_flush().expect("flushed");
    let spans = kept.0.lock().clone();
    (result, spans)
}

#[test]
fn exported_trace_has_the_requests_id_and_spans_chain_over_a_call() {
    let edge = TraceContext::new(&Rng::seeded(3));
    let inner = async {
        let mut headers = HeaderMap::new();
        inject(&mut headers);
        let arrived = extract(&headers).expect("injected");
        assert_eq!(arrived.request, edge.request);
        arrived.scope("inner", async {}).await;
    };
    let ((), spans) = exported(100, edge.scope("outer", inner));
    let ids: Vec<_> = spans.iter().map(|span| span.span_context.trace_id().to_string()).collect();
    assert_eq!(ids.len(), 2, "{spans:?}");
    assert!(ids.iter().all(|id| id.ends_with(&edge.request.to_string())), "{ids:?} of {}", edge.request);
    let (inner, outer) = (&spans[0], &spans[1]);
    assert_eq!(inner.parent_span_id, outer.span_context.span_id());
    assert_eq!(outer.parent_span_id, SpanId::INVALID);
}

#[test]
fn unsampled_traces_are_not_exported_but_keep_their_id() {
    let edge = TraceContext::new(&Rng::seeded(4));
    let call = async {
        let mut headers = HeaderMap::new();
        inject(&mut headers);
        extract(&headers)
    };
    let (arrived, spans) = exported(0, edge.scope("outer", call));
    assert_eq!(arrived.map(|context| (context.request, context.sampled)), Some((edge.request, false)));
    assert!(spans.is_empty());
}

#[tokio::test]
async fn bad_settings_are_refused() {
    let bad = LogConfig { filter: "no=such=filter".to_owned(), ..LogConfig::default() };
    assert!(init("test", &bad).is_err());
    assert_eq!(problems(&LogConfig { otlp_percent: 101, ..bad }).len(), 2);
    assert!(exporter("not an address").is_err());
    assert!(exporter("http://127.0.0.1:4317").is_ok());
}
