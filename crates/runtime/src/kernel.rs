//! What every room of a process needs from it.

use tokio_util::sync::CancellationToken;

use crate::calls::Calls;
use crate::clock::Clock;
use crate::ids::Ids;
use crate::metrics::Metrics;
use crate::readiness::{Check, Readiness};
use crate::tasks::Tasks;
use crate::trace::Tracer;

/// Time, ids, background tasks, readiness, metrics and traces of one process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Time.
    pub clock: Clock,
    /// Ids and randomness.
    pub ids: Ids,
    /// Background tasks.
    pub tasks: Tasks,
    /// Whether the process can serve.
    pub readiness: Readiness,
    /// What is measured.
    pub metrics: Metrics,
    /// What is being served, if somebody wants to know.
    pub calls: Calls,
    /// Cancelled when the process is about to end and says so, while it still serves; see [`leave`](Self::leave).
    pub leaving: CancellationToken,
    /// Begins spans.
    pub tracer: Tracer,
}

impl Kernel {
    /// A kernel on this clock, with ids of its own, that exports no traces.
    pub fn new(clock: Clock) -> Self {
        let metrics = Metrics::default();
        let ids = Ids::system(clock.clone());
        Self {
            tracer: Tracer::off(ids.clone()),
            ids,
            tasks: Tasks::new(&metrics),
            readiness: Readiness::new(clock.clone()),
            metrics,
            calls: Calls::default(),
            leaving: CancellationToken::new(),
            clock,
        }
    }

    /// Readiness and gRPC health say from now on that nobody should come here any more; everything goes on as before until the tasks are
    /// stopped.
    pub fn leave(&self) {
        self.readiness.set("process", Check::NotReady("going away".to_owned()));
        self.leaving.cancel();
    }
}
