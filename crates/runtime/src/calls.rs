//! The calls that are being served, for whoever wants to know what a process is at.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio::time::Instant;
use uuid::Uuid;

/// Each part has a lock of its own, so that calls on many cores do not wait for one another.
const PARTS: usize = 16;

/// The calls in flight. It is empty unless it was told to [`keep`](Self::keep) them: then a call costs two short locks, else the reading of
/// a flag. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Calls(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    kept: AtomicBool,
    next: AtomicU64,
    parts: [Mutex<HashMap<u64, (Call, Instant)>>; PARTS],
}

/// A call.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// Its path, as `/souk.order.v1.OrderService/PlaceOrder`.
    pub rpc: &'static str,
    /// What the logs have it under.
    pub call_id: Uuid,
    /// The trace that it belongs to.
    pub trace_id: String,
    /// Where it comes from.
    pub peer: Option<IpAddr>,
}

/// A call that is being served.
#[derive(Clone, Debug, Serialize)]
pub struct InFlight {
    #[serde(flatten)]
    call: Call,
    /// Since it came.
    age_ms: u64,
}

/// A call that is in flight until this is dropped.
#[derive(Debug)]
pub struct Entered {
    calls: Calls,
    number: u64,
}

impl Calls {
    /// From now on, what comes is kept.
    pub fn keep(&self) {
        self.0.kept.store(true, Ordering::Relaxed);
    }

    /// Keeps the call until the answer is dropped. `call` is not asked if calls are not kept.
    pub fn enter(&self, call: impl FnOnce() -> Call) -> Option<Entered> {
        if !self.0.kept.load(Ordering::Relaxed) {
            return None;
        }
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.part(number).lock().unwrap_or_else(PoisonError::into_inner).insert(number, (call(), Instant::now()));
        Some(Entered { calls: self.clone(), number })
    }

    /// What is in flight, oldest first.
    pub fn in_flight(&self) -> Vec<InFlight> {
        let mut found = Vec::new();
        for part in &self.0.parts {
            let part = part.lock().unwrap_or_else(PoisonError::into_inner);
            found.extend(part.values().map(|(call, came)| InFlight { call: call.clone(), age_ms: age_ms(*came) }));
        }
        found.sort_by_key(|call| std::cmp::Reverse(call.age_ms));
        found
    }

    fn part(&self, number: u64) -> &Mutex<HashMap<u64, (Call, Instant)>> {
        let index = usize::try_from(number % PARTS as u64).expect("it is below 16");
        &self.0.parts[index]
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.calls.part(self.number).lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

/// Milliseconds since then.
pub(crate) fn age_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn call(rpc: &'static str) -> Call {
        Call { rpc, call_id: Uuid::nil(), trace_id: "0af7".to_owned(), peer: None }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_are_kept_while_they_last_and_only_when_asked_for() {
        let calls = Calls::default();
        assert!(calls.enter(|| unreachable!("nobody wants to know")).is_none());
        calls.keep();
        let first = calls.enter(|| call("/first"));
        tokio::time::advance(Duration::from_secs(2)).await;
        let second = calls.enter(|| call("/second"));
        tokio::time::advance(Duration::from_secs(1)).await;
        let seen: Vec<_> = calls.in_flight().iter().map(|seen| (seen.call.rpc, seen.age_ms)).collect();
        assert_eq!(seen, [("/first", 3_000), ("/second", 1_000)]);
        drop(first);
        assert_eq!(calls.in_flight().len(), 1);
        drop(second);
        assert_eq!(calls.in_flight().len(), 0);
    }
}
