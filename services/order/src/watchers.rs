//! Who watches which order, in this process: the latest version that is known of, and a wake-up for whoever has not sent it yet.
//!
//! Only numbers are kept; a watcher reads the versions themselves from the tables, so a slow one costs nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::domain::OrderId;

/// See the module. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Watchers(Arc<Mutex<HashMap<OrderId, watch::Sender<i64>>>>);

/// Hears of new versions of one order.
#[derive(Debug)]
pub struct Watching {
    latest: watch::Receiver<i64>,
}

impl Watchers {
    /// Hears of every version of the order that is told of from now on.
    pub fn watch(&self, order_id: OrderId) -> Watching {
        let latest = self.lock().entry(order_id).or_insert_with(|| watch::Sender::new(0)).subscribe();
        Watching { latest }
    }

    /// A version is committed.
    pub fn tell(&self, order_id: OrderId, version: i64) {
        if let Some(latest) = self.lock().get(&order_id) {
            latest.send_if_modified(|latest| {
                let newer = version > *latest;
                *latest = version.max(*latest);
                newer
            });
        }
    }

    /// The orders that somebody watches; those that nobody does any more are forgotten.
    pub fn watched(&self) -> Vec<OrderId> {
        let mut watched = self.lock();
        watched.retain(|_, latest| latest.receiver_count() > 0);
        watched.keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<OrderId, watch::Sender<i64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watching {
    /// Waits until there is a version after this one.
    pub async fn after(&mut self, version: i64) {
        // The sender stays in the map for as long as `self` listens, so the channel cannot close.
        drop(self.latest.wait_for(|latest| *latest > version).await);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_watcher_hears_of_what_it_does_not_have_and_of_nothing_older() {
        let watchers = Watchers::default();
        let id = OrderId(Uuid::from_u128(1));
        let mut watching = watchers.watch(id);
        assert!(watching.after(1).now_or_never().is_none());
        watchers.tell(OrderId(Uuid::from_u128(2)), 9);
        watchers.tell(id, 1);
        assert!(watching.after(1).now_or_never().is_none());
        watchers.tell(id, 3);
        watchers.tell(id, 2);
        assert!(watching.after(2).now_or_never().is_some(), "told late, version 2 hides nothing");
        assert!(watching.after(3).now_or_never().is_none());
    }

    #[test]
    fn nothing_is_kept_of_an_order_that_nobody_watches() {
        let watchers = Watchers::default();
        let id = OrderId(Uuid::from_u128(1));
        let (first, second) = (watchers.watch(id), watchers.watch(id));
        drop(first);
        assert_eq!(watchers.watched(), [id]);
        drop(second);
        assert!(watchers.watched().is_empty());
        assert!(watchers.lock().is_empty(), "and the map does not grow");
    }
}
