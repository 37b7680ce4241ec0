//! What became of the calls of a run.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use souk_proto_common::failure::reason_of;
use tonic::Code;

use super::{Call, CallError};
use crate::stats::{Latencies, as_f64};

/// Callers rarely meet at one lock.
const SHARDS: u64 = 16;

/// Counts the calls that are due within a window. Those before and after are made, and forgotten.
pub(super) struct Recorder {
    from: Instant,
    to: Instant,
    shards: Vec<Mutex<Shard>>,
}

#[derive(Default)]
struct Shard {
    latencies: Latencies,
    answered: u64,
    sent_late: Latencies,
    failures: BTreeMap<(String, String), u64>,
    wrong: BTreeMap<&'static str, u64>,
}

/// What became of the calls that were due within the window.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    /// Of those that were answered.
    pub(crate) latencies: Latencies,
    /// Answers that came within the window. Where more is asked than can be served, they are fewer than the calls that were due in it and
    /// answered some time.
    pub(crate) answered: u64,
    /// How long after they were due calls were sent, which is the benchmark's own fault.
    pub(crate) sent_late: Latencies,
    /// Of the others, most frequent first.
    pub(crate) failures: Vec<Failures>,
    /// Answers that were wrong, by what was, whenever they came.
    pub(crate) wrong: BTreeMap<&'static str, u64>,
    /// The window.
    pub(crate) window: Duration,
}

/// Calls that failed alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Failures {
    /// `UNAVAILABLE`
    pub(crate) code: String,
    /// `LOAD_SHED`, or nothing if Souk has not said one.
    pub(crate) reason: String,
    /// How many.
    pub(crate) count: u64,
}

impl Recorder {
    pub(super) fn new(from: Instant, to: Instant) -> Self {
        Self { from, to, shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// When the window ends, and with it the run.
    pub(super) fn end(&self) -> Instant {
        self.to
    }

    /// Whether what is due then is due within the window.
    pub(super) fn counts(&self, due: Instant) -> bool {
        (self.from..self.to).contains(&due)
    }

    /// A call is sent now.
    pub(super) fn record_sent(&self, call: &Call) {
        if call.counts {
            self.shard(call.nth).sent_late.record(call.due.elapsed());
        }
    }

    pub(super) fn record(&self, nth: u64, due: Instant, latency: Duration, failure: Option<&CallError>) {
        let answered_at = due + latency;
        if failure.is_none() && self.counts(answered_at) {
            self.shard(nth).answered += 1;
        }
        if let Some(CallError::Wrong(what)) = failure {
            *self.shard(nth).wrong.entry(what).or_default() += 1;
        }
        self.in_shard(nth, due, |shard| match failure {
            None => shard.latencies.record(latency),
            Some(CallError::Wrong(_)) => {}
            Some(CallError::Failed(status)) => {
                let reason = reason_of(status).map(|reason| reason.wire_name().to_owned());
                shard.failed(code_name(status.code()), reason.unwrap_or_default());
            }
        });
    }

    /// The benchmark itself could not make a call.
    pub(super) fn record_unsent(&self, nth: u64, due: Instant) {
        self.in_shard(nth, due, |shard| shard.failed("NOT_SENT".to_owned(), "too many calls are in flight".to_owned()));
    }

    fn in_shard(&self, nth: u64, due: Instant, note: impl FnOnce(&mut Shard)) {
        if self.counts(due) {
            note(&mut self.shard(nth));
        }
    }

    fn shard(&self, nth: u64) -> MutexGuard<'_, Shard> {
        let shard = usize::try_from(nth % SHARDS).unwrap_or_default();
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn measured(&self) -> Measured {
        let (mut latencies, mut sent_late, mut answered) = (Latencies::default(), Latencies::default(), 0);
        let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
        let mut wrong: BTreeMap<&'static str, u64> = BTreeMap::new();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            latencies.add(&shard.latencies);
            sent_late.add(&shard.sent_late);
            answered += shard.answered;
            for (kind, count) in &shard.failures {
                *counts.entry(kind.clone()).or_default() += count;
            }
            for (what, count) in &shard.wrong {
                *wrong.entry(what).or_default() += count;
            }
        }
        let mut failures: Vec<Failures> =
            counts.into_iter().map(|((code, reason), count)| Failures { code, reason, count }).collect();
        failures.sort_by_key(|failure| std::cmp::Reverse(failure.count));
        Measured { latencies, answered, sent_late, failures, wrong, window: self.to - self.from }
    }
}

impl Shard {
    fn failed(&mut self, code: String, reason: String) {
        *self.failures.entry((code, reason)).or_default() += 1;
    }
}

impl Measured {
    /// What the answers alone show to be wrong; that there were none is.
    pub(crate) fn violations(&self) -> Vec<String> {
        let wrong = self.wrong.iter().map(|(what, count)| format!("{count} wrong answers: {what}"));
        let nothing = (self.latencies.count() == 0).then(|| "nothing was answered".to_owned());
        wrong.chain(nothing).collect()
    }

    /// Answers that came within the window, a second.
    pub(crate) fn per_second(&self) -> f64 {
        as_f64(self.answered) / self.window.as_secs_f64()
    }
}

/// `NotFound` as the wire's documentation has it: `NOT_FOUND`.
fn code_name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_names_of_the_documentation() {
        assert_eq!(code_name(Code::FailedPrecondition), "FAILED_PRECONDITION");
        assert_eq!(code_name(Code::Ok), "OK");
    }

    #[test]
    fn throughput_is_what_was_answered_in_time_and_latency_is_of_all_that_were_due() {
        let start = Instant::now();
        let recorder = Recorder::new(start, start + Duration::from_secs(1));
        for seconds in 0..10 {
            recorder.record(0, start, Duration::from_secs(seconds), None);
        }
        let measured = recorder.measured();
        assert_eq!(measured.latencies.count(), 10);
        assert!((measured.per_second() - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn only_calls_that_were_due_within_the_window_count() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let recorder = Recorder::new(at(10), at(20));
        for due in [at(0), at(9), at(10), at(19), at(20)] {
            recorder.record(0, due, Duration::from_millis(1), None);
        }
        assert_eq!(recorder.measured().latencies.count(), 2);
    }
}
