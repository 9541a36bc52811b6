//! Logs and metrics. docs/logging.md lists what is never logged.
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::app::App;
use crate::config::{ConfigError, Log, LogFormat};
use crate::log_writer::{self, BatchedStdout};

/// Upper bounds in seconds: fine where the goals are (1–250 ms), coarse beyond.
const LATENCY_BUCKETS: [f64; 16] =
    [0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// One JSON object a line on stdout; `level` takes tracing's directives.
pub fn logs(log: &Log) -> Result<(), ConfigError> {
    let filter = EnvFilter::try_new(&log.level).map_err(|e| ConfigError(format!("log.level: {e}")))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(BatchedStdout);
    log_writer::start();
    match log.format {
        LogFormat::Json => {
            builder.json().flatten_event(true).with_current_span(true).with_span_list(false).init()
        }
        LogFormat::Text => builder.with_ansi(false).init(),
    }
    Ok(())
}

/// Installs the recorder that `/metrics` reads.
pub fn recorder() -> Result<PrometheusHandle, ConfigError> {
    let failed = |e: metrics_exporter_prometheus::BuildError| ConfigError(format!("metrics: {e}"));
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &LATENCY_BUCKETS)
        .map_err(failed)?
        .install_recorder()
        .map_err(failed)
}

pub async fn metrics(State(app): State<App>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics.render())
}
