//! What the system says of the process, under the names that every Prometheus client library has.

use std::fmt;

use procfs::process::{LimitValue, Process, Stat};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use tracing::debug;

use super::scrape::Scrape;
use crate::story::story;

/// <https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>
#[derive(Debug)]
pub(super) struct ProcessMetrics;

impl Collector for ProcessMetrics {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        match Seen::now() {
            Ok(seen) => seen.encode(&mut Scrape(encoder)),
            // Where /proc is hidden from us, the rest is told all the same.
            Err(error) => {
                debug!(error = story(&error), "the process cannot see itself");
                Ok(())
            }
        }
    }
}

struct Seen {
    stat: Stat,
    started: f64,
    open_fds: usize,
    max_fds: f64,
}

impl Seen {
    fn now() -> procfs::ProcResult<Self> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let boot: f64 = seconds(procfs::boot_time_secs()?);
        let max_fds = match process.limits()?.max_open_files.soft_limit {
            LimitValue::Unlimited => f64::INFINITY,
            LimitValue::Value(value) => seconds(value),
        };
        Ok(Self {
            started: boot + seconds(stat.starttime) / seconds(procfs::ticks_per_second()),
            open_fds: process.fd_count()?,
            max_fds,
            stat,
        })
    }

    fn encode(&self, scrape: &mut Scrape<'_>) -> fmt::Result {
        let stat = &self.stat;
        let cpu = seconds(stat.utime + stat.stime) / seconds(procfs::ticks_per_second());
        scrape.counter("process_cpu_seconds", "Seconds of CPU time, user and system", cpu)?;
        let resident = stat.rss * procfs::page_size();
        scrape.gauge("process_resident_memory_bytes", "Memory that is in use", resident)?;
        scrape.gauge("process_virtual_memory_bytes", "Addresses that are mapped", stat.vsize)?;
        scrape.gauge("process_open_fds", "Open file descriptors", self.open_fds)?;
        scrape.gauge("process_max_fds", "File descriptors that may be open", self.max_fds)?;
        scrape.gauge("process_threads", "Threads", stat.num_threads)?;
        scrape.gauge("process_start_time_seconds", "When the process began, in seconds since 1970", self.started)
    }
}

/// Exact to 2^53.
#[expect(clippy::cast_precision_loss, reason = "285 million years of seconds are exact")]
fn seconds(value: u64) -> f64 {
    value as f64
}
