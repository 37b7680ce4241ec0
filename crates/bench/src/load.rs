//! Load: calls at a rate that nothing slows down (open loop), or so many callers who each wait for their answer (closed loop).
//!
//! Latency counts from when a call was due, not from when it was sent: a server that stands still for a second has made everybody wait who
//! came in that second, and a benchmark that only then goes on sending would not know ("coordinated omission").

mod recorder;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::Status;

pub(crate) use recorder::{Failures, Measured};

use self::recorder::Recorder;
use crate::stats::as_f64;

/// How calls come.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pace {
    /// So many in flight, always.
    InFlight(usize),
    /// So many a second, whatever becomes of them.
    PerSecond(f64),
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// How calls come.
    pub(crate) pace: Pace,
    /// Calls of this time are made and not counted.
    pub(crate) warm_up: Duration,
    /// Calls that are due in this time are counted.
    pub(crate) window: Duration,
}

/// One call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    /// Its number, which decides what it asks for.
    pub(crate) nth: u64,
    /// When it is due.
    pub(crate) due: Instant,
    /// Whether that is within the window.
    pub(crate) counts: bool,
}

impl Call {
    /// One that is made outside of a run.
    pub(crate) fn uncounted(nth: u64) -> Self {
        Self { nth, due: Instant::now(), counts: false }
    }
}

/// Calls of one kind.
pub(crate) trait Calls: Send + Sync + 'static {
    /// Makes a call.
    fn call(&self, call: Call) -> impl Future<Output = Result<(), CallError>> + Send;
}

/// Why a call has not gone well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// It was refused, or nobody knows what became of it.
    #[error(transparent)]
    Failed(#[from] Status),
    /// The answer is not one to what was asked.
    #[error("wrong answer: {0}")]
    Wrong(&'static str),
}

/// What a progress bar shows.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// Calls that were answered.
    pub(crate) done: AtomicU64,
    /// Calls that failed.
    pub(crate) failed: AtomicU64,
}

/// Calls of an open loop that may be in flight; those above it are counted as failed, since nobody can tell how long they would take.
const IN_FLIGHT_MAX: usize = 20_000;

/// What was measured, and what `edge` has returned at the beginning and at the end of the window, which it was told.
pub(crate) struct Ran<E> {
    /// The calls.
    pub(crate) measured: Measured,
    /// At the beginning and at the end of the window.
    pub(crate) edges: [E; 2],
}

/// Runs the plan; returns when the last call is answered.
pub(crate) async fn run<C: Calls, E>(
    plan: &Plan,
    calls: Arc<C>,
    live: Arc<Live>,
    edge: impl AsyncFn(Instant) -> E,
) -> anyhow::Result<Ran<E>> {
    let start = Instant::now();
    let (from, to) = (start + plan.warm_up, start + plan.warm_up + plan.window);
    let source = Arc::new(Source { calls, recorder: Recorder::new(from, to), live, next: AtomicU64::new(0) });
    let ending = Arc::new(AtomicBool::new(false));
    let _end_on_return = EndOnDrop(ending.clone());
    let running = match plan.pace {
        Pace::InFlight(many) => tokio::spawn(closed(source.clone(), many, ending)),
        Pace::PerSecond(rate) => {
            tokio::spawn(open(source.clone(), Schedule { start, until: to, per_second: rate }, ending))
        }
    };
    tokio::time::sleep_until(from.into()).await;
    let first = edge(from).await;
    tokio::time::sleep_until(to.into()).await;
    let last = edge(to).await;
    running.await?;
    Ok(Ran { measured: source.recorder.measured(), edges: [first, last] })
}

/// A run that is given up leaves no callers behind.
struct EndOnDrop(Arc<AtomicBool>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The calls of a run.
struct Source<C> {
    calls: Arc<C>,
    recorder: Recorder,
    live: Arc<Live>,
    next: AtomicU64,
}

impl<C: Calls> Source<C> {
    /// Makes the next call, which was due at `due`.
    async fn call(&self, due: Instant) {
        let nth = self.next.fetch_add(1, Ordering::Relaxed);
        let call = Call { nth, due, counts: self.recorder.counts(due) };
        self.recorder.record_sent(&call);
        let result = self.calls.call(call).await;
        let count = if result.is_ok() { &self.live.done } else { &self.live.failed };
        count.fetch_add(1, Ordering::Relaxed);
        self.recorder.record(nth, due, due.elapsed(), result.err().as_ref());
    }

    /// A call that was due and could not be made.
    fn give_up(&self, due: Instant) {
        let nth = self.next.fetch_add(1, Ordering::Relaxed);
        self.live.failed.fetch_add(1, Ordering::Relaxed);
        self.recorder.record_unsent(nth, due);
    }
}

async fn closed<C: Calls>(source: Arc<Source<C>>, many: usize, ending: Arc<AtomicBool>) {
    let mut callers = JoinSet::new();
    for _ in 0..many {
        let (source, ending) = (source.clone(), ending.clone());
        callers.spawn(async move {
            loop {
                let due = Instant::now();
                if due >= source.recorder.end() || ending.load(Ordering::Relaxed) {
                    return;
                }
                source.call(due).await;
            }
        });
    }
    callers.join_all().await;
}

/// When calls of an open loop are due: at even distances, whatever becomes of those before.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    start: Instant,
    until: Instant,
    per_second: f64,
}

impl Schedule {
    /// When call number `nth` is due; `None`: the run is over by then.
    fn due(&self, nth: u64) -> Option<Instant> {
        let seconds = as_f64(nth) / self.per_second;
        let due = self.start + Duration::try_from_secs_f64(seconds).ok()?;
        (due < self.until).then_some(due)
    }
}

async fn open<C: Calls>(source: Arc<Source<C>>, schedule: Schedule, ending: Arc<AtomicBool>) {
    let places = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let (runtime, of_clock) = (tokio::runtime::Handle::current(), places.clone());
    // tokio's timers go by milliseconds. A thread that sleeps is told the time to some 50 µs, and takes none from the runtime.
    let clock = thread::spawn(move || {
        let mut nth = 0;
        while let Some(due) = schedule.due(nth) {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if ending.load(Ordering::Relaxed) {
                return;
            }
            nth += 1;
            let Ok(place) = of_clock.clone().try_acquire_owned() else {
                source.give_up(due);
                continue;
            };
            let source = source.clone();
            runtime.spawn(async move {
                source.call(due).await;
                drop(place);
            });
        }
    });
    drop(tokio::task::spawn_blocking(move || clock.join()).await);
    // Whoever is still in flight has a place.
    drop(places.acquire_many(u32::try_from(IN_FLIGHT_MAX).unwrap_or(u32::MAX)).await);
}

#[cfg(test)]
mod tests {
    use tokio::sync::Mutex;

    use super::*;

    fn plan(pace: Pace) -> Plan {
        Plan { pace, warm_up: Duration::ZERO, window: Duration::from_millis(400) }
    }

    async fn measured(pace: Pace, calls: impl Calls) -> Measured {
        run(&plan(pace), Arc::new(calls), Arc::default(), async |_| ()).await.unwrap().measured
    }

    #[test]
    fn calls_are_due_at_even_distances_until_the_end() {
        let start = Instant::now();
        let schedule = Schedule { start, until: start + Duration::from_secs(1), per_second: 4.0 };
        let due: Vec<Duration> = (0..).map_while(|nth| schedule.due(nth)).map(|due| due - start).collect();
        assert_eq!(due, [0, 250, 500, 750].map(Duration::from_millis));
    }

    /// One at a time, the first of which takes 200 ms and all others nothing.
    #[derive(Default)]
    struct Hiccup(Mutex<()>);

    impl Calls for Hiccup {
        async fn call(&self, Call { nth, .. }: Call) -> Result<(), CallError> {
            let _alone = self.0.lock().await;
            if nth == 0 {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Ok(())
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_was_due_while_the_server_stood_still_has_waited() {
        let open = measured(Pace::PerSecond(1_000.0), Hiccup::default()).await;
        assert_eq!(open.latencies.count(), 400);
        // Half of all were due in the 200 ms, and waited for what was left of them.
        let summary = open.latencies.summary().unwrap();
        assert!(summary.p90_us.unwrap() > 120_000.0, "{summary:?}");
        // One caller sees one slow call, among thousands.
        let closed = measured(Pace::InFlight(1), Hiccup::default()).await;
        assert!(closed.latencies.summary().unwrap().p90_us.unwrap() < 100_000.0);
    }

    /// Every second call fails.
    struct Half;

    impl Calls for Half {
        async fn call(&self, Call { nth, .. }: Call) -> Result<(), CallError> {
            if nth.is_multiple_of(2) { Ok(()) } else { Err(Status::unavailable("no").into()) }
        }
    }

    #[tokio::test]
    async fn failures_are_counted_apart_by_code_and_reason() {
        let measured = measured(Pace::PerSecond(500.0), Half).await;
        assert_eq!(measured.latencies.count(), 100);
        assert_eq!(measured.failures.iter().map(|failure| failure.count).collect::<Vec<_>>(), [100]);
        assert_eq!((measured.failures[0].code.as_str(), measured.failures[0].reason.as_str()), ("UNAVAILABLE", ""));
        assert!((measured.per_second() - 250.0).abs() < 1.0);
        assert_eq!(measured.sent_late.count(), 200, "so many were sent");
    }

    /// Every tenth answer is about something else.
    struct Mistaken;

    impl Calls for Mistaken {
        async fn call(&self, Call { nth, .. }: Call) -> Result<(), CallError> {
            if nth.is_multiple_of(10) { Err(CallError::Wrong("about something else")) } else { Ok(()) }
        }
    }

    #[tokio::test]
    async fn wrong_answers_are_violations_even_outside_of_the_window_and_so_is_nothing_at_all() {
        let plan = Plan { warm_up: Duration::from_millis(200), ..plan(Pace::PerSecond(500.0)) };
        let ran = run(&plan, Arc::new(Mistaken), Arc::default(), async |_| ()).await.unwrap();
        assert_eq!((ran.measured.latencies.count(), ran.measured.failures.len()), (180, 0));
        assert_eq!(ran.measured.violations(), ["30 wrong answers: about something else"]);
        assert_eq!(Measured::default().violations(), ["nothing was answered"]);
    }
}
