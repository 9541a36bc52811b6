//! Traces: which requests are traced, and where their spans go. docs/tracing.md says what is in a span and what never is.
//!
//! Without a collector there is no layer and no dice, and the spans of the services and the store, all at level `TRACE`,
//! are switched off where they would be made. With one, a request that is not traced makes no span either: a span below
//! the request's is made only where the request's is.
mod export;
mod request;

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Level, Metadata, Subscriber};
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::DynFilterFn;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::config::{ConfigError, Telemetry};

pub use request::{Seen, end, open};

/// The target of the one span that begins a trace.
const ROOT: &str = "auth_node::traced";
/// How the targets of our crates begin, whose spans may be parts of a trace. Libraries have spans of their own, with
/// whatever they like in them.
const OURS: &str = "auth_";

/// The way to the collector. Cheap to clone.
#[derive(Clone)]
pub struct Traces {
    provider: SdkTracerProvider,
    ratio: f64,
    flush: Duration,
}

impl Traces {
    /// `None` if no collector is configured. Call it inside the runtime, which then carries what is sent.
    pub fn start(config: &Telemetry) -> Result<Option<Self>, ConfigError> {
        if config.otlp_endpoint.is_empty() {
            return Ok(None);
        }
        let processor =
            export::processor(config).map_err(|e| ConfigError(format!("telemetry.otlp_endpoint: {e}")))?;
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            // Whoever gets here was sampled; what a caller's flags say is not asked.
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(resource())
            .build();
        let flush = Duration::from_millis(config.flush_ms);
        Ok(Some(Self { provider, ratio: config.trace_sample_ratio, flush }))
    }

    /// Whether the request that throws these dice (0 to 1) is traced.
    pub fn takes(&self, dice: f64) -> bool {
        dice < self.ratio
    }

    /// What turns spans into traces.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        // Neither files and lines nor threads: they say nothing that the span's name does not. The contexts of
        // OpenTelemetry need not be current, since all spans are made through `tracing`.
        let layer: OpenTelemetryLayer<S, _> =
            tracing_opentelemetry::layer().with_tracer(self.provider.tracer("auth-node"));
        let layer = layer.with_location(false).with_threads(false).with_target(false);
        let layer = layer.with_tracked_inactivity(false).with_context_activation(false);
        let wanted = |meta: &Metadata<'_>, cx: &Context<'_, S>| {
            begins_trace(meta) || (continues_trace(meta) && cx.lookup_current().is_some())
        };
        let filter = DynFilterFn::new(wanted).with_callsite_filter(|meta| {
            if begins_trace(meta) {
                Interest::always()
            } else if continues_trace(meta) {
                Interest::sometimes()
            } else {
                Interest::never()
            }
        });
        layer.with_filter(filter.with_max_level_hint(LevelFilter::TRACE))
    }

    /// Sends what still waits, for a bounded time. After it nothing is traced.
    pub async fn flush(&self) {
        let (provider, limit) = (self.provider.clone(), self.flush);
        let sent = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(limit)).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::warn!("the last spans were not sent to the trace collector");
        }
    }
}

/// The id of the trace that the current request belongs to, if it is traced.
pub fn current_id() -> Option<String> {
    let context = tracing::Span::current().context();
    let span = context.span();
    let id = span.span_context();
    id.is_valid().then(|| id.trace_id().to_string())
}

fn begins_trace(meta: &Metadata<'_>) -> bool {
    meta.target() == ROOT && meta.is_span()
}

fn continues_trace(meta: &Metadata<'_>) -> bool {
    meta.is_span() && *meta.level() == Level::TRACE && meta.target().starts_with(OURS)
}

/// Who sends: every process start is an instance of its own.
fn resource() -> Resource {
    let attributes = [
        KeyValue::new("service.name", "tessera-auth-node"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", format!("{:032x}", rand::random::<u128>())),
    ];
    Resource::builder_empty().with_attributes(attributes).build()
}
