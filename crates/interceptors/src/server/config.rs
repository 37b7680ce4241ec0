//! What the stack may take.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The bounds of a service's calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StackConfig {
    /// Calls in flight, streams apart; more are refused with UNAVAILABLE, LOAD_SHED.
    pub calls_max: usize,
    /// Streams that are open; more are refused alike.
    pub streams_max: usize,
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
        for (name, value) in [
            ("calls_max", self.calls_max as u64),
            ("streams_max", self.streams_max as u64),
            ("default_deadline_ms", self.default_deadline_ms),
            ("deadline_max_ms", self.deadline_max_ms),
        ] {
            if !(1..=i32::MAX as u64).contains(&value) {
                problems.push(format!("{at}.{name} must be 1 to {}", i32::MAX));
            }
        }
    }
}

impl Default for StackConfig {
    fn default() -> Self {
        Self {
            calls_max: 2_048,
            streams_max: 16_384,
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
