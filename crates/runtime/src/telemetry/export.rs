//! Spans on their way to the collector, by OTLP over gRPC.
//!
//! Whoever ends a span puts it into a queue and goes on. What does not fit is dropped, as is what the collector does not take in time; both
//! are counted, and told of now and then.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter as OtlpExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{
    IdGenerator, RandomIdGenerator, Sampler, SdkTracerProvider, Span, SpanData, SpanExporter, SpanProcessor,
};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tracing::warn;

use crate::config::check_bounds;
use crate::kernel::Kernel;
use crate::metrics::Metrics;
use crate::story::story;
use crate::trace;

/// The bounds of what is on its way to the collector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExportConfig {
    /// Spans that wait to be sent; one more is dropped.
    pub queue_max: usize,
    /// Spans in one message.
    pub batch_max: usize,
    /// A span waits no longer for others to go with it, in milliseconds.
    pub delay_ms: u64,
    /// A message that the collector has not taken within so many milliseconds is dropped. Also what the end of the process waits for.
    pub timeout_ms: u64,
}

impl Default for ExportConfig {
    fn default() -> Self {
        Self { queue_max: 8_192, batch_max: 512, delay_ms: 1_000, timeout_ms: 3_000 }
    }
}

impl ExportConfig {
    /// Notes what cannot be; `at` is where the settings stand.
    pub fn validate(&self, at: &str, problems: &mut Vec<String>) {
        check_bounds(problems, at, 1..=QUEUE_MAX, &[("queue_max", self.queue_max as u64)]);
        check_bounds(problems, at, 1..=BATCH_MAX, &[("batch_max", self.batch_max as u64)]);
        let times = [("delay_ms", self.delay_ms), ("timeout_ms", self.timeout_ms)];
        check_bounds(problems, at, 1..=WAIT_MS_MAX, &times);
    }
}

/// A waiting span takes about a kilobyte.
const QUEUE_MAX: u64 = 262_144;
/// Collectors take four megabytes in a message.
const BATCH_MAX: u64 = 2_048;
/// Traces that are older are of no use to whoever looks for a fault.
const WAIT_MS_MAX: u64 = 60_000;
/// Lost spans are told of no more often.
const TELL_EVERY: Duration = Duration::from_mins(1);

/// What sends the spans.
#[derive(Debug)]
pub(super) struct Export {
    pub(super) provider: SdkTracerProvider,
    sending: JoinHandle<()>,
    end: CancellationToken,
    timeout: Duration,
}

impl Export {
    /// Begins to send to `endpoint`, on the current runtime; connected when there is something to send.
    pub(super) fn start(
        name: &'static str,
        kernel: &Kernel,
        endpoint: &str,
        ca_file: &str,
        config: &ExportConfig,
    ) -> anyhow::Result<Self> {
        let timeout = Duration::from_millis(config.timeout_ms);
        let channel = channel(endpoint, ca_file, timeout)?;
        let exporter = OtlpExporter::builder().with_tonic().with_channel(channel).with_timeout(timeout).build()?;
        let resource = resource(name, kernel);
        let (queue, waiting) = mpsc::channel(config.queue_max);
        let meters = Meters::new(&kernel.metrics);
        let queue = Queue { queue, full: meters.dropped("queue_full") };
        let mut sender = Sender { exporter, waiting, config: config.clone(), meters, told: None };
        sender.exporter.set_resource(&resource);
        let provider = SdkTracerProvider::builder()
            // It is asked only for traces that are recorded.
            .with_sampler(Sampler::AlwaysOn)
            .with_id_generator(Positions::default())
            .with_resource(resource)
            .with_span_processor(queue)
            .build();
        let end = CancellationToken::new();
        let sending = tokio::spawn(sender.run(end.clone()));
        Ok(Self { provider, sending, end, timeout })
    }

    /// Sends what waits, and gives up after a time-out.
    pub(super) async fn close(self) {
        self.end.cancel();
        let stop = self.sending.abort_handle();
        if tokio::time::timeout(self.timeout, self.sending).await.is_err() {
            stop.abort();
            warn!("the last spans could not be sent in time");
        }
    }
}

fn channel(endpoint: &str, ca_file: &str, timeout: Duration) -> anyhow::Result<Channel> {
    let mut address = Endpoint::from_shared(endpoint.to_owned())
        .with_context(|| format!("telemetry.otlp_endpoint: {endpoint} is no address"))?
        .connect_timeout(timeout)
        .timeout(timeout);
    if endpoint.starts_with("https://") {
        let authority = std::fs::read(ca_file)
            .with_context(|| format!("telemetry.otlp_ca_file: {ca_file:?} cannot be read, and https needs it"))?;
        address = address.tls_config(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority)))?;
    }
    Ok(address.connect_lazy())
}

/// What the spans come from. `OTEL_RESOURCE_ATTRIBUTES` adds to it, and `OTEL_SERVICE_NAME` renames it.
fn resource(name: &'static str, kernel: &Kernel) -> Resource {
    let ours = [
        KeyValue::new("service.namespace", "souk"),
        KeyValue::new("service.name", name),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", kernel.ids.new_id().to_string()),
    ];
    let resource = Resource::builder_empty()
        .with_attributes(ours)
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()));
    match std::env::var("OTEL_SERVICE_NAME") {
        Ok(name) if !name.is_empty() => resource.with_service_name(name).build(),
        _ => resource.build(),
    }
}

/// Ids of spans: those of the position at which a span begins, or new ones for the spans within it.
#[derive(Debug, Default)]
struct Positions(RandomIdGenerator);

impl IdGenerator for Positions {
    fn new_trace_id(&self) -> TraceId {
        trace::starting().map_or_else(|| self.0.new_trace_id(), |(trace_id, _)| trace_id.into())
    }

    fn new_span_id(&self) -> SpanId {
        trace::starting().map_or_else(|| self.0.new_span_id(), |(_, span_id)| span_id.into())
    }
}

/// What is counted.
#[derive(Clone, Debug)]
struct Meters {
    exported: Counter,
    dropped: Family<[(&'static str, &'static str); 1], Counter>,
}

impl Meters {
    fn new(metrics: &Metrics) -> Self {
        Self {
            exported: metrics.register("telemetry_spans_exported", "Spans that the collector has taken"),
            dropped: metrics.register("telemetry_spans_dropped", "Spans that were lost, by why"),
        }
    }

    fn dropped(&self, reason: &'static str) -> Counter {
        self.dropped.get_or_create(&[("reason", reason)]).clone()
    }
}

/// Where ended spans are put.
#[derive(Debug)]
struct Queue {
    queue: mpsc::Sender<SpanData>,
    full: Counter,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.queue.try_send(span).is_err() {
            self.full.inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(()) // `Export::close` does
    }
}

struct Sender {
    exporter: OtlpExporter,
    waiting: mpsc::Receiver<SpanData>,
    config: ExportConfig,
    meters: Meters,
    /// When losses were told of, and how many there had been.
    told: Option<(Instant, u64)>,
}

impl Sender {
    /// Sends batches until the end, and then what is left.
    async fn run(mut self, end: CancellationToken) {
        let mut batch = Vec::new();
        loop {
            let first = tokio::select! {
                taken = self.waiting.recv_many(&mut batch, self.config.batch_max) => taken,
                () = end.cancelled() => 0,
            };
            if first == 0 && !end.is_cancelled() {
                return; // nobody makes spans any more
            }
            self.gather(&mut batch, &end).await;
            if batch.is_empty() {
                return;
            }
            self.send(std::mem::take(&mut batch)).await;
        }
    }

    /// Waits for others to go with the first, until the batch is full or the delay is over.
    async fn gather(&mut self, batch: &mut Vec<SpanData>, end: &CancellationToken) {
        let by = Instant::now() + Duration::from_millis(self.config.delay_ms);
        while batch.len() < self.config.batch_max {
            let room = self.config.batch_max - batch.len();
            tokio::select! {
                biased;
                taken = self.waiting.recv_many(batch, room) => if taken == 0 { return },
                () = tokio::time::sleep_until(by) => return,
                () = end.cancelled() => return,
            }
        }
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        let count = batch.len() as u64;
        let sending = self.exporter.export(batch);
        let timeout = Duration::from_millis(self.config.timeout_ms);
        let error: Arc<dyn std::error::Error + Send + Sync> = match tokio::time::timeout(timeout, sending).await {
            Ok(Ok(())) => {
                self.meters.exported.inc_by(count);
                return;
            }
            Ok(Err(error)) => Arc::new(error),
            Err(late) => Arc::new(late),
        };
        self.meters.dropped("not_taken").inc_by(count);
        self.tell(&*error);
    }

    fn tell(&mut self, error: &(dyn std::error::Error + 'static)) {
        let lost = self.meters.dropped("not_taken").get() + self.meters.dropped("queue_full").get();
        let before = match self.told {
            Some((told_at, _)) if told_at.elapsed() < TELL_EVERY => return,
            Some((_, before)) => before,
            None => 0,
        };
        self.told = Some((Instant::now(), lost));
        warn!(spans = lost - before, error = story(error), "spans were lost: the collector does not take them");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let usual = ExportConfig::default();
        let bad = [
            ("queue_max", ExportConfig { queue_max: 0, ..usual.clone() }),
            ("queue_max", ExportConfig { queue_max: 262_145, ..usual.clone() }),
            ("batch_max", ExportConfig { batch_max: 0, ..usual.clone() }),
            ("batch_max", ExportConfig { batch_max: 2_049, ..usual.clone() }),
            ("delay_ms", ExportConfig { delay_ms: 0, ..usual.clone() }),
            ("delay_ms", ExportConfig { delay_ms: 60_001, ..usual.clone() }),
            ("timeout_ms", ExportConfig { timeout_ms: 0, ..usual.clone() }),
            ("timeout_ms", ExportConfig { timeout_ms: 60_001, ..usual.clone() }),
        ];
        for (name, config) in bad {
            let mut problems = Vec::new();
            config.validate("export", &mut problems);
            assert_eq!(problems.len(), 1, "{name}: {problems:?}");
            assert!(problems[0].starts_with(&format!("export.{name} must be ")), "{problems:?}");
        }
        let mut problems = Vec::new();
        usual.validate("export", &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
    }
}
