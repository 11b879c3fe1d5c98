//! Traces for `OpenTelemetry`, with the feature `otel`: the spans that the log's filter lets
//! through are sent to a collector, by HTTP, from a thread of the exporter. A collector that is
//! slow or gone delays nobody; its spans are lost.
//!
//! The standard environment variables configure it; without an endpoint nothing is sent.

use std::env;
use std::sync::OnceLock;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracerProvider, Tracer};
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::registry::LookupSpan;

/// The name of the service, unless `OTEL_SERVICE_NAME` has another.
const SERVICE: &str = "strandline";

/// The variables of which one must be set.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];

/// What sends the spans, until the end of the process.
static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// The layer of the log that sends spans, if there is an endpoint; the error is for the log.
pub(super) fn layer<S>() -> Result<Option<OpenTelemetryLayer<S, Tracer>>, String>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    if !ENDPOINTS.iter().any(|name| env::var_os(name).is_some()) {
        return Ok(None);
    }
    let exporter = SpanExporter::builder()
        .with_http()
        .build()
        .map_err(|problem| format!("spans are not sent to a collector: {problem}"))?;
    let name = env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| SERVICE.into());
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(Resource::builder().with_service_name(name).build())
        .build();
    let tracer = provider.tracer(SERVICE);
    // The log is started once.
    let _ = PROVIDER.set(provider);
    Ok(Some(tracing_opentelemetry::layer().with_tracer(tracer)))
}

/// Sends what is left, at the end of the process.
pub fn finish_traces() {
    if let Some(provider) = PROVIDER.get() {
        // The process ends whether the collector answers or not.
        let _ = provider.shutdown();
    }
}
