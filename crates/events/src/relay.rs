//! The relay: publishes what was committed. One for each database, by lease; each event at least once, those of an aggregate in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::StreamExt;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use souk_db::lease::Lease;
use souk_db::{Db, Error, lease};
use souk_runtime::Kernel;
use tokio::sync::Notify;
use tracing::warn;
use uuid::Uuid;

use crate::bus::Bus;
use crate::event::Event;
use crate::{inbox, outbox};

/// The name of the lease.
const LEASE: &str = "outbox-relay";

/// The bounds of a relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RelayConfig {
    /// Events that are read at a time.
    pub batch_max: usize,
    /// Aggregates that are published at a time.
    pub concurrency: usize,
    /// Without being woken, the relay looks after so many milliseconds: what another process has committed.
    pub poll_ms: u64,
    /// A relay that dies is replaced after so many milliseconds.
    pub lease_ms: u64,
    /// An aggregate whose event was not taken rests for so many milliseconds; twice as long each time, up to a minute.
    pub backoff_ms: u64,
    /// Published events and the notes of seen ones are kept for so many hours.
    pub keep_hours: u32,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self { batch_max: 256, concurrency: 16, poll_ms: 1_000, lease_ms: 15_000, backoff_ms: 100, keep_hours: 7 * 24 }
    }
}

/// Wakes a relay. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Relay {
    wake: Arc<Notify>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Service {
    service: &'static str,
}

impl Relay {
    /// Starts the relay of the service's database.
    pub fn start(kernel: &Kernel, service: &'static str, db: Db, bus: Bus, config: RelayConfig) -> Self {
        let wake = Arc::new(Notify::new());
        let published: Family<Service, Counter> =
            kernel.metrics.register("outbox_published", "Events that the bus has acknowledged");
        let waiting: Family<Service, Gauge<i64, AtomicI64>> =
            kernel.metrics.register("outbox_waiting", "Events that were committed and are not published yet");
        let runner = Runner {
            kernel: kernel.clone(),
            db,
            bus,
            config,
            holder: kernel.ids.new_id(),
            lease: None,
            resting: BTreeMap::new(),
            swept_at: None,
            published: published.get_or_create(&Service { service }).clone(),
            waiting: waiting.get_or_create(&Service { service }).clone(),
        };
        kernel.tasks.spawn("outbox relay", runner.run(wake.clone()));
        Self { wake }
    }

    /// Something was committed: look at once.
    pub fn wake(&self) {
        self.wake.notify_one();
    }
}

struct Runner {
    kernel: Kernel,
    db: Db,
    bus: Bus,
    config: RelayConfig,
    holder: Uuid,
    lease: Option<Lease>,
    /// Aggregates whose next event was not taken: until when they rest, and how often it failed.
    resting: BTreeMap<String, (DateTime<Utc>, u32)>,
    swept_at: Option<DateTime<Utc>>,
    published: Counter,
    waiting: Gauge<i64, AtomicI64>,
}

/// At most so many aggregates are left out of a read by name; with more at rest, the bus itself is down.
const RESTING_MAX: usize = 64;
/// The longest rest of an aggregate.
const REST_MAX: TimeDelta = TimeDelta::minutes(1);
/// Old rows are swept so often, so many at a time.
const SWEEP_INTERVAL: TimeDelta = TimeDelta::minutes(1);
const SWEEP_ROWS: u32 = 1_000;

impl Runner {
    async fn run(mut self, wake: Arc<Notify>) {
        let shutdown = self.kernel.tasks.shutdown().clone();
        loop {
            let more = match self.round().await {
                Ok(more) => more,
                Err(error) => {
                    warn!(%error, "relay round failed");
                    false
                }
            };
            if shutdown.is_cancelled() {
                break;
            }
            if more {
                continue;
            }
            tokio::select! {
                () = wake.notified() => {}
                () = self.kernel.clock.sleep(self.pause()) => {}
                () = shutdown.cancelled() => break,
            }
        }
        self.give_up_lease().await;
    }

    /// Until the next aggregate has rested, and no longer than a poll.
    fn pause(&self) -> Duration {
        let now = self.kernel.clock.now();
        let poll = Duration::from_millis(self.config.poll_ms);
        let rested = self.resting.values().map(|(until, _)| (*until - now).to_std().unwrap_or_default()).min();
        rested.unwrap_or(poll).min(poll)
    }

    /// One read of the outbox; whether there may be more to do at once.
    async fn round(&mut self) -> Result<bool, Error> {
        let now = self.kernel.clock.now();
        let resting: BTreeSet<String> = self
            .resting
            .iter()
            .filter(|(_, (until, _))| *until > now)
            .map(|(aggregate, _)| aggregate.clone())
            .collect();
        if resting.len() >= RESTING_MAX {
            return Ok(false);
        }
        let mut tx = self.db.read().await?;
        let events = outbox::waiting(&mut tx, &resting, self.config.batch_max).await?;
        tx.rollback().await?;
        // An idle relay writes nothing, not even its lease.
        let full = events.len() == self.config.batch_max;
        if !events.is_empty() && self.hold_lease(now).await? {
            self.publish(events).await?;
            self.sweep(now).await?;
            return Ok(full);
        }
        Ok(false)
    }

    async fn publish(&mut self, events: Vec<Event>) -> Result<(), Error> {
        let mut by_aggregate: Vec<Vec<Event>> = Vec::new();
        for event in events {
            match by_aggregate.last_mut() {
                Some(group) if group[0].aggregate == event.aggregate => group.push(event),
                _ => by_aggregate.push(vec![event]),
            }
        }
        let bus = &self.bus;
        let sent: Vec<Sent> = futures::stream::iter(by_aggregate)
            .map(|group| publish_in_order(bus, group))
            .buffer_unordered(self.config.concurrency.max(1))
            .collect()
            .await;
        let now = self.kernel.clock.now();
        let mut acknowledged = Vec::new();
        for sent in sent {
            self.rest_or_go_on(&sent, now);
            acknowledged.extend(sent.acknowledged);
        }
        if acknowledged.is_empty() {
            return Ok(());
        }
        let mut tx = self.db.write().await?;
        outbox::mark_published(&mut tx, &acknowledged, now).await?;
        tx.commit().await?;
        self.published.inc_by(acknowledged.len() as u64);
        Ok(())
    }

    fn rest_or_go_on(&mut self, sent: &Sent, now: DateTime<Utc>) {
        let Some(aggregate) = &sent.refused else {
            if let Some(event) = sent.acknowledged.first() {
                self.resting.remove(&event.aggregate);
            }
            return;
        };
        let failures = self.resting.get(aggregate).map_or(0, |(_, failures)| *failures);
        let backoff = self.config.backoff_ms.saturating_mul(1 << failures.min(20));
        let rest = TimeDelta::milliseconds(i64::try_from(backoff).unwrap_or(i64::MAX)).min(REST_MAX);
        self.resting.insert(aggregate.clone(), (now + rest, failures + 1));
    }

    /// Whether we are the one relay. A lease that is good for a while yet is not renewed.
    async fn hold_lease(&mut self, now: DateTime<Utc>) -> Result<bool, Error> {
        let ttl = TimeDelta::milliseconds(i64::try_from(self.config.lease_ms).unwrap_or(i64::MAX));
        if self.lease.as_ref().is_some_and(|lease| now < lease.expires_at - ttl / 2) {
            return Ok(true);
        }
        let mut tx = self.db.write().await?;
        self.lease = lease::acquire(&mut tx, LEASE, self.holder, now, ttl).await?;
        tx.commit().await?;
        Ok(self.lease.is_some())
    }

    async fn sweep(&mut self, now: DateTime<Utc>) -> Result<(), Error> {
        if self.swept_at.is_some_and(|at| now - at < SWEEP_INTERVAL) {
            return Ok(());
        }
        self.swept_at = Some(now);
        let keep = TimeDelta::hours(i64::from(self.config.keep_hours));
        let mut tx = self.db.write().await?;
        outbox::sweep(&mut tx, now - keep, SWEEP_ROWS).await?;
        // A note outlives the event that it is of, however late that was published.
        inbox::sweep(&mut tx, now - keep * 2, SWEEP_ROWS).await?;
        self.waiting.set(outbox::count_waiting(&mut tx).await?);
        tx.commit().await
    }

    /// Another need not wait until the lease has run out.
    async fn give_up_lease(&self) {
        let Some(lease) = &self.lease else { return };
        let now = self.kernel.clock.now();
        let given_up = async {
            let mut tx = self.db.write().await?;
            lease::release(&mut tx, lease, self.holder, now).await?;
            tx.commit().await
        };
        if let Err(error) = given_up.await {
            warn!(%error, "the relay's lease was not given up");
        }
    }
}

/// What became of an aggregate's events.
struct Sent {
    acknowledged: Vec<Event>,
    /// The aggregate, if one of its events was not taken; those after it were not tried.
    refused: Option<String>,
}

async fn publish_in_order(bus: &Bus, events: Vec<Event>) -> Sent {
    let mut acknowledged = Vec::with_capacity(events.len());
    for event in events {
        if bus.publish(&event).await.is_err() {
            return Sent { acknowledged, refused: Some(event.aggregate) };
        }
        acknowledged.push(event);
    }
    Sent { acknowledged, refused: None }
}
