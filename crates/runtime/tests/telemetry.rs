//! A collector that cannot be reached costs nothing but the spans.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

use std::time::{Duration, Instant};

use souk_runtime::telemetry::{ExportConfig, Telemetry};
use souk_runtime::{Clock, Kernel, TelemetryConfig};
use tokio::net::TcpListener;
use tracing::info_span;

const SPANS: usize = 5_000;

/// It takes connections and never says a word: worse than one that is not there.
async fn silent_collector() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    (listener, address)
}

fn count(kernel: &Kernel, series: &str) -> u64 {
    let text = kernel.metrics.encode();
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_silent_collector_does_not_take_is_dropped_and_counted_and_nobody_waits() {
    let (_listener, otlp_endpoint) = silent_collector().await;
    let kernel = Kernel::new(Clock::system());
    let export = ExportConfig { queue_max: 100, batch_max: 10, delay_ms: 1, timeout_ms: 200 };
    let config = TelemetryConfig { otlp_endpoint, sample_permille: 1_000, export, ..TelemetryConfig::default() };
    let telemetry = Telemetry::start(&config, "test", &kernel).unwrap();
    let begun = Instant::now();
    for _ in 0..SPANS {
        drop(telemetry.tracer.span(None, || info_span!(target: "souk_test", "work", otel.kind = "internal")));
    }
    // Were a single one to wait for the collector, it would be 200 milliseconds.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let full = || count(&kernel, "telemetry_spans_dropped_total{reason=\"queue_full\"}");
    assert!(full() >= SPANS as u64 / 2, "{}", kernel.metrics.encode());
    let begun = Instant::now();
    telemetry.close().await;
    assert!(begun.elapsed() < Duration::from_secs(10), "the end does not wait for ever: {:?}", begun.elapsed());
    assert!(count(&kernel, "telemetry_spans_dropped_total{reason=\"not_taken\"}") > 0, "{}", kernel.metrics.encode());
    assert_eq!(count(&kernel, "telemetry_spans_exported_total"), 0);
}
