//! Who watches which stock record, in this process: the latest level of each watched record, and a wake-up for whoever has not seen it.
//!
//! Never more than one level a record is kept, so a slow watcher costs nothing and misses only what is outdated.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::domain::{StockKey, StockLevel};

/// The latest level of a record, once one was told.
pub type Latest = Option<Arc<StockLevel>>;

/// See the module. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Watchers(Arc<Mutex<HashMap<StockKey, watch::Sender<Latest>>>>);

impl Watchers {
    /// Everything that is told of `keys` from now on.
    pub fn subscribe<'k>(&self, keys: impl Iterator<Item = &'k StockKey>) -> Vec<watch::Receiver<Latest>> {
        let mut watched = self.lock();
        keys.map(|key| {
            let sender = watched.entry(key.clone()).or_insert_with(|| watch::Sender::new(None));
            sender.subscribe()
        })
        .collect()
    }

    /// Tells levels that are committed. One that is older than what was told of its record is left out.
    pub fn tell(&self, levels: impl IntoIterator<Item = StockLevel>) {
        let watched = self.lock();
        if watched.is_empty() {
            return;
        }
        for level in levels {
            if let Some(sender) = watched.get(&level.key) {
                let newer =
                    |latest: &Latest| latest.as_ref().is_none_or(|told| told.stock.version < level.stock.version);
                sender.send_if_modified(|latest| {
                    let newer = newer(latest);
                    if newer {
                        *latest = Some(Arc::new(level.clone()));
                    }
                    newer
                });
            }
        }
    }

    /// Whether somebody watches the record and was not told of this version.
    pub fn misses(&self, key: &StockKey, version: i64) -> bool {
        let latest = self.lock().get(key).map(|sender| sender.borrow().as_ref().map_or(0, |told| told.stock.version));
        latest.is_some_and(|told| told < version)
    }

    /// The records that somebody watches; those that nobody does any more are forgotten.
    pub fn watched(&self) -> Vec<StockKey> {
        let mut watched = self.lock();
        watched.retain(|_, sender| sender.receiver_count() > 0);
        watched.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StockKey, watch::Sender<Latest>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Location, Sku, Stock};

    fn level(version: i64) -> StockLevel {
        let key = StockKey::new(Sku::parse("TEA").unwrap(), Location::main());
        StockLevel { key, stock: Stock { version, ..Stock::default() } }
    }

    #[test]
    fn a_watcher_is_told_the_latest_level_and_never_an_older_one() {
        let watchers = Watchers::default();
        let key = level(0).key;
        watchers.tell([level(1)]);
        let mut told = watchers.subscribe([&key].into_iter());
        assert!(!told[0].has_changed().unwrap());
        watchers.tell([level(3)]);
        watchers.tell([level(2)]);
        assert_eq!(told[0].borrow_and_update().as_ref().unwrap().stock.version, 3);
        assert!(watchers.misses(&key, 4) && !watchers.misses(&key, 3));
    }

    #[test]
    fn what_nobody_watches_is_forgotten() {
        let watchers = Watchers::default();
        let told = watchers.subscribe([&level(0).key].into_iter());
        assert_eq!(watchers.watched().len(), 1);
        drop(told);
        assert_eq!(watchers.watched(), []);
    }
}
