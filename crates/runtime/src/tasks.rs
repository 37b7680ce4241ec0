//! Background tasks, and the end of a process.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use prometheus_client::metrics::counter::Counter;
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use crate::calls::age_ms;
use crate::metrics::Metrics;

/// The background tasks of a process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tasks {
    shutdown: CancellationToken,
    tracker: TaskTracker,
    panics: Counter,
    broken: CancellationToken,
    /// Cancelled when every task has ended.
    ended: CancellationToken,
    closers: TaskTracker,
    running: Arc<Mutex<BTreeMap<u64, Entry>>>,
}

/// A background task that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Running {
    /// Its name.
    pub name: &'static str,
    /// Since it was spawned.
    pub age_ms: u64,
    /// How often it was polled.
    pub polls: u64,
    /// It is being polled right now: if again and again and `polls` does not grow, it holds its thread.
    pub is_polled: bool,
    /// Since it was last polled: how long it has been waiting, or how long the poll goes on.
    pub polled_before_ms: u64,
}

#[derive(Debug)]
struct Entry {
    name: &'static str,
    spawned: Instant,
    polls: Arc<Polls>,
}

#[derive(Debug, Default)]
struct Polls {
    count: AtomicU64,
    now: AtomicBool,
    /// Milliseconds from the spawning on.
    last_ms: AtomicU64,
}

impl Tasks {
    /// None yet. Panics are counted in `metrics`.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            shutdown: CancellationToken::new(),
            tracker: TaskTracker::new(),
            panics: metrics.register("background_panics", "Background tasks that ended by a panic"),
            broken: CancellationToken::new(),
            ended: CancellationToken::new(),
            closers: TaskTracker::new(),
            running: Arc::default(),
        }
    }

    /// Tasks of the same process that end on their own; they are seen among these.
    #[must_use]
    pub fn part(&self) -> Self {
        Self {
            shutdown: CancellationToken::new(),
            tracker: TaskTracker::new(),
            ended: CancellationToken::new(),
            closers: TaskTracker::new(),
            ..self.clone()
        }
    }

    /// Those that run, by name, oldest first.
    pub fn running(&self) -> Vec<Running> {
        let mut running: Vec<Running> = self.entries().values().map(Entry::seen).collect();
        running.sort_by(|one, other| one.name.cmp(other.name)); // stable: numbers grow with time
        running
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<u64, Entry>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a task runs until the answer is dropped.
    fn note(&self, name: &'static str) -> (Noted, Arc<Polls>) {
        let polls = Arc::new(Polls::default());
        let entry = Entry { name, spawned: Instant::now(), polls: polls.clone() };
        let mut entries = self.entries();
        let number = entries.last_key_value().map_or(0, |(last, _)| last + 1);
        entries.insert(number, entry);
        (Noted { tasks: self.running.clone(), number }, polls)
    }

    /// Runs `task` until it ends; it watches [`shutdown`](Self::shutdown) itself. A panic is logged and counted, and the process ends:
    /// what is left of it would look well and do half of its work.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let (panics, broken) = (self.panics.clone(), self.broken.clone());
        let (noted, polls) = self.note(name);
        self.tracker.spawn(async move {
            if AssertUnwindSafe(counted(task, polls)).catch_unwind().await.is_err() {
                panics.inc();
                error!(task = name, "background task panicked");
                broken.cancel();
            }
            drop(noted);
        });
    }

    /// Runs `work` until it ends or the process is to end, wherever it stands then.
    pub fn spawn_until_shutdown(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        self.spawn(name, async move {
            tokio::select! {
                () = work => {}
                () = shutdown.cancelled() => {}
            }
        });
    }

    /// Runs `work` when every task has ended: closing what they used.
    pub fn at_end(&self, work: impl Future<Output = ()> + Send + 'static) {
        let ended = self.ended.clone();
        self.closers.spawn(async move {
            ended.cancelled().await;
            work.await;
        });
    }

    /// Cancelled when a task has panicked.
    pub fn broken(&self) -> &CancellationToken {
        &self.broken
    }

    /// Cancelled when the process is to end.
    pub fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// Asks every task to end and waits for them, no longer than `within`; whether all have ended.
    pub async fn stop(&self, within: Duration) -> bool {
        self.shutdown.cancel();
        self.tracker.close();
        self.closers.close();
        let ending = async {
            self.tracker.wait().await;
            self.ended.cancel();
            self.closers.wait().await;
        };
        let ended = tokio::time::timeout(within, ending).await.is_ok();
        if !ended {
            warn!(tasks = self.tracker.len(), "tasks did not end in time");
        }
        ended
    }
}

/// Counts the polls of `task`.
async fn counted(task: impl Future<Output = ()>, polls: Arc<Polls>) {
    let spawned = Instant::now();
    let mut task = pin!(task);
    poll_fn(|cx| {
        polls.count.fetch_add(1, Ordering::Relaxed);
        polls.last_ms.store(age_ms(spawned), Ordering::Relaxed);
        polls.now.store(true, Ordering::Relaxed);
        let poll = task.as_mut().poll(cx);
        polls.now.store(false, Ordering::Relaxed);
        poll
    })
    .await;
}

impl Entry {
    fn seen(&self) -> Running {
        let age_ms = age_ms(self.spawned);
        Running {
            name: self.name,
            age_ms,
            polls: self.polls.count.load(Ordering::Relaxed),
            is_polled: self.polls.now.load(Ordering::Relaxed),
            polled_before_ms: age_ms.saturating_sub(self.polls.last_ms.load(Ordering::Relaxed)),
        }
    }
}

/// A task that runs as long as this lives.
struct Noted {
    tasks: Arc<Mutex<BTreeMap<u64, Entry>>>,
    number: u64,
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_runs_is_seen_by_name_and_age() {
        let tasks = Tasks::new(&Metrics::default());
        let part = tasks.part();
        tasks.spawn("relay", std::future::pending());
        tasks.spawn("done", async {});
        tokio::time::sleep(Duration::from_secs(1)).await;
        let shutdown = part.shutdown().clone();
        part.spawn("health", async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            shutdown.cancelled().await;
        });
        tokio::time::sleep(Duration::from_secs(2)).await;
        let seen =
            |name, age_ms, polls, polled_before_ms| Running { name, age_ms, polls, is_polled: false, polled_before_ms };
        assert_eq!(tasks.running(), [seen("health", 2_000, 2, 1_000), seen("relay", 3_000, 1, 3_000)]);
        assert!(part.stop(Duration::from_secs(1)).await);
        assert_eq!(tasks.running(), [seen("relay", 3_000, 1, 3_000)]);
        assert!(!tasks.shutdown().is_cancelled());
    }

    #[tokio::test]
    async fn stop_waits_for_tasks_and_survives_their_panics() {
        let tasks = Tasks::new(&Metrics::default());
        let token = tasks.shutdown().clone();
        tasks.spawn("good", async move { token.cancelled().await });
        tasks.spawn("bad", async { panic!("planted") });
        assert!(tasks.stop(Duration::from_secs(10)).await);
        assert_eq!(tasks.panics.get(), 1);
        assert!(tasks.broken().is_cancelled());
    }

    #[tokio::test]
    async fn what_tasks_used_is_closed_when_they_have_ended() {
        let tasks = Tasks::new(&Metrics::default());
        let order = Arc::new(Mutex::new(Vec::new()));
        let (first, then, token) = (order.clone(), order.clone(), tasks.shutdown().clone());
        tasks.at_end(async move { then.lock().unwrap().push("closed") });
        tasks.spawn("user", async move {
            token.cancelled().await;
            tokio::task::yield_now().await;
            first.lock().unwrap().push("ended");
        });
        assert!(tasks.stop(Duration::from_secs(10)).await);
        assert_eq!(*order.lock().unwrap(), ["ended", "closed"]);
    }

    #[tokio::test(start_paused = true)]
    async fn stop_does_not_wait_for_ever() {
        let tasks = Tasks::new(&Metrics::default());
        tasks.spawn("deaf", std::future::pending());
        assert!(!tasks.stop(Duration::from_secs(1)).await);
    }
}
