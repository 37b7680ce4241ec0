//! Connections: lazily made, kept alive, balanced over the addresses of a service.

use std::time::Duration;

use anyhow::Context;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use souk_runtime::config::check_bounds;
use tonic::transport::{Channel, Endpoint};

/// How a service is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClientConfig {
    /// One or more addresses, as `http://10.0.0.1:50053`; calls are balanced over them.
    pub addresses: Vec<String>,
    /// A connection must be made within so many milliseconds.
    pub connect_timeout_ms: u64,
    /// The deadline of a call that is not made for another call, in milliseconds.
    pub timeout_ms: u64,
    /// Kept back of the caller's time, so that we can still answer, in milliseconds.
    pub margin_ms: u64,
    /// An idle connection is asked for a sign of life after so many milliseconds.
    pub keepalive_interval_ms: u64,
    /// And given up if none comes within so many.
    pub keepalive_timeout_ms: u64,
    /// Tries of a call in all, where repeating it is safe.
    pub tries_max: u32,
    /// The pause before the second try, in milliseconds; it doubles with each.
    pub backoff_ms: u64,
    /// Retries in percent of the calls, in the long run: when everything fails, retries must not multiply the load.
    pub retry_budget_percent: u32,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            connect_timeout_ms: 1_000,
            timeout_ms: 5_000,
            margin_ms: 10,
            keepalive_interval_ms: 10_000,
            keepalive_timeout_ms: 5_000,
            tries_max: 4,
            backoff_ms: 25,
            retry_budget_percent: 20,
        }
    }
}

impl ClientConfig {
    /// Notes what cannot be; `at` is where the settings stand.
    pub fn validate(&self, at: &str, problems: &mut Vec<String>) {
        if self.addresses.is_empty() {
            problems.push(format!("{at}.addresses must name at least one"));
        }
        for address in &self.addresses {
            if Endpoint::from_shared(address.clone()).is_err() {
                problems.push(format!("{at}.addresses: {address} is no address"));
            }
        }
        let positive = [
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("timeout_ms", self.timeout_ms),
            ("keepalive_interval_ms", self.keepalive_interval_ms),
            ("keepalive_timeout_ms", self.keepalive_timeout_ms),
            ("tries_max", self.tries_max.into()),
        ];
        check_bounds(problems, at, 1..=i32::MAX as u64, &positive);
        check_bounds(problems, at, 0..=BACKOFF_MS_MAX, &[("backoff_ms", self.backoff_ms)]);
        check_bounds(problems, at, 0..=100, &[("retry_budget_percent", self.retry_budget_percent.into())]);
        if self.margin_ms >= self.timeout_ms {
            problems.push(format!("{at}.margin_ms must be less than {at}.timeout_ms"));
        }
    }

    /// The defaults, for one address: `127.0.0.1:50053`.
    pub fn to(address: impl std::fmt::Display) -> Self {
        Self { addresses: vec![format!("http://{address}")], ..Self::default() }
    }
}

/// No caller waits longer for a second try.
const BACKOFF_MS_MAX: u64 = 60_000;

/// Must be called on a runtime: the balancing channel has a task of its own.
pub(super) fn channel(config: &ClientConfig) -> anyhow::Result<Channel> {
    let mut endpoints = config.addresses.iter().map(|address| endpoint(address, config));
    match (endpoints.len(), endpoints.next()) {
        (1, Some(endpoint)) => Ok(endpoint?.connect_lazy()),
        (_, Some(first)) => {
            let endpoints: anyhow::Result<Vec<Endpoint>> = std::iter::once(first).chain(endpoints).collect();
            Ok(Channel::balance_list(endpoints?.into_iter()))
        }
        (_, None) => anyhow::bail!("a client needs at least one address"),
    }
}

fn endpoint(address: &str, config: &ClientConfig) -> anyhow::Result<Endpoint> {
    let endpoint = Endpoint::from_shared(address.to_owned()).with_context(|| format!("{address} is no address"))?;
    Ok(endpoint
        .connect_timeout(Duration::from_millis(config.connect_timeout_ms))
        .http2_keep_alive_interval(Duration::from_millis(config.keepalive_interval_ms))
        .keep_alive_timeout(Duration::from_millis(config.keepalive_timeout_ms))
        // Without pings on an idle connection a partition is noticed by nobody.
        .keep_alive_while_idle(true)
        .tcp_nodelay(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let usual = ClientConfig::to("127.0.0.1:50053");
        let too_long = i32::MAX as u64 + 1;
        let bad = [
            ("addresses", ClientConfig { addresses: Vec::new(), ..usual.clone() }),
            ("connect_timeout_ms", ClientConfig { connect_timeout_ms: 0, ..usual.clone() }),
            ("timeout_ms", ClientConfig { timeout_ms: too_long, ..usual.clone() }),
            ("margin_ms", ClientConfig { margin_ms: usual.timeout_ms, ..usual.clone() }),
            ("keepalive_interval_ms", ClientConfig { keepalive_interval_ms: 0, ..usual.clone() }),
            ("keepalive_timeout_ms", ClientConfig { keepalive_timeout_ms: too_long, ..usual.clone() }),
            ("tries_max", ClientConfig { tries_max: 0, ..usual.clone() }),
            ("backoff_ms", ClientConfig { backoff_ms: 60_001, ..usual.clone() }),
            ("retry_budget_percent", ClientConfig { retry_budget_percent: 101, ..usual.clone() }),
        ];
        for (name, config) in bad {
            let mut problems = Vec::new();
            config.validate("user", &mut problems);
            assert_eq!(problems.len(), 1, "{name}: {problems:?}");
            assert!(problems[0].starts_with(&format!("user.{name} must ")), "{problems:?}");
        }
        let mut problems = Vec::new();
        ClientConfig { backoff_ms: 0, retry_budget_percent: 0, ..usual }.validate("user", &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
    }
}
