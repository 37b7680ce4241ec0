//! The worker that does what orders owe. Woken when there is something to do, and by a slow sweep for what was put off, and for what other
//! processes left behind.
//!
//! Any number of them may run, in any number of processes: steps are taken up by lease.

use chrono::{DateTime, Utc};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use souk_runtime::{Metrics, failpoint, story};
use tokio::task::{JoinError, JoinSet};
use tracing::{error, warn};

use crate::domain::StepKind;
use crate::error::Error;
use crate::failpoints;
use crate::hands::{Claimed, Hand};
use crate::ops::App;
use crate::ops::drive_saga::{Driven, claim, drive, millis};
use crate::store;

/// A backlog is counted no further: counting it must not cost as much as the backlog.
const BACKLOG_COUNTED_MAX: i64 = 10_000;

/// What is measured of the worker.
#[derive(Clone, Debug)]
pub(super) struct Meters {
    tries: Family<Labels, Counter>,
    due: Gauge,
    overdue: Gauge,
    oldest_seconds: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    step: &'static str,
    outcome: &'static str,
}

impl Meters {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            tries: metrics.register("order_saga_tries", "Tries of steps that orders owe, by what came of them"),
            due: metrics.register("order_saga_due", "Steps that orders owe"),
            overdue: metrics.register("order_saga_overdue", "Steps that orders owe and whose deadline has passed"),
            oldest_seconds: metrics.register("order_saga_oldest_seconds", "Age of the oldest step that an order owes"),
        }
    }

    fn count(&self, kind: StepKind, driven: Result<&Driven, &Error>) {
        let outcome = match driven {
            Ok(Driven::Finished { .. }) => "finished",
            Ok(Driven::Postponed(_)) => "postponed",
            Ok(Driven::Superseded) => "superseded",
            Err(_) => "not_stored",
        };
        self.tries.get_or_create(&Labels { step: kind.name(), outcome }).inc();
    }
}

struct Worker {
    app: App,
    meters: Meters,
    /// Each ends with the time at which its step is to be tried again, if it is.
    driving: JoinSet<Option<DateTime<Utc>>>,
    /// There may be steps that are due.
    look: bool,
    /// When we look next, however busy we are: a step that we have put off is due again, or it is time for the sweep.
    look_at: DateTime<Utc>,
    /// When the backlog is counted next.
    measure_at: DateTime<Utc>,
}

/// Runs until the process ends, and finishes what it has begun.
pub(super) async fn run(app: App, meters: Meters) {
    let now = app.clock.now();
    let mut worker = Worker { app, meters, driving: JoinSet::new(), look: true, look_at: now, measure_at: now };
    while !worker.app.shutdown.is_cancelled() {
        worker.measure_when_due().await;
        worker.look_when_due();
        worker.take_given();
        if worker.look && worker.take_up().await {
            continue;
        }
        worker.wait().await;
    }
    worker.finish().await;
}

impl Worker {
    /// Does what was begun, and the first steps of orders that are still being placed.
    async fn finish(&mut self) {
        loop {
            self.take_given();
            tokio::select! {
                Some(ended) = self.driving.join_next() => self.ended(ended),
                _ = self.app.hands.woken() => {}
                () = self.app.hands.close() => return,
            }
        }
    }

    /// Begins with what those who placed orders have left to us.
    fn take_given(&mut self) {
        for (claimed, hand) in self.app.hands.take() {
            failpoint(failpoints::SAGA_AFTER_CLAIM);
            self.begin(claimed, hand);
        }
    }

    /// Begins with what waits in the table; whether there was room for it.
    async fn take_up(&mut self) -> bool {
        let spare = self.app.hands.spare();
        if spare.is_empty() {
            return false;
        }
        let claimed = match claim(&self.app, spare.len()).await {
            Ok(claimed) => claimed,
            Err(error) => {
                warn!(error = story(&error), "steps cannot be taken up");
                Vec::new()
            }
        };
        self.look = claimed.len() == spare.len();
        for (claimed, hand) in claimed.into_iter().zip(spare) {
            self.begin(claimed, hand);
        }
        true
    }

    fn begin(&mut self, claimed: Claimed, hand: Hand) {
        self.driving.spawn(drive_one(self.app.clone(), self.meters.clone(), claimed, hand));
    }

    async fn wait(&mut self) {
        let pause = (self.look_at - self.app.clock.now()).to_std().unwrap_or_default();
        tokio::select! {
            Some(ended) = self.driving.join_next() => self.ended(ended),
            look = self.app.hands.woken() => self.look |= look,
            // Told to look, and without a hand for it, we wait for one of them to be free.
            () = self.app.clock.sleep(pause), if !self.look => {}
            () = self.app.shutdown.cancelled() => {}
        }
    }

    fn look_when_due(&mut self) {
        let now = self.app.clock.now();
        if now >= self.look_at {
            self.look = true;
            self.look_at = now + millis(self.app.saga.sweep_interval_ms);
        }
    }

    fn ended(&mut self, ended: Result<Option<DateTime<Utc>>, JoinError>) {
        match ended {
            Ok(Some(again_at)) => self.look_at = self.look_at.min(again_at),
            Ok(None) => {}
            // Its lease runs out, and the step is tried again.
            Err(error) => error!(%error, "a step panicked"),
        }
    }

    async fn measure_when_due(&mut self) {
        let now = self.app.clock.now();
        if now < self.measure_at {
            return;
        }
        self.measure_at = now + millis(self.app.saga.sweep_interval_ms);
        let read = async {
            let mut tx = self.app.db.read_one().await?;
            store::backlog(&mut tx, now, BACKLOG_COUNTED_MAX).await
        };
        if let Ok(backlog) = read.await {
            self.meters.due.set(backlog.due);
            self.meters.overdue.set(backlog.overdue);
            self.meters.oldest_seconds.set(backlog.oldest.map_or(0, |oldest| (now - oldest).num_seconds()));
        }
    }
}

async fn drive_one(app: App, meters: Meters, claimed: Claimed, _hand: Hand) -> Option<DateTime<Utc>> {
    let driven = drive(&app, claimed).await;
    meters.count(claimed.step.kind, driven.as_ref());
    match driven {
        Ok(Driven::Postponed(due_at)) => Some(due_at),
        Ok(Driven::Finished { .. } | Driven::Superseded) => None,
        Err(error) => {
            let order_id = claimed.step.order_id;
            warn!(%order_id, error = story(&error), "the end of a step cannot be stored");
            None
        }
    }
}
