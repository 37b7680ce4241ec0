//! Background tasks, and the end of a process.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use prometheus_client::metrics::counter::Counter;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use crate::metrics::Metrics;

/// The background tasks of a process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tasks {
    shutdown: CancellationToken,
    tracker: TaskTracker,
    panics: Counter,
    /// Cancelled when every task has ended.
    ended: CancellationToken,
    closers: TaskTracker,
}

impl Tasks {
    /// None yet. Panics are counted in `metrics`.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            shutdown: CancellationToken::new(),
            tracker: TaskTracker::new(),
            panics: metrics.register("background_panics", "Background tasks that ended by a panic"),
            ended: CancellationToken::new(),
            closers: TaskTracker::new(),
        }
    }

    /// Runs `task` until it ends; it watches [`shutdown`](Self::shutdown) itself. A panic is logged and counted.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let panics = self.panics.clone();
        self.tracker.spawn(async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                panics.inc();
                error!(task = name, "background task panicked");
            }
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn stop_waits_for_tasks_and_survives_their_panics() {
        let tasks = Tasks::new(&Metrics::default());
        let token = tasks.shutdown().clone();
        tasks.spawn("good", async move { token.cancelled().await });
        tasks.spawn("bad", async { panic!("planted") });
        assert!(tasks.stop(Duration::from_secs(10)).await);
        assert_eq!(tasks.panics.get(), 1);
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
