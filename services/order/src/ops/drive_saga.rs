//! Does what orders owe: takes steps up, calls the inventory, stores what its answer means.
//!
//! A step is taken up for a while (a lease) under an epoch that grows each time. Whoever comes back with an older epoch, or to a step that was
//! dropped, changes nothing: somebody else has it, or nobody wants it any more. That is safe because the call itself may be made any number
//! of times: the reservation tells whether it was made before.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use souk_db::{Batch, Decided, Error as DbError, GroupError, Tx, all_touched, together};
use souk_runtime::{Clock, Ids, TraceContext, failpoint, trace};
use tracing::{Instrument, debug, error, info_span, warn};
use uuid::Uuid;

use super::App;
use crate::config::{MS_MAX, SagaConfig};
use crate::domain::saga::{Conclusion, conclude};
use crate::domain::{Attempt, Order, OrderId, Step, StepKind};
use crate::error::Error;
use crate::events::{self, Record};
use crate::failpoints;
use crate::hands::Claimed;
use crate::store::{self, Finished, NewStep, Postponed};

/// Takes up to `limit` due steps.
pub async fn claim(app: &App, limit: usize) -> Result<Vec<Claimed>, Error> {
    let now = app.clock.now();
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut tx = app.db.write().await?;
    let steps = store::claim_steps(&mut tx, app.hands.holder(), now, now + millis(app.saga.lease_ms), limit).await?;
    let mut ids: Vec<OrderId> = steps.iter().map(|(step, _)| step.order_id).collect();
    ids.dedup();
    let reservations: HashMap<OrderId, Uuid> = store::reservations_of(&mut tx, &ids).await?.into_iter().collect();
    tx.commit().await?;
    if !steps.is_empty() {
        failpoint(failpoints::SAGA_AFTER_CLAIM);
    }
    let claimed = |(step, position): (Step, Option<TraceContext>)| {
        let reservation_id = reservations.get(&step.order_id).copied();
        if reservation_id.is_none() {
            // A bug, which must not keep the steps from being done that were taken up with this one.
            error!(order_id = %step.order_id, step = step.kind.name(), "a step has no order");
        }
        Some(Claimed { step, reservation_id: reservation_id?, position })
    };
    Ok(steps.into_iter().filter_map(claimed).collect())
}

/// What driving a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driven {
    /// It is over.
    Finished {
        /// The new version of the order, if that changed it.
        version: Option<i64>,
        /// The order owes another step now.
        owes_more: bool,
    },
    /// It is to be tried again then.
    Postponed(DateTime<Utc>),
    /// It was somebody else's, or nobody's, by the time the answer came. Nothing was changed.
    Superseded,
}

/// Tries a step once, and stores what came of it, in the trace in which it was left. Where that cannot be stored, the lease runs out and the step is tried again.
pub async fn drive(app: &App, claimed: Claimed) -> Result<Driven, Error> {
    let Claimed { step, reservation_id, position } = claimed;
    let (span, position) = app.tracer.span(position, || {
        info_span!(
            "step",
            order_id = %step.order_id,
            step = step.kind.name(),
            attempts = step.attempts,
            otel.kind = "internal",
            otel.name = %format_args!("step {}", step.kind.name()),
        )
    });
    trace::scope(position, drive_there(app, step, reservation_id)).instrument(span).await
}

async fn drive_there(app: &App, step: Step, reservation_id: Uuid) -> Result<Driven, Error> {
    let (before, after) = match step.kind {
        StepKind::CommitStock => (failpoints::SAGA_BEFORE_COMMIT_STOCK, failpoints::SAGA_AFTER_COMMIT_STOCK),
        StepKind::ReleaseStock => (failpoints::SAGA_BEFORE_RELEASE_STOCK, failpoints::SAGA_AFTER_RELEASE_STOCK),
    };
    failpoint(before);
    let attempt = app.inventory.attempt(&step, reservation_id).await;
    failpoint(after);
    if let Attempt::Again(error) = &attempt {
        tell_of_failure(&step, error, app.clock.now());
    }
    let driven = finish(app, step, attempt).await?;
    failpoint(failpoints::SAGA_AFTER_CONFIRM);
    if let Driven::Finished { version, owes_more } = driven {
        if let Some(version) = version {
            app.relay.wake();
            app.watchers.tell(step.order_id, version);
        }
        if owes_more {
            app.hands.wake();
        }
    }
    Ok(driven)
}

/// Stores what a try of a step came to.
pub async fn finish(app: &App, step: Step, attempt: Attempt) -> Result<Driven, Error> {
    let due_at = app.clock.now() + backoff(&app.saga, &app.ids, step.attempts);
    let traceparent = trace::current().map(|position| position.to_string());
    app.finishing.submit(Tried { step, attempt, due_at, traceparent }, None).await.map_err(|error| match error {
        GroupError::QueueFull => Error::Busy,
        GroupError::Expired => Error::DeadlineExceeded,
        GroupError::Db(error) => Error::Database(error),
        GroupError::Rejected(never) => match never {},
    })
}

fn tell_of_failure(step: &Step, error: &str, now: DateTime<Utc>) {
    let (order_id, kind, attempts) = (step.order_id, step.kind.name(), step.attempts);
    if now > step.deadline_at {
        warn!(%order_id, step = kind, attempts, error, "step is overdue");
    } else {
        debug!(%order_id, step = kind, attempts, error, "step is tried again");
    }
}

/// Doubles with every try up to the longest; the second half of it at random, so that those that failed together do not come together.
fn backoff(config: &SagaConfig, ids: &Ids, attempts: i64) -> TimeDelta {
    let doublings = u32::try_from(attempts.clamp(1, 32) - 1).unwrap_or(0);
    let longest = Duration::from_millis(config.backoff_max_ms.min(MS_MAX));
    let pause = Duration::from_millis(config.backoff_ms).saturating_mul(2_u32.saturating_pow(doublings)).min(longest);
    TimeDelta::from_std(pause.mul_f64(0.5 + ids.random_fraction() / 2.0))
        .unwrap_or_else(|_| millis(config.backoff_max_ms))
}

/// So many milliseconds; at most a year, so that it can be added to any time.
pub(crate) fn millis(count: u64) -> TimeDelta {
    TimeDelta::milliseconds(i64::try_from(count.min(MS_MAX)).expect("a year is small"))
}

/// A step that was tried, and when to try it again if that was not the end.
#[derive(Clone, Debug)]
pub struct Tried {
    step: Step,
    attempt: Attempt,
    due_at: DateTime<Utc>,
    traceparent: Option<String>,
}

/// The transaction of a group: what tries came to, each with the change of its order.
#[derive(Clone, Debug)]
pub struct FinishBatch {
    /// When orders change.
    pub clock: Clock,
    /// Ids of events.
    pub ids: Ids,
    /// A further step should be done within this time.
    pub step_deadline: TimeDelta,
}

/// What a batch writes.
#[derive(Default)]
struct Changes {
    orders: Vec<Order>,
    records: Vec<Record>,
    finished: Vec<Finished>,
    next: Vec<NewStep>,
    postponed: Vec<Postponed>,
}

impl Batch for FinishBatch {
    type Command = Tried;
    type Reply = Driven;
    type Error = std::convert::Infallible;

    async fn apply(&self, tx: &mut Tx, commands: &[Tried]) -> Result<Decided<Self>, DbError> {
        let now = self.clock.now();
        let over = commands.iter().filter(|tried| !matches!(tried.attempt, Attempt::Again(_)));
        let ids: Vec<OrderId> = over.map(|tried| tried.step.order_id).collect();
        let mut orders: HashMap<OrderId, Order> =
            store::orders_for_update(tx, &ids).await?.into_iter().map(|order| (order.id, order)).collect();
        let mut steps: Vec<Step> = commands.iter().map(|tried| tried.step).collect();
        steps.sort_by_key(|step| (step.order_id, step.kind));
        let current: HashSet<(OrderId, StepKind, i64)> = store::lock_current(tx, &steps).await?.into_iter().collect();
        let mut changes = Changes::default();
        let mut results = Vec::with_capacity(commands.len());
        for tried in commands {
            let step = &tried.step;
            let driven = if current.contains(&(step.order_id, step.kind, step.epoch)) {
                self.decide(tried, &mut orders, &mut changes, now)?
            } else {
                Driven::Superseded
            };
            results.push(Ok(driven));
        }
        save(tx, changes, now).await?;
        failpoint(failpoints::SAGA_BEFORE_CONFIRM);
        Ok(results)
    }
}

impl FinishBatch {
    fn decide(
        &self,
        tried: &Tried,
        orders: &mut HashMap<OrderId, Order>,
        changes: &mut Changes,
        now: DateTime<Utc>,
    ) -> Result<Driven, DbError> {
        let Step { order_id, kind, .. } = tried.step;
        let answer = match &tried.attempt {
            Attempt::Answered(answer) => *answer,
            Attempt::Again(error) => {
                changes.postponed.push(Postponed { order_id, kind, due_at: tried.due_at, error: error.clone() });
                return Ok(Driven::Postponed(tried.due_at));
            }
        };
        let order = orders.get(&order_id).ok_or_else(|| DbError::bug("a step has no order"))?;
        let Conclusion { order: after, next } = conclude(kind, order, answer, now);
        changes.finished.push(Finished { order_id, kind });
        let traceparent = tried.traceparent.clone();
        let deadline_at = now + self.step_deadline;
        let due = |kind| NewStep { order_id, kind, deadline_at, traceparent: traceparent.clone(), taken: None };
        changes.next.extend(next.map(due));
        let version = after.as_ref().map(|order| order.version);
        if let Some(order) = after {
            changes.records.push(events::record(&order, &self.ids, traceparent));
            changes.orders.push(order.clone());
            orders.insert(order_id, order);
        }
        Ok(Driven::Finished { version, owes_more: next.is_some() })
    }
}

async fn save(tx: &mut Tx, changes: Changes, now: DateTime<Utc>) -> Result<(), DbError> {
    let [versions, events] = events::insert(changes.records);
    let writes = [
        store::update_orders(&changes.orders),
        versions,
        events,
        store::finish_steps(&changes.finished, now),
        store::insert_steps(&changes.next, now),
        store::postpone_steps(&changes.postponed, now),
    ];
    let [orders, versions, ..] = together(tx, writes).await?;
    all_touched(orders.min(versions), changes.orders.len(), "an order")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_to_its_longest_and_is_never_twice_the_same() {
        let ids = Ids::seeded(Clock::system(), 1);
        let config = SagaConfig { backoff_ms: 100, backoff_max_ms: 1_000, ..SagaConfig::default() };
        for (attempts, most) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1_000), (i64::MAX, 1_000)] {
            let pause = backoff(&config, &ids, attempts).num_milliseconds();
            assert!((most / 2..=most).contains(&pause), "{attempts}: {pause}");
        }
        assert_ne!(backoff(&config, &ids, 1), backoff(&config, &ids, 1));
    }

    #[test]
    fn a_pause_has_an_end() {
        let ids = Ids::seeded(Clock::system(), 1);
        let config = SagaConfig { backoff_ms: u64::MAX, backoff_max_ms: u64::MAX, ..SagaConfig::default() };
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        assert!(now + backoff(&config, &ids, 1) > now);
        assert!(now + millis(u64::MAX) > now);
    }
}
