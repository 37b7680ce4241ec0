//! Failed logins slow down: after some failures from one place for one account, each more costs a longer wait. Nothing is locked for good,
//! and nobody can lock another out from elsewhere.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

#[derive(Clone, Copy, Debug, PartialEq)]
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

    /// A try, if one may be made now. It counts as failed while it is made, so that many at once do not all pass.
    pub fn admit(&self, peer: Option<IpAddr>, account: &str, now: DateTime<Utc>) -> Option<Attempt> {
        let pair = pair(peer, account);
        let mut failures = self.0.lock();
        let known = failures.get(&pair).copied().filter(|known| now < known.last + self.0.forget);
        let count = known.map_or(0, |known| known.count);
        if known.is_some_and(|known| now < known.last + self.0.wait_after(count)) {
            return None;
        }
        let booked = Failures { count: count.saturating_add(1), last: now };
        failures.insert(pair.clone(), booked);
        Some(Attempt { throttle: self.clone(), pair, before: known, booked, decided: false })
    }
}

/// A try that is being made. Dropped before it is decided, it never was: a password that nobody looked at is not a wrong one.
#[must_use]
#[derive(Debug)]
pub struct Attempt {
    throttle: Throttle,
    pair: Pair,
    before: Option<Failures>,
    booked: Failures,
    decided: bool,
}

impl Attempt {
    /// It was wrong: it counts.
    pub fn failed(mut self) {
        self.decided = true;
    }

    /// It was right: all is forgotten.
    pub fn succeeded(mut self) {
        self.decided = true;
        self.throttle.0.lock().remove(&self.pair);
    }

    fn undo(&self) {
        let mut failures = self.throttle.0.lock();
        let Some(known) = failures.get(&self.pair).copied() else { return };
        // Another may have been made meanwhile: then the time of that one stays.
        let others = Failures { count: known.count.saturating_sub(1), ..known };
        let left = if known == self.booked { self.before } else { Some(others) };
        match left.filter(|left| left.count > 0) {
            Some(left) => failures.insert(self.pair.clone(), left),
            None => drop(failures.remove(&self.pair)),
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.decided {
            self.undo();
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Cache<Pair, Failures>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

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

    /// A wrong try; whether it could be made.
    fn fails(throttle: &Throttle, peer: Option<IpAddr>, account: &str, now: DateTime<Utc>) -> bool {
        throttle.admit(peer, account, now).map(Attempt::failed).is_some()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_failure_past_the_free_ones_costs_a_longer_wait_up_to_a_bound() {
        let (throttle, here) = (throttle(), Some(ip("192.0.2.1")));
        let admitted: Vec<i64> = (0..20).filter(|second| fails(&throttle, here, "ada", at(*second))).collect();
        assert_eq!(admitted, [0, 1, 2, 4, 8, 12, 16]);
    }

    #[test]
    fn tries_at_once_do_not_all_pass() {
        let throttle = throttle();
        let admitted: Vec<Attempt> = (0..100).filter_map(|_| throttle.admit(None, "ada", at(0))).collect();
        assert_eq!(admitted.len(), 2);
    }

    #[test]
    fn what_was_not_decided_never_was() {
        let throttle = throttle();
        for second in 0..10 {
            let abandoned = (throttle.admit(None, "ada", at(second)), throttle.admit(None, "ada", at(second)));
            assert!(abandoned.0.is_some() && abandoned.1.is_some());
        }
        assert!(throttle.0.lock().is_empty());
        assert!(fails(&throttle, None, "ada", at(10)) && fails(&throttle, None, "ada", at(10)));
        drop(throttle.admit(None, "ada", at(11)).unwrap());
        assert!(fails(&throttle, None, "ada", at(11)), "the wait begins at the last failure");
        assert!(!fails(&throttle, None, "ada", at(12)));
    }

    #[test]
    fn another_account_and_another_place_are_not_concerned() {
        let throttle = throttle();
        while fails(&throttle, Some(ip("2001:db8::1")), "ada", at(0)) {}
        assert!(!fails(&throttle, Some(ip("2001:db8::2")), "ada", at(0)), "the same /64");
        assert!(fails(&throttle, Some(ip("2001:db8:1::1")), "ada", at(0)));
        assert!(fails(&throttle, Some(ip("2001:db8::1")), "bob", at(0)));
    }

    #[test]
    fn a_success_and_time_make_it_forget() {
        let throttle = throttle();
        let late = throttle.admit(None, "ada", at(0)).unwrap();
        while fails(&throttle, None, "ada", at(0)) {}
        late.succeeded();
        assert!(fails(&throttle, None, "ada", at(0)));
        while fails(&throttle, None, "ada", at(0)) {}
        assert!((60..70).all(|second| second > 61 || fails(&throttle, None, "ada", at(second))));
    }
}
