//! What the stack may take.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use souk_runtime::config::check_bounds;

/// The bounds of a service's calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StackConfig {
    /// Calls in flight, streams apart; more are refused with UNAVAILABLE, LOAD_SHED.
    pub calls_max: usize,
    /// Streams that are open; more are refused alike.
    pub streams_max: usize,
    /// Watches of health and streams of reflection that are open, for each peer; more are refused alike.
    pub observers_per_peer_max: usize,
    /// Requests of one message that have begun and are not whole, for each peer; more are refused alike.
    pub arriving_per_peer_max: usize,
    /// Such a request must be whole within so many milliseconds.
    pub arrival_timeout_ms: u64,
    /// The deadline of a call that brings none, in milliseconds. Streams have none.
    pub default_deadline_ms: u64,
    /// The longest deadline that a call is granted, in milliseconds. Streams are granted any.
    pub deadline_max_ms: u64,
    /// Calls that change nothing, for each caller.
    pub reads: RateLimit,
    /// Calls that change something, for each caller.
    pub writes: RateLimit,
    /// Calls that change something and need no token (login, registration), for each address.
    pub logins: RateLimit,
}

impl StackConfig {
    /// Notes what cannot be; `at` is where the settings stand.
    pub fn validate(&self, at: &str, problems: &mut Vec<String>) {
        let positive = [
            ("calls_max", self.calls_max as u64),
            ("streams_max", self.streams_max as u64),
            ("observers_per_peer_max", self.observers_per_peer_max as u64),
            ("arriving_per_peer_max", self.arriving_per_peer_max as u64),
            ("arrival_timeout_ms", self.arrival_timeout_ms),
            ("default_deadline_ms", self.default_deadline_ms),
            ("deadline_max_ms", self.deadline_max_ms),
        ];
        check_bounds(problems, at, 1..=i32::MAX as u64, &positive);
        for (name, limit) in [("reads", self.reads), ("writes", self.writes), ("logins", self.logins)] {
            let calls = [("per_second", limit.per_second.into()), ("burst", limit.burst.into())];
            check_bounds(problems, &format!("{at}.{name}"), 0..=RATE_MAX, &calls);
        }
    }
}

/// No caller makes more calls: whoever means no limit says 0.
const RATE_MAX: u64 = 1_000_000;

impl Default for StackConfig {
    fn default() -> Self {
        Self {
            calls_max: 2_048,
            streams_max: 16_384,
            observers_per_peer_max: 256,
            arriving_per_peer_max: 256,
            arrival_timeout_ms: 5_000,
            default_deadline_ms: 10_000,
            deadline_max_ms: 60_000,
            reads: RateLimit { per_second: 2_000, burst: 4_000 },
            writes: RateLimit { per_second: 1_000, burst: 2_000 },
            logins: RateLimit { per_second: 20, burst: 100 },
        }
    }
}

/// A token bucket: `burst` calls at once, `per_second` in the long run. 0 for `per_second`: no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Calls in a second, in the long run; 0: no limit.
    pub per_second: u32,
    /// Calls at once.
    pub burst: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let (too_many, too_long) = (i32::MAX as usize + 1, i32::MAX as u64 + 1);
        let too_often = RateLimit { per_second: 1_000_001, burst: 1_000_001 };
        let usual = StackConfig::default();
        let changed: [(StackConfig, &[&str]); 10] = [
            (usual.clone(), &[]),
            (StackConfig { logins: RateLimit { per_second: 0, burst: 0 }, ..usual.clone() }, &[]),
            (StackConfig { calls_max: 0, streams_max: too_many, ..usual.clone() }, &["calls_max", "streams_max"]),
            (StackConfig { observers_per_peer_max: 0, ..usual.clone() }, &["observers_per_peer_max"]),
            (
                StackConfig { arriving_per_peer_max: 0, arrival_timeout_ms: 0, ..usual.clone() },
                &["arriving_per_peer_max", "arrival_timeout_ms"],
            ),
            (StackConfig { default_deadline_ms: 0, ..usual.clone() }, &["default_deadline_ms"]),
            (StackConfig { deadline_max_ms: too_long, ..usual.clone() }, &["deadline_max_ms"]),
            (StackConfig { reads: too_often, ..usual.clone() }, &["reads.per_second", "reads.burst"]),
            (StackConfig { writes: too_often, ..usual.clone() }, &["writes.per_second", "writes.burst"]),
            (StackConfig { logins: too_often, ..usual.clone() }, &["logins.per_second", "logins.burst"]),
        ];
        for (config, named) in changed {
            let mut problems = Vec::new();
            config.validate("stack", &mut problems);
            assert_eq!(problems.len(), named.len(), "{problems:?}");
            for (name, problem) in named.iter().zip(&problems) {
                assert!(problem.starts_with(&format!("stack.{name} must be ")), "{problem}");
            }
        }
    }
}
