//! What a run has shown, as a table and as JSON.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::args::Output;
use crate::cost::Cost;
use crate::load::{Failures, Pace};
use crate::scenario::News;
use crate::stats::Summary;

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// What was called.
    pub(crate) scenario: String,
    /// How calls came.
    pub(crate) pace: Pace,
    /// How late calls were sent, which were due within the window. In a closed loop none is.
    pub(crate) sent_late: Option<Summary>,
    /// The time in which calls were counted.
    pub(crate) window_seconds: f64,
    /// Answers that came within it.
    pub(crate) answered: u64,
    /// The same, a second.
    pub(crate) per_second: f64,
    /// Calls a second whose work came to its end, where the answer is not the end: orders whose stock was allocated.
    pub(crate) finished_per_second: Option<f64>,
    /// Of calls that were answered, from when they were due.
    pub(crate) latency: Option<Summary>,
    /// Calls that were not answered.
    pub(crate) failures: Vec<Failures>,
    /// What the servers have used, if they could be asked.
    pub(crate) cost: Option<Cost>,
    /// How long the work went on after the last answer.
    pub(crate) settled_seconds: Option<f64>,
    /// How long it took after that until all events were published, where that is known.
    pub(crate) published_seconds: Option<f64>,
    /// Where calls are of several kinds: latencies of each.
    pub(crate) kinds: Vec<Kind>,
    /// How changes became known to those who watch.
    pub(crate) news: Option<News>,
    /// What makes the figures worth less.
    pub(crate) remarks: Vec<String>,
    /// What was wrong in the end.
    pub(crate) violations: Vec<String>,
}

/// Calls of one kind among several.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) latency: Option<Summary>,
}

impl Report {
    /// One that shows nothing but this.
    #[cfg(test)]
    pub(crate) fn bare(scenario: &str, pace: Pace, latency: Summary) -> Self {
        Self {
            scenario: scenario.to_owned(),
            pace,
            sent_late: None,
            window_seconds: 1.0,
            answered: latency.count,
            per_second: 1.0,
            finished_per_second: None,
            latency: Some(latency),
            failures: Vec::new(),
            cost: None,
            settled_seconds: None,
            published_seconds: None,
            kinds: Vec::new(),
            news: None,
            remarks: Vec::new(),
            violations: Vec::new(),
        }
    }

    /// Calls that were not answered.
    pub(crate) fn failed(&self) -> u64 {
        self.failures.iter().map(|failure| failure.count).sum()
    }

    /// A latency, if it is known.
    pub(crate) fn latency(&self, quantile: fn(&Summary) -> Option<f64>) -> Option<f64> {
        self.latency.as_ref().and_then(quantile)
    }

    /// Whether the answers were right.
    pub(crate) fn is_right(&self) -> bool {
        self.violations.is_empty()
    }

    /// As it is shown to people.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("{}, {}, {:.0} s\n", self.scenario, self.pace, self.window_seconds);
        let mut row = |name: &str, value: String| {
            writeln!(text, "  {name:<30} {value}").expect("a string takes all");
        };
        row("throughput", format!("{:.1}/s ({} answered)", self.per_second, self.answered));
        if let (Pace::PerSecond(_), Some(late)) = (self.pace, &self.sent_late) {
            row(
                "sent",
                format!(
                    "{}, {} late on average, {} at most",
                    late.count,
                    milliseconds(late.mean_us),
                    milliseconds(late.max_us)
                ),
            );
        }
        if let Some(finished) = self.finished_per_second {
            row("orders brought to their end", format!("{finished:.1}/s"));
        }
        if let Some(latency) = &self.latency {
            row("latency p50 p90 p99 p99.9 max", quantiles(latency));
        }
        for Kind { name, latency } in &self.kinds {
            row(name, latency.as_ref().map_or_else(|| "none answered".to_owned(), quantiles));
        }
        if let Some(news) = &self.news {
            if let Some(latency) = &news.latency {
                row("known p50 p90 p99 p99.9 max", quantiles(latency));
            }
            row("known to readers", format!("{} changes by {} messages", news.known, news.messages));
        }
        for Failures { code, reason, count } in &self.failures {
            row("failed", format!("{count}  {code} {reason}"));
        }
        if let Some(cost) = &self.cost {
            if let Some((cpu, grown)) = cost.cpu_seconds_per_1000.zip(cost.grown_bytes_per_1000) {
                row("server CPU per 1,000 calls", format!("{cpu:.4} s"));
                row("server memory per 1,000 calls", format!("{:+.1} KiB", grown / 1_024.0));
            }
            row("server memory at the end", format!("{:.1} MiB", cost.resident_bytes / 1_048_576.0));
        }
        if let Some(seconds) = self.settled_seconds {
            row("work after the last answer", format!("{seconds:.2} s"));
        }
        if let Some(seconds) = self.published_seconds {
            row("events published after that", format!("{seconds:.2} s"));
        }
        self.remarks.iter().for_each(|remark| row("note", remark.clone()));
        match self.violations.as_slice() {
            [] => row("checked", "what was answered is right".to_owned()),
            violations => violations.iter().for_each(|violation| row("WRONG", violation.clone())),
        }
        text
    }
}

fn quantiles(of: &Summary) -> String {
    let known = |quantile: Option<f64>| quantile.map_or_else(|| "–".to_owned(), milliseconds);
    let all = [of.p50_us, of.p90_us, of.p99_us, of.p999_us, Some(of.max_us)].map(known).join("  ");
    format!("{all}  (of {})", of.count)
}

impl std::fmt::Display for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InFlight(many) => write!(f, "{many} in flight"),
            Self::PerSecond(rate) => write!(f, "{rate:.0} arrivals a second"),
        }
    }
}

/// Three digits are all that a benchmark knows.
pub(crate) fn milliseconds(micros: f64) -> String {
    let millis = micros / 1_000.0;
    match millis {
        0.0..10.0 => format!("{millis:.3} ms"),
        10.0..1_000.0 => format!("{millis:.1} ms"),
        _ => format!("{millis:.0} ms"),
    }
}

/// Shows something to whoever has started the tool.
pub(crate) fn show(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Whether a file can be written: what has run for an hour should not fail by that.
pub(crate) fn must_be_writable(file: &Path) -> anyhow::Result<()> {
    let opened = File::options().create(true).append(true).open(file);
    opened.map(drop).with_context(|| format!("{} cannot be written", file.display()))
}

impl Output {
    /// Says something to people: beside JSON that is shown, where errors go.
    pub(crate) fn tell(&self, text: &str) -> anyhow::Result<()> {
        if self.shows_json() {
            return Ok(writeln!(std::io::stderr().lock(), "{text}")?);
        }
        show(text)
    }

    /// Fails where JSON could not be written in the end.
    pub(crate) fn prepare(&self) -> anyhow::Result<()> {
        self.file().map_or(Ok(()), must_be_writable)
    }

    /// Writes what is known so far, if there is a file for it.
    pub(crate) fn save(&self, value: &impl Serialize) -> anyhow::Result<()> {
        let Some(file) = self.file() else { return Ok(()) };
        let text = serde_json::to_string_pretty(value)?;
        std::fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))
    }

    /// Shows all that there is, if that is asked for.
    pub(crate) fn finish(&self, value: &impl Serialize) -> anyhow::Result<()> {
        if self.shows_json() { show(&serde_json::to_string_pretty(value)?) } else { Ok(()) }
    }

    fn shows_json(&self) -> bool {
        self.json.as_deref() == Some(Path::new("-"))
    }

    fn file(&self) -> Option<&Path> {
        self.json.as_deref().filter(|_| !self.shows_json())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_names_what_failed_and_what_was_wrong() {
        let latency =
            Summary { count: 2_000, p50_us: Some(1_500.0), p99_us: Some(25_000.0), max_us: 2e6, ..Summary::default() };
        let report = Report {
            per_second: 1_234.5,
            finished_per_second: Some(1_200.0),
            failures: vec![Failures { code: "UNAVAILABLE".into(), reason: "LOAD_SHED".into(), count: 20 }],
            violations: vec!["3 units are still held".to_owned()],
            ..Report::bare("place-order", Pace::InFlight(64), latency)
        };
        let table = report.table();
        for part in ["1234.5/s", "1200.0/s", "1.500 ms", "25.0 ms  –  2000 ms  (of 2000)", "20  UNAVAILABLE LOAD_SHED"]
        {
            assert!(table.contains(part), "{part}: {table}");
        }
        assert!(table.contains("WRONG") && report.failed() == 20);
        assert!(!report.is_right());
    }
}
