//! A durable consumer: dedupe, retries, and giving up.
//!
//! What fails through no fault of the event (the database does not answer or not in time, a concurrent transaction was in the way) is never
//! held against it: the publisher is told, and comes again. A statement that is slow for the event's sake is not told from a database that
//! is slow: its event comes again and again, and `consumer_pending` grows.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use prometheus_client::metrics::counter::Counter;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use souk_db::{Db, Kind, Tx};
use souk_runtime::config::{BATCH, MS_MAX, check_bounds};
use souk_runtime::{Kernel, Metrics, story, trace};
use tokio::sync::Semaphore;
use tracing::field::Empty;
use tracing::{Instrument, Span, error, info_span, warn};
use uuid::Uuid;

use crate::bus::BusError;
use crate::event::{DecodeError, Event};
use crate::pause::{KEEP_HOURS_MAX, backoff, hours_before};
use crate::steps::{self, Steps};
use crate::subject::{Pattern, PatternError};
use crate::{dead_letters, inbox};

/// What a consumer does with an event.
pub trait Handler: Send + Sync + 'static {
    /// Applies an event in `tx`, which holds the inbox row already and is committed after it: all effects go through `tx`. No calls over
    /// the network; what is to be done outside is written down here and done by a worker.
    fn handle(&self, tx: &mut Tx, event: &Event) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// The effects are committed. Not called if the process ends before: only to wake who would find them anyway, a little later.
    fn applied(&self, _event: &Event) {}
}

/// Why an event could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// Not this time: it is tried again, and parked after `tries_max`.
    #[error("event cannot be handled yet")]
    Retry(#[source] Box<dyn StdError + Send + Sync>),
    /// Never: it is parked at once.
    #[error("event can never be handled")]
    Park(#[source] Box<dyn StdError + Send + Sync>),
    /// The database failed; what follows depends on how.
    #[error(transparent)]
    Db(#[from] souk_db::Error),
}

impl HandlerError {
    /// Not this time.
    pub fn retry(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Retry(cause.into())
    }

    /// Never.
    pub fn park(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Park(cause.into())
    }
}

impl From<DecodeError> for HandlerError {
    fn from(error: DecodeError) -> Self {
        Self::park(error)
    }
}

/// Who consumes what, and where its effects go.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// Its name, for ever: the inbox knows it by that.
    pub name: &'static str,
    /// Patterns of subjects.
    pub subjects: &'static [&'static str],
    /// Where its effects go, and with them inbox and dead letters.
    pub db: Db,
    /// The process.
    pub kernel: Kernel,
    /// Its bounds.
    pub config: ConsumerConfig,
}

/// The bounds of a consumer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ConsumerConfig {
    /// An event that failed so often is parked as a dead letter.
    pub tries_max: u32,
    /// The pause after the first failure, in milliseconds. It doubles with each further one.
    pub backoff_first_ms: u64,
    /// The longest pause, in milliseconds.
    pub backoff_max_ms: u64,
    /// A handler that takes longer has failed, in milliseconds; or the database has, if that is what it waits for.
    pub handle_timeout_ms: u64,
    /// Events of different aggregates that are handled at once: each takes a connection to the database.
    pub concurrency_max: usize,
    /// A handled event is remembered for so many hours. Longer than a publisher keeps its outbox.
    pub inbox_keep_hours: u32,
    /// Old entries of the inbox are looked for every so many milliseconds.
    pub sweep_interval_ms: u64,
    /// So many entries are deleted in one transaction.
    pub sweep_batch_max: u32,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            tries_max: 5,
            backoff_first_ms: 100,
            backoff_max_ms: 10_000,
            handle_timeout_ms: 10_000,
            concurrency_max: 4,
            inbox_keep_hours: 14 * 24,
            sweep_interval_ms: 60_000,
            sweep_batch_max: 500,
        }
    }
}

impl ConsumerConfig {
    /// Notes what cannot be; `at` is where the settings stand.
    pub fn validate(&self, at: &str, problems: &mut Vec<String>) {
        let batches =
            [("concurrency_max", self.concurrency_max as u64), ("sweep_batch_max", self.sweep_batch_max.into())];
        check_bounds(problems, at, BATCH, &batches);
        check_bounds(problems, at, 1..=i32::MAX as u64, &[("tries_max", self.tries_max.into())]);
        let times = [
            ("backoff_first_ms", self.backoff_first_ms),
            ("backoff_max_ms", self.backoff_max_ms),
            ("handle_timeout_ms", self.handle_timeout_ms),
            ("sweep_interval_ms", self.sweep_interval_ms),
        ];
        check_bounds(problems, at, 1..=MS_MAX, &times);
        check_bounds(problems, at, 1..=KEEP_HOURS_MAX, &[("inbox_keep_hours", self.inbox_keep_hours.into())]);
    }
}

/// A consumer that has subscribed.
pub struct Subscription {
    consumer: Consumer,
    patterns: Vec<Pattern>,
    handler: Box<dyn AnyHandler>,
    permits: Semaphore,
    meters: Meters,
    steps: Steps,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("consumer", &self.consumer.name).finish_non_exhaustive()
    }
}

/// Why an event was not replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The consumer has not parked it.
    #[error("no such dead letter")]
    NotFound,
    /// A replay of it succeeded before.
    #[error("dead letter was replayed before")]
    AlreadyReplayed,
    /// It failed again, and stays.
    #[error("replay failed")]
    Failed(#[source] HandlerError),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] souk_db::Error),
}

/// What follows from a failure.
enum Verdict {
    /// The publisher comes again.
    Unavailable(souk_db::Error),
    /// Again at once; past `tries_max`, the publisher comes again.
    Again(souk_db::Error),
    /// Again after a pause; past `tries_max`, parked.
    Later,
    /// Parked.
    Never,
}

impl HandlerError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Retry(_) => Verdict::Later,
            Self::Park(_) => Verdict::Never,
            Self::Db(error) => match error.kind() {
                Kind::Unavailable | Kind::Timeout | Kind::Deadline => Verdict::Unavailable(error.clone()),
                Kind::Conflict | Kind::Locked => Verdict::Again(error.clone()),
                Kind::Bug => Verdict::Later,
            },
        }
    }
}

impl Subscription {
    pub(crate) fn new(consumer: Consumer, handler: impl Handler, steps: Steps) -> Result<Self, PatternError> {
        Ok(Self {
            patterns: Pattern::parse_all(consumer.subjects)?,
            handler: Box::new(handler),
            permits: Semaphore::new(consumer.config.concurrency_max.max(1)),
            meters: Meters::new(&consumer.kernel.metrics, consumer.name),
            consumer,
            steps,
        })
    }

    /// The consumer's name.
    pub fn name(&self) -> &'static str {
        self.consumer.name
    }

    /// The patterns of what it takes.
    pub(crate) fn subjects(&self) -> Vec<String> {
        self.patterns.iter().map(ToString::to_string).collect()
    }

    /// One pattern that lets all of it pass.
    pub(crate) fn common_subject(&self) -> String {
        Pattern::common(&self.patterns).to_string()
    }

    pub(crate) fn takes(&self, subject: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(subject))
    }

    /// Applies an event, once however often it is delivered, or parks it.
    pub(crate) async fn deliver(&self, event: &Event) -> Result<(), BusError> {
        let (span, position) = self.consumer.kernel.tracer.span(event.position(), || self.span(event));
        let delivered = trace::scope(position, self.deliver_or_park(event)).instrument(span.clone()).await;
        if delivered.is_err() {
            span.record("otel.status_code", "ERROR");
        }
        delivered.map_err(|source| BusError::Consumer { consumer: self.name(), source })
    }

    /// The CONSUMER span of an event, by OpenTelemetry's conventions for messaging.
    fn span(&self, event: &Event) -> Span {
        info_span!(
            "consume",
            consumer = self.name(),
            event = %event.id,
            kind = event.kind,
            otel.kind = "consumer",
            otel.name = %format_args!("process {}", event.subject),
            otel.status_code = Empty,
            messaging.system = "souk",
            messaging.operation.type = "process",
            messaging.destination.name = event.subject,
            messaging.consumer.group.name = self.name(),
            messaging.message.id = %event.id,
        )
    }

    async fn deliver_or_park(&self, event: &Event) -> Result<(), souk_db::Error> {
        let config = &self.consumer.config;
        for tries in 1_u32.. {
            let error = match self.apply(event).await {
                Ok(applied) => {
                    let counter = if applied { &self.meters.applied } else { &self.meters.repeated };
                    counter.inc();
                    return Ok(());
                }
                Err(error) => error,
            };
            let last = tries >= config.tries_max;
            match error.verdict() {
                Verdict::Unavailable(error) => return Err(error),
                Verdict::Again(error) if last => return Err(error),
                Verdict::Again(_) => {}
                Verdict::Later if !last => {
                    self.meters.retried.inc();
                    warn!(tries, error = story(&error), "event handler failed");
                    self.pause(tries).await;
                }
                Verdict::Later | Verdict::Never => return self.park(event, tries, &error).await,
            }
        }
        Ok(())
    }

    /// One try; `false`: the event was handled before.
    async fn apply(&self, event: &Event) -> Result<bool, HandlerError> {
        let _permit = self.permits.acquire().await;
        let mut tx = self.consumer.db.write().await?;
        if !inbox::claim(&mut tx, self.name(), event.id, self.consumer.kernel.clock.now()).await? {
            tx.rollback().await?;
            return Ok(false);
        }
        self.steps.reach(steps::CONSUMER_CLAIMED).await;
        self.handle(&mut tx, event).await?;
        self.steps.reach(steps::CONSUMER_HANDLED).await;
        tx.commit().await?;
        self.handler.after(event);
        self.steps.reach(steps::CONSUMER_COMMITTED).await;
        Ok(true)
    }

    async fn handle(&self, tx: &mut Tx, event: &Event) -> Result<(), HandlerError> {
        let handling = AssertUnwindSafe(self.handler.call(tx, event)).catch_unwind();
        // By the runtime's own time: it guards against a handler that hangs, and a clock that a test moves says nothing of that.
        match tokio::time::timeout(Duration::from_millis(self.consumer.config.handle_timeout_ms), handling).await {
            Err(_) if tx.waits() => {
                Err(souk_db::Error::unanswered("a statement of the handler is not answered").into())
            }
            Err(_) => Err(HandlerError::retry("handler timed out")),
            Ok(Err(_)) => Err(HandlerError::retry("handler panicked")),
            Ok(Ok(handled)) => handled,
        }
    }

    async fn park(&self, event: &Event, tries: u32, error: &HandlerError) -> Result<(), souk_db::Error> {
        let story = story(error);
        let now = self.consumer.kernel.clock.now();
        let mut tx = self.consumer.db.write().await?;
        if inbox::claim(&mut tx, self.name(), event.id, now).await? {
            dead_letters::park(&mut tx, self.name(), event, &story, tries, now).await?;
        }
        tx.commit().await?;
        self.meters.parked.inc();
        error!(tries, error = story, aggregate = event.aggregate, "event parked as a dead letter");
        self.steps.reach(steps::CONSUMER_PARKED).await;
        Ok(())
    }

    /// Runs the handler on a dead letter again, once, in the way of any event: its effects and `replayed_at` are committed together.
    /// Later events of the aggregate may have been handled in the meantime.
    pub async fn replay(&self, event_id: Uuid) -> Result<(), ReplayError> {
        let _permit = self.permits.acquire().await;
        let mut tx = self.consumer.db.write().await?;
        let letter = dead_letters::show(&mut tx, self.name(), event_id).await?.ok_or(ReplayError::NotFound)?;
        if !dead_letters::claim(&mut tx, self.name(), event_id, self.consumer.kernel.clock.now()).await? {
            return Err(ReplayError::AlreadyReplayed);
        }
        match self.handle(&mut tx, &letter.event).await {
            Ok(()) => {
                tx.commit().await?;
                self.handler.after(&letter.event);
                self.meters.replayed.inc();
                Ok(())
            }
            Err(error) => {
                tx.rollback().await?;
                let mut tx = self.consumer.db.write().await?;
                dead_letters::note_failure(&mut tx, self.name(), event_id, &story(&error)).await?;
                tx.commit().await?;
                Err(ReplayError::Failed(error))
            }
        }
    }

    async fn pause(&self, failures: u32) {
        let (config, kernel) = (&self.consumer.config, &self.consumer.kernel);
        let fraction = kernel.ids.random_fraction();
        kernel.clock.sleep(backoff(failures, config.backoff_first_ms, config.backoff_max_ms, fraction)).await;
    }

    /// Forgets, from time to time, what was handled long ago.
    pub(crate) fn start_sweep(&self) {
        let Consumer { name, db, kernel, config, .. } = self.consumer.clone();
        let tasks = kernel.tasks.clone();
        tasks.spawn("inbox sweep", async move {
            let pause = Duration::from_millis(config.sweep_interval_ms.max(1));
            while !stopped_within(&kernel, pause).await {
                if let Err(error) = sweep(name, &db, &kernel, &config).await {
                    warn!(consumer = name, error = story(&error), "inbox could not be swept");
                }
            }
        });
    }
}

async fn stopped_within(kernel: &Kernel, pause: Duration) -> bool {
    tokio::select! {
        () = kernel.tasks.shutdown().cancelled() => true,
        () = kernel.clock.sleep(pause) => false,
    }
}

async fn sweep(name: &str, db: &Db, kernel: &Kernel, config: &ConsumerConfig) -> Result<(), souk_db::Error> {
    let before = hours_before(kernel.clock.now(), config.inbox_keep_hours);
    let limit = config.sweep_batch_max.max(1);
    while !kernel.tasks.shutdown().is_cancelled() {
        let mut tx = db.write().await?;
        let forgotten = inbox::sweep(&mut tx, name, before, limit).await?;
        tx.commit().await?;
        if forgotten < limit.into() {
            break;
        }
    }
    Ok(())
}

/// A handler whose type is forgotten.
trait AnyHandler: Send + Sync {
    fn call<'a>(&'a self, tx: &'a mut Tx, event: &'a Event) -> BoxFuture<'a, Result<(), HandlerError>>;
    fn after(&self, event: &Event);
}

impl<H: Handler> AnyHandler for H {
    fn call<'a>(&'a self, tx: &'a mut Tx, event: &'a Event) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(self.handle(tx, event))
    }

    fn after(&self, event: &Event) {
        self.applied(event);
    }
}

/// What is counted of a consumer.
#[derive(Debug)]
struct Meters {
    applied: Counter,
    repeated: Counter,
    retried: Counter,
    parked: Counter,
    replayed: Counter,
}

impl Meters {
    fn new(metrics: &Metrics, consumer: &'static str) -> Self {
        let counter = |name, help| metrics.register_labelled(name, help, &[("consumer", consumer)]);
        Self {
            applied: counter("consumer_applied", "Events whose effect was committed"),
            repeated: counter("consumer_repeated", "Events that had been handled before"),
            retried: counter("consumer_retried", "Tries that failed and were repeated"),
            parked: counter("consumer_parked", "Events given up on: dead letters"),
            replayed: counter("consumer_replayed", "Dead letters that a replay applied"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let usual = ConsumerConfig::default();
        let bad = [
            ("tries_max", ConsumerConfig { tries_max: 0, ..usual.clone() }),
            ("backoff_first_ms", ConsumerConfig { backoff_first_ms: 0, ..usual.clone() }),
            ("backoff_max_ms", ConsumerConfig { backoff_max_ms: MS_MAX + 1, ..usual.clone() }),
            ("handle_timeout_ms", ConsumerConfig { handle_timeout_ms: 0, ..usual.clone() }),
            ("concurrency_max", ConsumerConfig { concurrency_max: 0, ..usual.clone() }),
            ("inbox_keep_hours", ConsumerConfig { inbox_keep_hours: 0, ..usual.clone() }),
            ("sweep_interval_ms", ConsumerConfig { sweep_interval_ms: MS_MAX + 1, ..usual.clone() }),
            ("sweep_batch_max", ConsumerConfig { sweep_batch_max: 10_001, ..usual.clone() }),
        ];
        for (name, config) in bad {
            let mut problems = Vec::new();
            config.validate("consumer", &mut problems);
            assert_eq!(problems.len(), 1, "{name}: {problems:?}");
            assert!(problems[0].starts_with(&format!("consumer.{name} must be ")), "{problems:?}");
        }
        let mut problems = Vec::new();
        usual.validate("consumer", &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
    }
}
