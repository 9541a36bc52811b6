//! `[telemetry]`: where traces go, how many requests are traced, and how much may wait on the way.
use serde::Deserialize;

use super::{ConfigError, check, is_authority};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    pub otlp_endpoint: String,
    pub trace_sample_ratio: f64,
    pub export_interval_ms: u64,
    pub export_timeout_ms: u64,
    pub queue_spans: usize,
    pub batch_spans: usize,
    pub flush_ms: u64,
}

impl Telemetry {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let endpoint = self.otlp_endpoint.as_str();
        let plain = endpoint.strip_prefix("http://").is_some_and(is_authority);
        check(
            endpoint.is_empty() || plain,
            "telemetry.otlp_endpoint",
            "must be http://host:port of a collector near by, or empty; nodes do not speak TLS to it",
        )?;
        let ratio = (0.0..=1.0).contains(&self.trace_sample_ratio);
        check(ratio, "telemetry.trace_sample_ratio", "must be 0.0 to 1.0")?;
        let interval = (100..=60_000).contains(&self.export_interval_ms);
        check(interval, "telemetry.export_interval_ms", "must be 100 to 60000")?;
        let timeout = (100..=60_000).contains(&self.export_timeout_ms);
        check(timeout, "telemetry.export_timeout_ms", "must be 100 to 60000")?;
        check((1..=65_536).contains(&self.queue_spans), "telemetry.queue_spans", "must be 1 to 65536")?;
        check(
            (1..=self.queue_spans).contains(&self.batch_spans),
            "telemetry.batch_spans",
            "must be 1 to telemetry.queue_spans",
        )?;
        check((100..=60_000).contains(&self.flush_ms), "telemetry.flush_ms", "must be 100 to 60000")
    }
}
