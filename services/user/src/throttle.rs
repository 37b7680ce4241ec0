//! Failed logins slow down: after some failures from one place for one account, each more costs a longer wait. Nothing is locked for good,
//! and nobody can lock another out from elsewhere.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use quick_cache::unsync::Cache;

use crate::config::{ThrottleConfig, millis};

/// Remembers failures, of this process only. Cheap to clone.
#[derive(Clone)]
pub struct Throttle(Arc<Inner>);

struct Inner {
    free_failures: u32,
    wait_max: TimeDelta,
    forget: TimeDelta,
    failures: Mutex<Cache<Pair, Failures>>,
}

/// Where from, and for which account.
type Pair = (Option<IpAddr>, String);

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    last: DateTime<Utc>,
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Throttle")
    }
}

impl Throttle {
    /// Nothing has failed yet.
    pub fn new(config: &ThrottleConfig) -> Self {
        Self(Arc::new(Inner {
            free_failures: config.free_failures,
            wait_max: millis(config.wait_max_ms),
            forget: millis(config.forget_ms),
            failures: Mutex::new(Cache::new(config.pairs_max)),
        }))
    }

    /// Whether a try may be made now. One that may counts as failed until it [succeeds](Self::succeeded), so that many at once do not all
    /// pass.
    pub fn admits(&self, peer: Option<IpAddr>, account: &str, now: DateTime<Utc>) -> bool {
        let pair = pair(peer, account);
        let mut failures = self.0.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let known = failures.get(&pair).copied().filter(|known| now < known.last + self.0.forget);
        let count = known.map_or(0, |known| known.count);
        if known.is_some_and(|known| now < known.last + self.0.wait_after(count)) {
            return false;
        }
        failures.insert(pair, Failures { count: count.saturating_add(1), last: now });
        true
    }

    /// The try was right: all is forgotten.
    pub fn succeeded(&self, peer: Option<IpAddr>, account: &str) {
        self.0.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(&pair(peer, account));
    }
}

impl Inner {
    fn wait_after(&self, failures: u32) -> TimeDelta {
        match failures.checked_sub(self.free_failures) {
            None => TimeDelta::zero(),
            Some(doublings) => TimeDelta::seconds(1 << doublings.min(30)).min(self.wait_max),
        }
    }
}

/// Whoever has one address of IPv6 has a /64.
fn pair(peer: Option<IpAddr>, account: &str) -> Pair {
    let place = peer.map(|peer| match peer.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    });
    (place, account.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn throttle() -> Throttle {
        Throttle::new(&ThrottleConfig { free_failures: 2, wait_max_ms: 4_000, forget_ms: 60_000, pairs_max: 1_000 })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_failure_past_the_free_ones_costs_a_longer_wait_up_to_a_bound() {
        let (throttle, here) = (throttle(), Some(ip("192.0.2.1")));
        let admitted: Vec<i64> = (0..20).filter(|second| throttle.admits(here, "ada", at(*second))).collect();
        assert_eq!(admitted, [0, 1, 2, 4, 8, 12, 16]);
    }

    #[test]
    fn tries_at_once_do_not_all_pass() {
        let throttle = throttle();
        let admitted = (0..100).filter(|_| throttle.admits(None, "ada", at(0))).count();
        assert_eq!(admitted, 2);
    }

    #[test]
    fn another_account_and_another_place_are_not_concerned() {
        let throttle = throttle();
        while throttle.admits(Some(ip("2001:db8::1")), "ada", at(0)) {}
        assert!(!throttle.admits(Some(ip("2001:db8::2")), "ada", at(0)), "the same /64");
        assert!(throttle.admits(Some(ip("2001:db8:1::1")), "ada", at(0)));
        assert!(throttle.admits(Some(ip("2001:db8::1")), "bob", at(0)));
    }

    #[test]
    fn a_success_and_time_make_it_forget() {
        let throttle = throttle();
        while throttle.admits(None, "ada", at(0)) {}
        throttle.succeeded(None, "ada");
        assert!(throttle.admits(None, "ada", at(0)));
        while throttle.admits(None, "ada", at(0)) {}
        assert!((60..70).all(|second| second > 61 || throttle.admits(None, "ada", at(second))));
    }
}
