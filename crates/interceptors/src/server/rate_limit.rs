//! How often a caller may call: a token bucket for each caller and class of RPC.
//!
//! The buckets are ours, over a bounded cache: a keyed limiter from elsewhere keeps every key that it has ever seen, or wants its own clock.

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use http::{Request, Response};
use quick_cache::sync::Cache;
use souk_proto_common::{Access, Failure, Method, Reason};
use souk_runtime::server::network;
use souk_runtime::{Clock, Kernel};
use tonic::Code;
use tonic::body::Body;

use super::{RateLimit, StackConfig, context};
use crate::caller::CallerKind;
use crate::context::CallContext;
use crate::middleware::{Middleware, Next};

/// Buckets that are kept; the least used is forgotten, which is to say full again.
const BUCKETS_MAX: usize = 100_000;

#[derive(Clone)]
pub(super) struct RateLimits {
    clock: Clock,
    classes: Arc<[Class; 3]>,
}

struct Class {
    name: &'static str,
    limit: RateLimit,
    buckets: Cache<String, Arc<Mutex<Bucket>>>,
}

/// Calls that are left, as of a time.
struct Bucket {
    left: f64,
    at: DateTime<Utc>,
}

impl RateLimits {
    pub(super) fn new(kernel: &Kernel, config: &StackConfig) -> Self {
        let class = |name, limit| Class { name, limit, buckets: Cache::new(BUCKETS_MAX) };
        let classes = [class("reads", config.reads), class("writes", config.writes), class("logins", config.logins)];
        Self { clock: kernel.clock.clone(), classes: Arc::new(classes) }
    }

    fn class(&self, method: &Method) -> &Class {
        let [reads, writes, logins] = &*self.classes;
        match (method.read_only, method.access) {
            (true, _) => reads,
            (false, Access::Public) => logins,
            (false, _) => writes,
        }
    }
}

impl Class {
    fn take(&self, who: &str, now: DateTime<Utc>) -> Result<(), Duration> {
        if self.limit.per_second == 0 {
            return Ok(());
        }
        let full = || Arc::new(Mutex::new(Bucket { left: f64::from(self.limit.burst.max(1)), at: now }));
        let bucket = self.buckets.get(who).unwrap_or_else(|| {
            let bucket = full();
            self.buckets.insert(who.to_owned(), bucket.clone());
            bucket
        });
        bucket.lock().unwrap_or_else(PoisonError::into_inner).take(self.limit, now)
    }
}

impl Bucket {
    /// Takes one call, or says when there will be one.
    fn take(&mut self, limit: RateLimit, now: DateTime<Utc>) -> Result<(), Duration> {
        let rate = f64::from(limit.per_second);
        let passed = (now - self.at).to_std().unwrap_or_default().as_secs_f64();
        self.left = (self.left + passed * rate).min(f64::from(limit.burst.max(1)));
        self.at = now;
        if self.left >= 1.0 {
            self.left -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.left) / rate))
    }
}

/// The subject of the token, or the network of who has none.
fn who(context: &CallContext) -> String {
    let mut who = context.caller.subject().to_owned();
    if context.caller.is_anonymous() {
        match context.peer {
            Some(peer) => drop(write!(who, "ip:{}", network(peer))), // a string takes all
            None => who.push_str("ip:unknown"),
        }
    }
    who
}

impl<S: Next<Error = Failure>> Middleware<S> for RateLimits {
    async fn call(&self, request: &mut Request<Body>, next: &S) -> Result<Response<Body>, Failure> {
        let context = context(request);
        // A service calls for many: those were counted where they came in.
        let counted = context.caller.kind() != CallerKind::Service;
        if let Some(method) = context.target.method().filter(|_| counted) {
            let class = self.class(method);
            let who = who(context);
            if let Err(delay) = class.take(&who, self.clock.now()) {
                let description = format!(
                    "{} per second, {} at once, of class {}",
                    class.limit.per_second, class.limit.burst, class.name
                );
                return Err(Failure::new(Code::ResourceExhausted, Reason::RateLimited, "too many calls")
                    .quota_violation(who, description)
                    .retry_after(delay));
            }
        }
        next.call(request).await
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_then_its_rate() {
        let class = Class { name: "reads", limit: RateLimit { per_second: 10, burst: 3 }, buckets: Cache::new(10) };
        let now = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        assert!((0..3).all(|_| class.take("alice", now).is_ok()));
        assert_eq!(class.take("alice", now), Err(Duration::from_millis(100)));
        assert_eq!(class.take("bob", now), Ok(()));
        assert_eq!(class.take("alice", now + TimeDelta::milliseconds(100)), Ok(()));
        assert!(class.take("alice", now + TimeDelta::milliseconds(100)).is_err());
        // However long nobody called, the burst is all there is.
        let later = now + TimeDelta::hours(1);
        assert_eq!((0..10).filter(|_| class.take("alice", later).is_ok()).count(), 3);
    }

    #[test]
    fn a_network_of_ipv6_is_one_caller() {
        let same = |a: &str, b: &str| network(a.parse().unwrap()) == network(b.parse().unwrap());
        assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }

    #[test]
    fn no_rate_is_no_limit() {
        let class = Class { name: "reads", limit: RateLimit { per_second: 0, burst: 0 }, buckets: Cache::new(10) };
        let now = DateTime::from_timestamp(0, 0).unwrap();
        assert!((0..1_000).all(|_| class.take("alice", now).is_ok()));
    }
}
