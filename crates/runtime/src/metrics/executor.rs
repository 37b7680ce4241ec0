//! How busy the runtime is.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use tokio::runtime::{Handle, RuntimeMetrics};

use super::scrape::{Label, Scrape};

/// Of the runtime that serves. The share of a worker's time that it is busy is the rate of `tokio_worker_busy_seconds_total`.
#[derive(Debug)]
pub(super) struct TokioMetrics(RuntimeMetrics);

impl TokioMetrics {
    /// Of the current runtime.
    pub(super) fn new() -> Self {
        Self(Handle::current().metrics())
    }

    fn each_worker<V>(&self, value: impl Fn(usize) -> V) -> impl Iterator<Item = (Vec<Label>, V)> {
        (0..self.0.num_workers()).map(move |worker| (vec![("worker", worker.to_string())], value(worker)))
    }

    fn encode_stable(&self, scrape: &mut Scrape<'_>) -> fmt::Result {
        let Self(runtime) = self;
        scrape.gauge("tokio_workers", "Threads that run tasks", runtime.num_workers())?;
        scrape.gauge("tokio_alive_tasks", "Tasks that have not ended", runtime.num_alive_tasks())?;
        let depth = "Tasks that no worker has taken up yet";
        scrape.gauge("tokio_global_queue_depth", depth, runtime.global_queue_depth())?;
        let busy = self.each_worker(|worker| runtime.worker_total_busy_duration(worker).as_secs_f64());
        scrape.counters("tokio_worker_busy_seconds", "Seconds for which a worker ran tasks", busy)
    }

    #[cfg(tokio_unstable)]
    fn encode_unstable(&self, scrape: &mut Scrape<'_>) -> fmt::Result {
        let Self(runtime) = self;
        let blocking = "Threads for work that blocks: hashing, files";
        scrape.gauge("tokio_blocking_threads", blocking, runtime.num_blocking_threads())?;
        let idle = "Threads for work that blocks and has none";
        scrape.gauge("tokio_idle_blocking_threads", idle, runtime.num_idle_blocking_threads())?;
        let waiting = "Work that blocks and waits for a thread";
        scrape.gauge("tokio_blocking_queue_depth", waiting, runtime.blocking_queue_depth())?;
        let spawned = "Tasks that were ever spawned";
        scrape.counter("tokio_spawned_tasks", spawned, runtime.spawned_tasks_count())?;
        let yields = "Tasks that had to yield because they had enough";
        scrape.counter("tokio_budget_forced_yields", yields, runtime.budget_forced_yield_count())?;
        let local = self.each_worker(|worker| runtime.worker_local_queue_depth(worker));
        scrape.gauges("tokio_worker_local_queue_depth", "Tasks that wait for a worker", local)?;
        let polls = self.each_worker(|worker| runtime.worker_poll_count(worker));
        scrape.counters("tokio_worker_polls", "Polls of tasks by a worker", polls)?;
        let mean = self.each_worker(|worker| runtime.worker_mean_poll_time(worker).as_secs_f64());
        let help = "Seconds of a poll of late, a moving mean: milliseconds are a task that blocks";
        scrape.gauges("tokio_worker_mean_poll_seconds", help, mean)
    }
}

impl Collector for TokioMetrics {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut scrape = Scrape(encoder);
        self.encode_stable(&mut scrape)?;
        #[cfg(tokio_unstable)]
        self.encode_unstable(&mut scrape)?;
        Ok(())
    }
}
