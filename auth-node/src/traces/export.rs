//! From an ended span to the collector, without anybody waiting for it.
//!
//! A request hands its spans to a bounded queue and goes on. A thread of its own takes batches out of it and encodes
//! them; the runtime carries them. A collector that refuses, hangs or lies costs its traces and nothing else: what does
//! not fit into the queue is dropped and counted, and the log is told when the collector goes and when it is back.
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::Context;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor,
};
use tokio::runtime::Handle;

use crate::config::Telemetry;

/// Batches in a row that fail before the collector counts as away.
const AWAY_AFTER: u32 = 3;

type Failure = Box<dyn std::error::Error>;

/// The queue and everything behind it.
pub fn processor(config: &Telemetry) -> Result<impl SpanProcessor + use<>, Failure> {
    let timeout = Duration::from_millis(config.export_timeout_ms);
    let client =
        reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(timeout);
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", config.otlp_endpoint))
        .with_timeout(timeout)
        .with_http_client(OnRuntime { client: client.build()?, runtime: Handle::current() })
        .build()?;
    let waiting = Arc::new(AtomicUsize::new(0));
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(config.queue_spans)
        .with_max_export_batch_size(config.batch_spans)
        .with_scheduled_delay(Duration::from_millis(config.export_interval_ms))
        .build();
    let watched = Watched { exporter, waiting: Arc::clone(&waiting), failures: AtomicU32::new(0) };
    let batches = BatchSpanProcessor::builder(watched).with_batch_config(batches).build();
    Ok(Bounded { batches, waiting, most: config.queue_spans })
}

/// Takes no more spans than may wait, and counts what it turns away. The library's own queue is as long, so it never
/// drops anything unseen.
#[derive(Debug)]
struct Bounded<P> {
    batches: P,
    waiting: Arc<AtomicUsize>,
    most: usize,
}

impl<P: SpanProcessor> SpanProcessor for Bounded<P> {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        self.batches.on_start(span, cx);
    }

    fn on_end(&self, span: SpanData) {
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= self.most {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            count("dropped", 1);
            return;
        }
        self.batches.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

/// Counts what becomes of each batch.
#[derive(Debug)]
struct Watched<E> {
    exporter: E,
    waiting: Arc<AtomicUsize>,
    failures: AtomicU32,
}

impl<E: SpanExporter> SpanExporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.waiting.fetch_sub(spans, Ordering::AcqRel);
        let outcome = self.exporter.export(batch).await;
        if outcome.is_ok() {
            count("sent", spans);
            if self.failures.swap(0, Ordering::Relaxed) >= AWAY_AFTER {
                tracing::info!("the trace collector takes spans again");
            }
        } else {
            count("failed", spans);
            if self.failures.fetch_add(1, Ordering::Relaxed) + 1 == AWAY_AFTER {
                tracing::warn!("the trace collector does not take spans: traces are lost until it does");
            }
        }
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

fn count(result: &'static str, spans: usize) {
    metrics::counter!("tessera_trace_spans_total", "result" => result).increment(spans as u64);
}

/// The batches' thread has no reactor, so what it sends goes through the node's runtime.
#[derive(Debug)]
struct OnRuntime {
    client: reqwest::Client,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        self.runtime.spawn(async move { client.send_bytes(request).await }).await?
    }
}
