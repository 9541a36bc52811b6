//! Logs and metrics, and where traces branch off. docs/logging.md lists what is never logged.
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::fmt::format::{DefaultFields, Format, JsonFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::app::App;
use crate::config::{ConfigError, Log, LogFormat};
use crate::log_writer::{self, BatchedStdout};
use crate::metrics_reference;
use crate::traces::Traces;

/// Upper bounds in seconds: fine where the goals are (1–250 ms), coarse beyond.
const LATENCY_BUCKETS: [f64; 16] =
    [0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// One JSON object a line on stdout; `level` takes tracing's directives. Without traces the filter stands before
/// everything, so that a span nobody wants costs one comparison.
pub fn logs(log: &Log, traces: Option<&Traces>) -> Result<(), ConfigError> {
    let filter = EnvFilter::try_new(&log.level).map_err(|e| ConfigError(format!("log.level: {e}")))?;
    let registry = tracing_subscriber::registry();
    log_writer::start();
    match (log.format, traces) {
        (LogFormat::Json, None) => registry.with(filter).with(json()).init(),
        (LogFormat::Text, None) => registry.with(filter).with(text()).init(),
        (LogFormat::Json, Some(t)) => registry.with(json().with_filter(filter)).with(t.layer()).init(),
        (LogFormat::Text, Some(t)) => registry.with(text().with_filter(filter)).with(t.layer()).init(),
    }
    Ok(())
}

type Lines<S, F, E> = fmt::Layer<S, F, E, BatchedStdout>;

fn json<S>() -> Lines<S, JsonFields, Format<fmt::format::Json>> {
    let lines = fmt::layer().json().flatten_event(true).with_current_span(true).with_span_list(false);
    lines.with_writer(BatchedStdout)
}

fn text<S>() -> Lines<S, DefaultFields, Format> {
    fmt::layer().with_ansi(false).with_writer(BatchedStdout)
}

/// Installs the recorder that `/metrics` reads.
pub fn recorder() -> Result<PrometheusHandle, ConfigError> {
    let failed = |e: metrics_exporter_prometheus::BuildError| ConfigError(format!("metrics: {e}"));
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &LATENCY_BUCKETS)
        .map_err(failed)?
        .install_recorder()
        .map_err(failed)?;
    metrics_reference::describe();
    // Makes the texts visible.
    handle.run_upkeep();
    Ok(handle)
}

pub async fn metrics(State(app): State<App>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics.render())
}
