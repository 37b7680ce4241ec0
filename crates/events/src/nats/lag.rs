//! How far a consumer is behind. NATS counts it, so every replica shows the same: take the greatest, not the sum.

use std::time::Duration;

use async_nats::jetstream::consumer::Info;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use souk_runtime::Metrics;
use tracing::debug;

use super::consume::durable_name;
use super::{NatsBus, stream};

type Gauges = Family<[(&'static str, &'static str); 1], Gauge>;

struct Meters {
    pending: Gauges,
    ack_pending: Gauges,
    redelivered: Gauges,
}

impl Meters {
    fn new(metrics: &Metrics) -> Self {
        Self {
            pending: metrics.register(
                "consumer_pending",
                "Events that wait for the consumer, on the bus; the same on every replica",
            ),
            ack_pending: metrics.register(
                "consumer_ack_pending",
                "Events that the consumer works on, in any replica; the same on every replica",
            ),
            redelivered: metrics.register(
                "consumer_redelivered",
                "Events that were handed out again and are not done; the same on every replica",
            ),
        }
    }

    fn show(&self, consumer: &'static str, info: &Info) {
        let figures = [
            (&self.pending, info.num_pending),
            (&self.ack_pending, info.num_ack_pending as u64),
            (&self.redelivered, info.num_redelivered as u64),
        ];
        for (gauges, figure) in figures {
            gauges.get_or_create(&[("consumer", consumer)]).set(i64::try_from(figure).unwrap_or(i64::MAX));
        }
    }

    /// Nothing is better than what was true once.
    fn forget(&self, consumer: &'static str) {
        for gauges in [&self.pending, &self.ack_pending, &self.redelivered] {
            gauges.remove(&[("consumer", consumer)]);
        }
    }
}

/// Asks from time to time.
pub(super) async fn run(bus: NatsBus, consumer: &'static str) {
    let meters = Meters::new(&bus.0.kernel.metrics);
    loop {
        match ask(&bus, consumer).await {
            Ok(info) => meters.show(consumer, &info),
            Err(error) => {
                meters.forget(consumer);
                debug!(consumer, error = souk_runtime::story(&*error), "lag of the consumer is not known");
            }
        }
        bus.0.clock.sleep(Duration::from_millis(bus.0.config.lag_interval_ms)).await;
    }
}

async fn ask(bus: &NatsBus, consumer: &str) -> Result<Info, Box<dyn std::error::Error + Send + Sync>> {
    let stream = stream::find(&bus.0.jetstream).await?.ok_or("there is no stream")?;
    Ok(stream.consumer_info(durable_name(consumer)).await?)
}
