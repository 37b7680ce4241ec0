//! The relay: empties the outbox of one database onto the bus.
//!
//! One relay at a time, by lease, whatever the number of replicas. That is for economy: were there two, consumers would see repetitions,
//! which their inboxes know. All that it knows stands in the database, so it can stop anywhere and begin anew.

mod place;
mod term;

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use souk_db::lease::{self, Lease};
use souk_db::{Db, Error};
use souk_runtime::config::{BATCH, MS_MAX, check_bounds};
use souk_runtime::{Kernel, Metrics, story};
use tokio::sync::Notify;
use tracing::{Instrument, debug, info, info_span, warn};
use uuid::Uuid;

use crate::bus::Bus;
use crate::outbox::Backlog;
use crate::pause::{KEEP_HOURS_MAX, backoff, delta};
use crate::steps::Steps;
use term::{End, Term};

/// The bounds of a relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RelayConfig {
    /// Events that are read from the outbox at once.
    pub batch_max: u32,
    /// Aggregates whose events are being published, or could not be and wait for the next try. All taken: nothing else is published.
    pub aggregates_max: usize,
    /// Events of one aggregate that are read at once.
    pub chain_max: u32,
    /// The outbox is looked at every so many milliseconds even if nobody wakes the relay: for what other replicas have written.
    pub poll_interval_ms: u64,
    /// A relay that does not renew its lease for so long, in milliseconds, is replaced by another replica's.
    pub lease_ttl_ms: u64,
    /// The pause after the first failure, of an aggregate or of the database, in milliseconds. It doubles with each further one.
    pub backoff_first_ms: u64,
    /// The longest pause, in milliseconds.
    pub backoff_max_ms: u64,
    /// Published events stay for so many hours, so that a lost bus can be refilled. Shorter than consumers keep their inboxes.
    pub keep_hours: u32,
    /// Events that have stayed long enough are looked for every so many milliseconds.
    pub sweep_interval_ms: u64,
    /// So many of them are deleted in one transaction, or, after a bus was lost, set to be published again.
    pub sweep_batch_max: u32,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            batch_max: 512,
            aggregates_max: 256,
            chain_max: 64,
            poll_interval_ms: 1_000,
            lease_ttl_ms: 15_000,
            backoff_first_ms: 100,
            backoff_max_ms: 10_000,
            keep_hours: 7 * 24,
            sweep_interval_ms: 60_000,
            sweep_batch_max: 500,
        }
    }
}

impl RelayConfig {
    /// Notes what cannot be; `at` is where the settings stand.
    pub fn validate(&self, at: &str, problems: &mut Vec<String>) {
        let batches = [
            ("batch_max", self.batch_max.into()),
            ("aggregates_max", self.aggregates_max as u64),
            ("chain_max", self.chain_max.into()),
            ("sweep_batch_max", self.sweep_batch_max.into()),
        ];
        check_bounds(problems, at, BATCH, &batches);
        let times = [
            ("poll_interval_ms", self.poll_interval_ms),
            ("lease_ttl_ms", self.lease_ttl_ms),
            ("backoff_first_ms", self.backoff_first_ms),
            ("backoff_max_ms", self.backoff_max_ms),
            ("sweep_interval_ms", self.sweep_interval_ms),
        ];
        check_bounds(problems, at, 1..=MS_MAX, &times);
        check_bounds(problems, at, 0..=KEEP_HOURS_MAX, &[("keep_hours", self.keep_hours.into())]);
    }
}

/// Publishes the outbox of one database.
#[derive(Debug)]
pub struct Relay {
    kernel: Kernel,
    db: Db,
    bus: Bus,
    config: RelayConfig,
    holder: Uuid,
    wake: Arc<Notify>,
    meters: Meters,
    steps: Steps,
}

/// Wakes a relay. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RelayHandle(Arc<Notify>);

impl RelayHandle {
    /// There is something new in the outbox: call it after the commit. Many calls cost as much as one.
    pub fn wake(&self) {
        self.0.notify_one();
    }
}

impl Relay {
    /// Starts the relay of a database in the background, until the kernel's tasks stop. `service` names it in metrics and logs. On a
    /// [memory bus](Bus::memory), the service's own consumers subscribe before.
    pub fn start(kernel: Kernel, service: &'static str, db: Db, bus: Bus, config: RelayConfig) -> RelayHandle {
        let tasks = kernel.tasks.clone();
        let relay = Self::new(kernel, service, db, bus, config, Steps::default());
        let handle = relay.handle();
        tasks.spawn("relay", relay.run().instrument(info_span!("relay", service)));
        handle
    }

    pub(crate) fn new(
        kernel: Kernel,
        service: &'static str,
        db: Db,
        bus: Bus,
        config: RelayConfig,
        steps: Steps,
    ) -> Self {
        let meters = Meters::new(&kernel.metrics, service);
        let holder = kernel.ids.new_id();
        Self { kernel, db, bus, config, holder, wake: Arc::default(), meters, steps }
    }

    pub(crate) fn handle(&self) -> RelayHandle {
        RelayHandle(self.wake.clone())
    }

    /// Serves one term after the other; without the lease, stands by.
    pub(crate) async fn run(self) {
        let shutdown = self.kernel.tasks.shutdown();
        let mut failures = 0;
        while !shutdown.is_cancelled() {
            let pause = match self.serve(&mut failures).await {
                Ok(()) => self.standby_pause(),
                Err(error) => {
                    failures = failures.saturating_add(1);
                    warn!(failures, error = story(&error), "relay stopped: its database failed");
                    self.backoff(failures)
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.kernel.clock.sleep(pause) => {}
            }
        }
    }

    /// Takes the lease, if it is to be had, and publishes until it is lost or the process ends.
    async fn serve(&self, failures: &mut u32) -> Result<(), Error> {
        let Some(lease) = self.acquire().await? else { return Ok(()) };
        info!(epoch = lease.epoch, "relay has the lease");
        let mut term = Term::new(self, lease.clone());
        let end = term.run(failures).await;
        // What was being published is let go: it is not marked, so it will be published again.
        drop(term);
        self.meters.forget_backlog();
        match end? {
            End::LeaseLost => info!(epoch = lease.epoch, "relay has lost the lease"),
            End::Shutdown => self.give_up(&lease).await,
        }
        Ok(())
    }

    /// Takes or extends the lease; `None`: another relay has it.
    async fn acquire(&self) -> Result<Option<Lease>, Error> {
        let mut tx = self.db.write().await?;
        let ttl = delta(Duration::from_millis(self.config.lease_ttl_ms));
        let lease = lease::acquire(&mut tx, LEASE, self.holder, self.kernel.clock.now(), ttl).await?;
        tx.commit().await?;
        Ok(lease)
    }

    /// Lets another relay begin at once.
    async fn give_up(&self, lease: &Lease) {
        let released = async {
            let mut tx = self.db.write().await?;
            lease::release(&mut tx, lease, self.holder, self.kernel.clock.now()).await?;
            tx.commit().await
        };
        if let Err(error) = released.await {
            let error: Error = error;
            debug!(error = story(&error), "relay could not give its lease up: it will run out");
        }
    }

    /// A third of the lease: it can be missed twice before another relay takes over.
    fn standby_pause(&self) -> Duration {
        Duration::from_millis((self.config.lease_ttl_ms / 3).max(1))
    }

    fn backoff(&self, failures: u32) -> Duration {
        let fraction = self.kernel.ids.random_fraction();
        backoff(failures, self.config.backoff_first_ms, self.config.backoff_max_ms, fraction)
    }
}

/// One outbox a database, one lease.
const LEASE: &str = "outbox relay";

/// What is measured of a relay.
#[derive(Debug)]
struct Meters {
    service: [(&'static str, &'static str); 1],
    published: Counter,
    failed: Counter,
    republished: Counter,
    unpublished: Family<[(&'static str, &'static str); 1], Gauge>,
    oldest_seconds: Family<[(&'static str, &'static str); 1], Gauge>,
}

impl Meters {
    fn new(metrics: &Metrics, service: &'static str) -> Self {
        let service = [("service", service)];
        let counter = |name, help| metrics.register_labelled(name, help, &service);
        Self {
            published: counter("outbox_published", "Events that the bus has acknowledged"),
            failed: counter("outbox_publish_failures", "Events that the bus could not take"),
            republished: counter("outbox_republished", "Events that are published again, because a bus has lost them"),
            unpublished: metrics
                .register("outbox_unpublished", "Events that wait to be published, counted up to 10000"),
            oldest_seconds: metrics
                .register("outbox_oldest_unpublished_seconds", "Age of the oldest event that waits to be published"),
            service,
        }
    }

    fn show_backlog(&self, backlog: Backlog, age: TimeDelta) {
        self.unpublished.get_or_create(&self.service).set(backlog.events);
        self.oldest_seconds.get_or_create(&self.service).set(age.num_seconds());
    }

    /// Only the relay that has the lease knows: two replicas' figures would be added up.
    fn forget_backlog(&self) {
        self.unpublished.remove(&self.service);
        self.oldest_seconds.remove(&self.service);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let usual = RelayConfig::default();
        let bad = [
            ("batch_max", RelayConfig { batch_max: 0, ..usual.clone() }),
            ("aggregates_max", RelayConfig { aggregates_max: 10_001, ..usual.clone() }),
            ("chain_max", RelayConfig { chain_max: 0, ..usual.clone() }),
            ("poll_interval_ms", RelayConfig { poll_interval_ms: 0, ..usual.clone() }),
            ("lease_ttl_ms", RelayConfig { lease_ttl_ms: MS_MAX + 1, ..usual.clone() }),
            ("backoff_first_ms", RelayConfig { backoff_first_ms: 0, ..usual.clone() }),
            ("backoff_max_ms", RelayConfig { backoff_max_ms: MS_MAX + 1, ..usual.clone() }),
            ("keep_hours", RelayConfig { keep_hours: 87_601, ..usual.clone() }),
            ("sweep_interval_ms", RelayConfig { sweep_interval_ms: 0, ..usual.clone() }),
            ("sweep_batch_max", RelayConfig { sweep_batch_max: 10_001, ..usual.clone() }),
        ];
        for (name, config) in bad {
            let mut problems = Vec::new();
            config.validate("relay", &mut problems);
            assert_eq!(problems.len(), 1, "{name}: {problems:?}");
            assert!(problems[0].starts_with(&format!("relay.{name} must be ")), "{problems:?}");
        }
        let mut problems = Vec::new();
        usual.validate("relay", &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
    }
}
