//! What calls cost the servers: CPU time and memory, as their admin servers say, or as Linux says of a process that we have started.

use std::net::SocketAddr;

use anyhow::Context;
use procfs::process::Process;
use serde::Serialize;
use souk_testkit::http;

use crate::stats::{as_f64, ratio};

/// Where a server's cost is read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Meter {
    /// `/metrics` of its admin server.
    Admin(SocketAddr),
    /// A process on this machine.
    Process(i32),
}

/// What servers have used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    cpu_seconds: f64,
    resident_bytes: f64,
}

/// What calls have cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Cost {
    /// CPU seconds of all servers together, by 1,000 answered calls; `None`: none was answered.
    pub(crate) cpu_seconds_per_1000: Option<f64>,
    /// What the servers' memory has grown by, by 1,000 answered calls, in bytes.
    pub(crate) grown_bytes_per_1000: Option<f64>,
    /// The same in all, in bytes.
    pub(crate) grown_bytes: f64,
    /// The servers' resident memory at the end, in bytes.
    pub(crate) resident_bytes: f64,
}

/// What all of them have used; `None`: there are none to ask.
pub(crate) async fn used(meters: &[Meter]) -> anyhow::Result<Option<Used>> {
    let mut sum = Used::default();
    for meter in meters {
        let used = match meter {
            Meter::Admin(address) => of_admin(*address).await?,
            Meter::Process(id) => of_process(*id)?,
        };
        sum.cpu_seconds += used.cpu_seconds;
        sum.resident_bytes += used.resident_bytes;
    }
    Ok((!meters.is_empty()).then_some(sum))
}

async fn of_admin(address: SocketAddr) -> anyhow::Result<Used> {
    let (_, text) = http::get(address, "/metrics").await.with_context(|| format!("no admin server at {address}"))?;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).with_context(|| format!("{address} has no {name}"))
    };
    Ok(Used {
        cpu_seconds: value("process_cpu_seconds_total")?,
        resident_bytes: value("process_resident_memory_bytes")?,
    })
}

fn of_process(id: i32) -> anyhow::Result<Used> {
    let stat = Process::new(id).and_then(|process| process.stat()).context("a server has ended")?;
    let ticks = as_f64(stat.utime + stat.stime) / as_f64(procfs::ticks_per_second());
    Ok(Used { cpu_seconds: ticks, resident_bytes: as_f64(stat.rss) * as_f64(procfs::page_size()) })
}

impl Used {
    /// What `answered` calls have cost since `before`.
    pub(crate) fn since(&self, before: &Self, answered: u64) -> Cost {
        let per_1000 = |difference: f64| ratio(difference * 1_000.0, as_f64(answered));
        Cost {
            cpu_seconds_per_1000: per_1000(self.cpu_seconds - before.cpu_seconds),
            grown_bytes_per_1000: per_1000(self.resident_bytes - before.resident_bytes),
            grown_bytes: self.resident_bytes - before.resident_bytes,
            resident_bytes: self.resident_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_has_used_something_and_what_calls_cost_is_the_difference() {
        let own = Meter::Process(i32::try_from(std::process::id()).unwrap());
        assert!(used(&[own]).await.unwrap().unwrap().resident_bytes > 1e6);
        assert!(used(&[]).await.unwrap().is_none());
        let before = Used { cpu_seconds: 1.0, resident_bytes: 1_000.0 };
        let after = Used { cpu_seconds: 1.5, resident_bytes: 3_000.0 };
        let cost = after.since(&before, 10_000);
        assert!((cost.cpu_seconds_per_1000.unwrap() - 0.05).abs() < 1e-9);
        assert!((cost.grown_bytes_per_1000.unwrap() - 200.0).abs() < 1e-9);
        assert_eq!(after.since(&before, 0).cpu_seconds_per_1000, None);
    }
}
