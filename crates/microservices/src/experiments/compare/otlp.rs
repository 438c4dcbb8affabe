//! How do spans leave their process? In batches, to a collector, as OpenTelemetry's protocol says it (OTLP over HTTP, in
//! protobuf). Any collector understands that. A small one for experiments is here too.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::http::{StatusCode, header::CONTENT_TYPE};
use axum::{Router, body::Bytes, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span as Sent, Status, status::StatusCode as Code},
};
use prost::Message;
use reqwest::Client;
use tokio::time::sleep;

use crate::call::{Span, Spans};

/// Between two batches.
const EVERY: Duration = Duration::from_millis(200);
/// For one batch.
const PATIENCE: Duration = Duration::from_secs(5);
/// Answers after which the specification lets a batch be sent again.
const AGAIN: [u16; 4] = [429, 502, 503, 504];
/// Spans in a batch.
const BATCH: usize = 512;
const PROTOBUF: &str = "application/x-protobuf";

// ANCHOR: export
/// Sends the spans of this process, for ever. While the collector is away they wait, and the oldest are forgotten. What is
/// not sent when the process ends is lost. No request waits for any of this.
pub async fn export(spans: Arc<Spans>, collector: String) -> reqwest::Result<()> {
    let http = Client::builder().no_proxy().timeout(PATIENCE).build()?;
    let (url, mut seen) = (format!("{}/v1/traces", collector.trim_end_matches('/')), 0);
    loop {
        let (some, now) = spans.after(seen, BATCH);
        if some.is_empty() {
            sleep(EVERY).await;
            continue;
        }
        let batch = batch(spans.service, &some).encode_to_vec();
        let sent = http.post(&url).header(CONTENT_TYPE, PROTOBUF).body(batch).send().await;
        match sent {
            Ok(answer) if answer.status().is_success() => seen = now,
            // It would refuse them again, and all later spans would wait behind them.
            Ok(answer) if !AGAIN.contains(&answer.status().as_u16()) => {
                tracing::warn!(status = %answer.status(), "the collector refuses spans");
                seen = now;
            }
            _ => {
                tracing::debug!("the collector did not take spans");
                sleep(EVERY).await;
            }
        }
    }
}
// ANCHOR_END: export

fn batch(service: &str, spans: &[(u128, Span)]) -> ExportTraceServiceRequest {
    let value = AnyValue { value: Some(Value::StringValue(service.to_owned())) };
    let name = KeyValue { key: "service.name".into(), value: Some(value), ..Default::default() };
    let resource = Resource { attributes: vec![name], ..Default::default() };
    let scope = InstrumentationScope { name: "microservices".into(), ..Default::default() };
    let spans = spans.iter().map(|(trace, span)| sent(*trace, span)).collect();
    let of_scope = ScopeSpans { scope: Some(scope), spans, ..Default::default() };
    let all = ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![of_scope],
        ..Default::default()
    };
    ExportTraceServiceRequest { resource_spans: vec![all] }
}

fn sent(trace: u128, span: &Span) -> Sent {
    let id = |digits: &str| u64::from_str_radix(digits, 16).unwrap_or(0);
    let parent = id(&span.parent);
    let begun = u64::try_from(span.at.unix_timestamp_nanos()).unwrap_or(0);
    let code = if span.failed { Code::Error } else { Code::Unset };
    Sent {
        trace_id: trace.to_be_bytes().to_vec(),
        span_id: id(&span.id).to_be_bytes().to_vec(),
        // A span without a parent has none, and not one of zeros.
        parent_span_id: if parent == 0 { Vec::new() } else { parent.to_be_bytes().to_vec() },
        name: span.name.to_string(),
        start_time_unix_nano: begun,
        end_time_unix_nano: begun.saturating_add(span.micros.saturating_mul(1_000)),
        status: Some(Status { code: code.into(), ..Default::default() }),
        ..Default::default()
    }
}

/// Everything that a collector was told: the service, and the span.
#[derive(Clone, Debug, Default)]
pub struct Collector(Arc<Mutex<Vec<(String, Sent)>>>);

impl Collector {
    /// `POST /v1/traces`.
    pub fn router(&self) -> Router {
        let told = self.clone();
        let take = move |body: Bytes| async move {
            let Ok(request) = ExportTraceServiceRequest::decode(body) else {
                return StatusCode::BAD_REQUEST;
            };
            told.take(request);
            StatusCode::OK
        };
        Router::new().route("/v1/traces", post(take))
    }

    fn take(&self, request: ExportTraceServiceRequest) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for all in request.resource_spans {
            let attributes = all.resource.map(|it| it.attributes).unwrap_or_default();
            let service = attributes.into_iter().find(|it| it.key == "service.name");
            let service = match service.and_then(|it| it.value?.value) {
                Some(Value::StringValue(name)) => name,
                _ => String::new(),
            };
            let spans = all.scope_spans.into_iter().flat_map(|it| it.spans);
            told.extend(spans.map(|span| (service.clone(), span)));
        }
    }

    /// The spans of a trace, each as its service and its id, in order.
    pub fn of(&self, trace: u128) -> Vec<(String, String)> {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let its = told.iter().filter(|(_, span)| span.trace_id == trace.to_be_bytes());
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut spans: Vec<_> =
            its.map(|(service, span)| (service.clone(), hex(&span.span_id))).collect();
        spans.sort();
        spans
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn a_span_is_written_as_the_specification_says() {
        let span = |parent: &str| Span {
            id: "00f067aa0ba902b7".into(),
            parent: parent.into(),
            service: "orders".into(),
            name: "place".into(),
            at: OffsetDateTime::UNIX_EPOCH + Duration::from_secs(1),
            micros: 5,
            failed: true,
        };
        let child = sent(7, &span("00000000000000aa"));
        assert_eq!((child.trace_id.len(), child.trace_id[15]), (16, 7));
        assert_eq!(child.span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
        assert_eq!(child.parent_span_id, [0, 0, 0, 0, 0, 0, 0, 0xaa]);
        assert_eq!(child.start_time_unix_nano, 1_000_000_000);
        assert_eq!(child.end_time_unix_nano, 1_000_005_000);
        assert_eq!(child.status.map(|it| it.code), Some(2));
        assert!(sent(7, &span("0000000000000000")).parent_span_id.is_empty());
    }
}
