//! Calls of this process that are running, by their key: a repeat waits for the first instead of running beside it.
//!
//! Only a courtesy: two replicas know nothing of each other's calls, and that one key is one order is the business of the tables.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct InFlight<K>(Arc<Mutex<HashMap<K, watch::Sender<()>>>>);

impl<K> Default for InFlight<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// The one call of its key that runs. Dropped, it lets the next one run.
#[derive(Debug)]
pub struct Turn<K: Eq + Hash> {
    in_flight: InFlight<K>,
    key: K,
    has_waited: bool,
}

impl<K: Eq + Hash> Turn<K> {
    /// Another call of the key was running when this one came.
    pub fn has_waited(&self) -> bool {
        self.has_waited
    }
}

impl<K: Eq + Hash + Clone> InFlight<K> {
    /// Waits for its turn; `None`: another call of the key is still running by then.
    pub async fn enter(&self, key: K, until: Instant) -> Option<Turn<K>> {
        let mut has_waited = false;
        loop {
            let mut ended = {
                let mut running = self.lock();
                let Some(first) = running.get(&key) else {
                    running.insert(key.clone(), watch::Sender::new(()));
                    return Some(Turn { in_flight: self.clone(), key, has_waited });
                };
                first.subscribe()
            };
            has_waited = true;
            // Nothing is ever sent: the channel closes when the turn is over.
            if tokio::time::timeout_at(until, ended.changed()).await.is_err() {
                return None;
            }
        }
    }
}

impl<K> InFlight<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, watch::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Drop for Turn<K> {
    fn drop(&mut self) {
        self.in_flight.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;

    use super::*;

    fn far() -> Instant {
        Instant::now() + Duration::from_mins(1)
    }

    #[tokio::test]
    async fn a_repeat_runs_when_the_first_has_ended() {
        let in_flight = InFlight::default();
        let first = in_flight.enter(1, far()).await.unwrap();
        let mut second = Box::pin(in_flight.enter(1, far()));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(in_flight.enter(2, far()).now_or_never().flatten().is_some(), "another key does not wait");
        assert!(!first.has_waited());
        drop(first);
        let second = second.await.unwrap();
        assert!(second.has_waited());
        drop(second);
        assert!(in_flight.lock().is_empty(), "nothing is kept of what has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_repeat_does_not_wait_for_ever() {
        let in_flight = InFlight::default();
        let _first = in_flight.enter(1, far()).await.unwrap();
        let until = Instant::now() + Duration::from_secs(2);
        assert!(in_flight.enter(1, until).await.is_none());
        assert_eq!(Instant::now(), until);
    }

    #[tokio::test]
    async fn many_repeats_run_one_after_the_other() {
        let in_flight = InFlight::default();
        let running = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let calls = (0..50).map(|_| {
            let (in_flight, running) = (in_flight.clone(), running.clone());
            tokio::spawn(async move {
                let turn = in_flight.enter(7, far()).await.unwrap();
                assert_eq!(running.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                tokio::task::yield_now().await;
                running.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                drop(turn);
            })
        });
        for call in futures::future::join_all(calls).await {
            call.unwrap();
        }
    }
}
