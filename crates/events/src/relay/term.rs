//! A relay's term: from taking the lease to losing it.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use souk_db::Error;
use souk_db::lease::Lease;
use souk_runtime::{Tracer, story};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tracing::field::Empty;
use tracing::{Instrument, Span, info_span, warn};
use uuid::Uuid;

use super::Relay;
use crate::bus::{Bus, BusError, Link, Place};
use crate::event::Event;
use crate::pause::{after, hours_before};
use crate::{outbox, position, steps};

/// See the module. Dropped, it lets go of everything.
pub(super) struct Term<'r> {
    pub(super) relay: &'r Relay,
    lease: Lease,
    /// It was lost while something else was waited for.
    pub(super) lost_lease: bool,
    /// Whether the bus takes events.
    pub(super) link: watch::Receiver<Link>,
    /// Where they are published; `None`: it must be found out whether they can be.
    pub(super) place: Option<Place>,
    /// Times in a row that the bus took no events.
    pub(super) bus_failures: u32,
    /// Until then it is not tried again.
    pub(super) bus_until: Option<DateTime<Utc>>,
    /// One task for each aggregate that is being published.
    pub(super) chains: JoinSet<Published>,
    /// The aggregates that must not be read: those of `chains`, and those that wait for their next try.
    busy: HashMap<String, Busy>,
    /// There may be something in the outbox that was not read.
    pub(super) unread: bool,
    /// What is older was read, as far as one can know. PostgreSQL's index of what is unpublished keeps, until it is vacuumed, what has been
    /// published since: whoever reads it from its beginning passes all of that again.
    pub(super) since: Option<DateTime<Utc>>,
    poll_at: DateTime<Utc>,
    renew_at: DateTime<Utc>,
    sweep_at: DateTime<Utc>,
}

/// Acknowledgements that come within this time are marked together. Whoever waits is the next event of the same aggregate.
const LANDING: Duration = Duration::from_millis(10);

/// An event may come into sight so long after its time: its transaction lasted, or its replica's clock is behind. One that comes later still is
/// found by the next poll.
const LATE: TimeDelta = TimeDelta::seconds(3);

/// How a term ends.
pub(super) enum End {
    LeaseLost,
    Shutdown,
}

/// Why an aggregate is not to be read.
#[derive(Default)]
struct Busy {
    /// Tries to publish its next event that failed.
    failures: u32,
    /// When the next is due; `None`: it is being published.
    until: Option<DateTime<Utc>>,
    /// When its events were last read.
    read_at: DateTime<Utc>,
    /// The outbox was read since, without it: it may have got events that nobody has seen.
    passed_over: bool,
}

impl Busy {
    /// Whether the aggregate must not be read now.
    fn is_closed(&self, now: DateTime<Utc>) -> bool {
        self.until.is_none_or(|until| until > now)
    }
}

/// What became of the events of an aggregate.
pub(super) struct Published {
    aggregate: String,
    place: Place,
    acknowledged: Vec<Acknowledged>,
    /// The event that comes next could not be published.
    failed: Option<(Uuid, BusError)>,
}

/// An event that the bus has.
struct Acknowledged {
    event: Uuid,
    /// Its number there.
    sequence: u64,
}

impl<'r> Term<'r> {
    pub(super) fn new(relay: &'r Relay, lease: Lease) -> Self {
        let now = relay.kernel.clock.now();
        let renew_at = after(now, relay.standby_pause());
        let (chains, busy) = (JoinSet::new(), HashMap::new());
        Self {
            relay,
            lease,
            lost_lease: false,
            link: relay.bus.link(),
            place: None,
            bus_failures: 0,
            bus_until: None,
            chains,
            busy,
            unread: true,
            since: None,
            poll_at: now,
            renew_at,
            sweep_at: now,
        }
    }

    /// Publishes; `failures` of the database are over when it has answered.
    pub(super) async fn run(&mut self, failures: &mut u32) -> Result<End, Error> {
        let relay = self.relay;
        let shutdown = relay.kernel.tasks.shutdown();
        while !shutdown.is_cancelled() {
            if !self.keep_lease().await? {
                return Ok(End::LeaseLost);
            }
            self.release_due();
            self.poll().await?;
            self.sweep().await?;
            let is_settled = self.settle().await?;
            if self.lost_lease {
                return Ok(End::LeaseLost);
            }
            if is_settled && self.unread && self.free() > 0 {
                self.publish_unread().await?;
                *failures = 0;
            }
            let pause = self.pause();
            tokio::select! {
                () = shutdown.cancelled() => {}
                // The bus lives as long as the relay; were it gone, there would be nothing to wait for.
                Ok(()) = self.link.changed() => (self.bus_until, self.since) = (None, None),
                Some(published) = self.chains.join_next() => {
                    let landed = self.landed_with(published).await;
                    self.land(landed).await?;
                }
                () = relay.wake.notified() => self.unread = true,
                () = relay.kernel.clock.sleep(pause) => {}
            }
        }
        Ok(End::Shutdown)
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.relay.kernel.clock.now()
    }

    /// Aggregates that may still be taken up.
    fn free(&self) -> usize {
        let now = self.now();
        let closed = self.busy.values().filter(|busy| busy.is_closed(now)).count();
        self.relay.config.aggregates_max.max(1).saturating_sub(closed)
    }

    /// How long nothing is due.
    fn pause(&self) -> Duration {
        if self.place.is_some() && self.bus_until.is_none() && self.unread && self.free() > 0 {
            return Duration::ZERO;
        }
        let retries = self.busy.values().filter_map(|busy| busy.until);
        let due = retries.chain(self.bus_until).chain([self.poll_at, self.renew_at, self.sweep_at]);
        let due = due.min().unwrap_or(self.poll_at);
        (due - self.now()).to_std().unwrap_or(Duration::ZERO)
    }

    /// Renews the lease in good time; `false`: it is another's.
    pub(super) async fn keep_lease(&mut self) -> Result<bool, Error> {
        let now = self.now();
        if now < self.renew_at {
            return Ok(true);
        }
        self.renew_at = after(now, self.relay.standby_pause());
        let renewed = self.relay.acquire().await?;
        // Had another relay held it in between, the epoch would have grown.
        Ok(renewed.is_some_and(|lease| lease.epoch == self.lease.epoch))
    }

    /// Aggregates whose next try is due may be read again.
    fn release_due(&mut self) {
        let now = self.now();
        if self.busy.values().any(|busy| busy.until.is_some_and(|until| until <= now)) {
            (self.unread, self.since) = (true, None);
        }
    }

    /// Looks, from time to time, for what nobody has woken us for, and measures how far behind we are.
    async fn poll(&mut self) -> Result<(), Error> {
        let now = self.now();
        if now < self.poll_at {
            return Ok(());
        }
        self.poll_at = after(now, Duration::from_millis(self.relay.config.poll_interval_ms.max(1)));
        (self.unread, self.since) = (true, None);
        let mut tx = self.relay.db.read().await?;
        let (backlog, position) = (outbox::backlog(&mut tx).await?, position::read(&mut tx).await?);
        tx.rollback().await?;
        let age = backlog.oldest.map_or(TimeDelta::zero(), |oldest| now - oldest);
        self.relay.meters.show_backlog(backlog, age);
        self.heed_request(position.as_ref());
        Ok(())
    }

    /// Deletes a portion of what has stayed long enough.
    async fn sweep(&mut self) -> Result<(), Error> {
        let (now, config) = (self.now(), &self.relay.config);
        if now < self.sweep_at {
            return Ok(());
        }
        let limit = config.sweep_batch_max.max(1);
        let mut tx = self.relay.db.write().await?;
        let swept = outbox::sweep(&mut tx, hours_before(now, config.keep_hours), limit).await?;
        tx.commit().await?;
        if swept < limit.into() {
            self.sweep_at = after(now, Duration::from_millis(config.sweep_interval_ms.max(1)));
        }
        Ok(())
    }

    /// Reads what waits longest and begins to publish it, each aggregate for itself.
    async fn publish_unread(&mut self) -> Result<(), Error> {
        let (relay, now) = (self.relay, self.now());
        let Some(place) = self.place.clone() else { return Ok(()) };
        let bounds = outbox::Bounds {
            // One that fails tells as much as many.
            aggregates: if self.bus_failures == 0 { self.free() } else { 1 },
            chain: relay.config.chain_max.max(1),
            events: relay.config.batch_max.max(1),
            since: self.since,
        };
        let closed: Vec<&str> =
            self.busy.iter().filter(|(_, busy)| busy.is_closed(now)).map(|(aggregate, _)| aggregate.as_str()).collect();
        let read = outbox::unpublished(&mut relay.db.read_one().await?, &closed, bounds).await?;
        relay.steps.reach(steps::RELAY_READ).await;
        self.unread = read.may_be_more;
        if !read.may_be_more {
            // What aggregates that are being published have got since then was passed over.
            let published = self.busy.values().filter(|busy| busy.until.is_none());
            self.since = Some(published.map(|busy| busy.read_at).fold(now, DateTime::min) - LATE);
        }
        self.busy.values_mut().for_each(|busy| busy.passed_over = true);
        // Aggregates whose next try was due and that were not read have nothing to tell any more, or come as new ones.
        self.busy.retain(|aggregate, busy| busy.is_closed(now) || read.chains.contains_key(aggregate));
        for (aggregate, events) in read.chains {
            let busy = self.busy.entry(aggregate.clone()).or_default();
            (busy.until, busy.read_at, busy.passed_over) = (None, now, false);
            let tracer = relay.kernel.tracer.clone();
            let publishing = publish(relay.bus.clone(), tracer, place.clone(), aggregate, events);
            self.chains.spawn(publishing.instrument(Span::current()));
        }
        Ok(())
    }

    /// What lands with the first, within a moment: acknowledgements come one by one, and marking them one by one would cost a transaction
    /// each, and another to read on.
    async fn landed_with(&mut self, first: Result<Published, JoinError>) -> Vec<Result<Published, JoinError>> {
        let mut landed = vec![first];
        let moment = tokio::time::sleep(LANDING);
        tokio::pin!(moment);
        loop {
            tokio::select! {
                biased;
                next = self.chains.join_next() => match next {
                    Some(published) => landed.push(published),
                    None => return landed,
                },
                () = &mut moment => return landed,
            }
        }
    }

    /// Marks what the bus has acknowledged of aggregates that are done, and lets them be read again.
    async fn land(&mut self, landed: Vec<Result<Published, JoinError>>) -> Result<(), Error> {
        let landed: Vec<Published> =
            landed.into_iter().collect::<Result<_, _>>().map_err(|error| Error::bug(error.to_string()))?;
        let acknowledged: Vec<&Acknowledged> = landed.iter().flat_map(|published| &published.acknowledged).collect();
        if let Some(published) = landed.first() {
            // Nothing is begun at another place before all of this has landed.
            self.mark(&published.place, &acknowledged).await?;
        }
        if landed.iter().any(|published| published.failed.is_some()) {
            (self.unread, self.since) = (true, None);
        }
        for published in landed {
            match published.failed {
                // With nothing passed over, nothing is there until somebody wakes us: reading on each time was half of all that is asked.
                None => self.unread |= self.busy.remove(&published.aggregate).is_none_or(|busy| busy.passed_over),
                Some((_, error)) if error.concerns_all() => {
                    self.busy.remove(&published.aggregate);
                    self.relay.meters.failed.inc();
                    self.pause_all(&error);
                }
                Some((event, error)) => {
                    self.hold_back(published.aggregate, !published.acknowledged.is_empty(), event, &error);
                }
            }
        }
        Ok(())
    }

    async fn mark(&mut self, place: &Place, acknowledged: &[&Acknowledged]) -> Result<(), Error> {
        let Some(last) = acknowledged.iter().max_by_key(|acknowledged| acknowledged.sequence) else { return Ok(()) };
        // The bus takes events again.
        (self.bus_failures, self.bus_until) = (0, None);
        self.relay.steps.reach(steps::RELAY_ACKNOWLEDGED).await;
        let now = self.now();
        let events: Vec<Uuid> = acknowledged.iter().map(|acknowledged| acknowledged.event).collect();
        let mut tx = self.relay.db.write().await?;
        let sequence = i64::try_from(last.sequence).unwrap_or(i64::MAX);
        if !position::advance(&mut tx, place, sequence, last.event).await? {
            // Somebody wants all of it published again, this too.
            tx.rollback().await?;
            self.forget_place();
            return Ok(());
        }
        outbox::mark_published(&mut tx, &events, now).await?;
        tx.commit().await?;
        self.relay.meters.published.inc_by(u64::try_from(events.len()).unwrap_or(u64::MAX));
        self.relay.steps.reach(steps::RELAY_MARKED).await;
        Ok(())
    }

    /// The aggregate waits; the others go on.
    fn hold_back(&mut self, aggregate: String, progressed: bool, event: Uuid, error: &BusError) {
        let now = self.now();
        let busy = self.busy.entry(aggregate).or_default();
        busy.failures = if progressed { 1 } else { busy.failures.saturating_add(1) };
        busy.until = Some(after(now, self.relay.backoff(busy.failures)));
        self.relay.meters.failed.inc();
        warn!(%event, failures = busy.failures, error = story(error), "event could not be published");
    }
}

/// Publishes events of one aggregate at a place, in order, up to the first that fails.
async fn publish(bus: Bus, tracer: Tracer, place: Place, aggregate: String, events: Vec<Event>) -> Published {
    let mut acknowledged = Vec::with_capacity(events.len());
    for event in events {
        match publish_one(&bus, &tracer, &place, &event).await {
            Ok(sequence) => acknowledged.push(Acknowledged { event: event.id, sequence }),
            Err(error) => return Published { aggregate, place, acknowledged, failed: Some((event.id, error)) },
        }
    }
    Published { aggregate, place, acknowledged, failed: None }
}

/// Publishes an event in the trace in which it happened: a PRODUCER span, by OpenTelemetry's conventions for messaging.
async fn publish_one(bus: &Bus, tracer: &Tracer, place: &Place, event: &Event) -> Result<u64, BusError> {
    let Some(position) = event.position() else { return bus.publish_at(event, place).await };
    let (span, _) = tracer.span(Some(position), || {
        info_span!(
            "publish",
            event = %event.id,
            otel.kind = "producer",
            otel.name = %format_args!("publish {}", event.subject),
            otel.status_code = Empty,
            messaging.system = "souk",
            messaging.operation.type = "send",
            messaging.destination.name = event.subject,
            messaging.message.id = %event.id,
        )
    });
    let published = bus.publish_at(event, place).instrument(span.clone()).await;
    if published.is_err() {
        span.record("otel.status_code", "ERROR");
    }
    published
}
