//! Answers to what is asked often and changes seldom, remembered for a short while.
//!
//! An answer is forgotten when somebody says that it has changed, and at the latest when its time is up. One call asks for a key at a time;
//! the others wait for its answer. An answer that is forgotten while it is on its way is not remembered when it comes: it may be what was
//! true before.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use quick_cache::sync::{Cache, DefaultLifecycle, PlaceholderGuard};
use quick_cache::{DefaultHashBuilder, UnitWeighter};

use crate::clock::Clock;

/// See the module. Cheap to clone.
pub struct Remembered<K, V> {
    clock: Clock,
    ttl: TimeDelta,
    known: Arc<Cache<K, Known<V>>>,
}

#[derive(Clone)]
struct Known<V> {
    /// `None`: there is no such thing. Told to those who wait for the answer, and to nobody after them.
    value: Option<V>,
    until: DateTime<Utc>,
}

/// Where an answer comes that one call asks for and others may wait for.
type Place<'r, K, V> =
    PlaceholderGuard<'r, K, Known<V>, UnitWeighter, DefaultHashBuilder, DefaultLifecycle<K, Known<V>>>;

impl<K: Clone + Eq + Hash + Ord, V: Clone> Remembered<K, V> {
    /// Remembers up to about `values_max` values, each for `ttl` from when it was asked for.
    pub fn new(clock: Clock, values_max: usize, ttl: TimeDelta) -> Self {
        Self { clock, ttl, known: Arc::new(Cache::new(values_max)) }
    }

    /// What is remembered of `key`, or what `ask` says; `None`: there is no such thing.
    pub async fn get<E, F>(&self, key: &K, ask: impl FnOnce() -> F) -> Result<Option<V>, E>
    where
        F: Future<Output = Result<Option<V>, E>>,
    {
        let now = self.clock.now();
        match self.known_or_place(key, now).await {
            Ok(value) => Ok(value),
            Err(place) => {
                let value = ask().await?;
                self.fill(key, place, value.clone(), now);
                Ok(value)
            }
        }
    }

    /// Those of `keys` that there are; what is not remembered is asked for by `ask`, all at once.
    pub async fn get_many<E, F>(&self, keys: &[K], ask: impl FnOnce(Vec<K>) -> F) -> Result<HashMap<K, V>, E>
    where
        F: Future<Output = Result<Vec<(K, V)>, E>>,
    {
        let now = self.clock.now();
        // In one order for everybody: whoever waits for another's answer never has a place that the other waits for.
        let mut sorted: Vec<&K> = keys.iter().collect();
        sorted.sort_unstable();
        sorted.dedup();
        let mut found = HashMap::with_capacity(sorted.len());
        let mut places = Vec::new();
        for key in sorted {
            match self.known_or_place(key, now).await {
                Ok(value) => found.extend(value.map(|value| (key.clone(), value))),
                Err(place) => places.push((key, place)),
            }
        }
        if places.is_empty() {
            return Ok(found);
        }
        let answer = ask(places.iter().map(|(key, _)| (*key).clone()).collect()).await?;
        found.extend(answer);
        for (key, place) in places {
            self.fill(key, place, found.get(key).cloned(), now);
        }
        Ok(found)
    }

    /// Asks anew the next time.
    pub fn forget(&self, key: &K) {
        self.known.remove(key);
    }

    /// Asks anew for everything.
    pub fn forget_all(&self) {
        self.known.clear();
    }

    async fn known_or_place(&self, key: &K, now: DateTime<Utc>) -> Result<Option<V>, Place<'_, K, V>> {
        if let Some(known) = self.known.get(key) {
            if known.until > now {
                return Ok(known.value);
            }
            self.known.remove_if(key, |known| known.until <= now);
        }
        self.known.get_value_or_guard_async(key).await.map(|known| known.value)
    }

    /// If the key was forgotten meanwhile, the place is gone, and only those who have waited for it are told.
    fn fill(&self, key: &K, place: Place<'_, K, V>, value: Option<V>, asked_at: DateTime<Utc>) {
        let lasts = value.is_some();
        let until = if lasts { asked_at + self.ttl } else { asked_at };
        let filled = place.insert(Known { value, until });
        if filled.is_ok() && !lasts {
            self.known.remove_if(key, |known| known.value.is_none());
        }
    }
}

impl<K, V> Clone for Remembered<K, V> {
    fn clone(&self) -> Self {
        Self { clock: self.clock.clone(), ttl: self.ttl, known: self.known.clone() }
    }
}

impl<K, V> fmt::Debug for Remembered<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remembered").field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures::FutureExt;
    use futures::future::join_all;
    use tokio::sync::oneshot;

    use super::*;

    type Prices = Remembered<&'static str, i64>;

    fn prices(values_max: usize) -> (Clock, Prices) {
        let clock = Clock::fake(DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        (clock.clone(), Remembered::new(clock, values_max, TimeDelta::seconds(5)))
    }

    /// What is said of TEA, and whether it was asked for.
    async fn tea(prices: &Prices, price: Option<i64>) -> (Option<i64>, bool) {
        let mut asked = false;
        let got = prices.get(&"TEA", async || {
            asked = true;
            Ok::<_, Infallible>(price)
        });
        (got.await.unwrap(), asked)
    }

    /// TEA, asked for and answered only when the test says so.
    async fn tea_later(prices: &Prices, answer: oneshot::Receiver<Option<i64>>) -> Option<i64> {
        prices.get(&"TEA", async || answer.await).await.unwrap()
    }

    #[tokio::test]
    async fn a_value_is_remembered_until_its_time_is_up_or_it_is_forgotten() {
        let (clock, prices) = prices(100);
        assert_eq!(tea(&prices, Some(1)).await, (Some(1), true));
        assert_eq!(tea(&prices, Some(2)).await, (Some(1), false));
        clock.advance(Duration::from_secs(5));
        assert_eq!(tea(&prices, Some(2)).await, (Some(2), true));
        prices.forget(&"TEA");
        assert_eq!(tea(&prices, Some(3)).await, (Some(3), true));
        prices.forget_all();
        assert_eq!(tea(&prices, Some(4)).await, (Some(4), true));
    }

    #[tokio::test]
    async fn its_time_begins_when_it_is_asked_for() {
        let (clock, prices) = prices(100);
        let (answer, answered) = oneshot::channel();
        let mut reading = Box::pin(tea_later(&prices, answered));
        assert!(reading.as_mut().now_or_never().is_none());
        clock.advance(Duration::from_secs(5));
        answer.send(Some(1)).unwrap();
        assert_eq!(reading.await, Some(1));
        assert_eq!(tea(&prices, Some(2)).await, (Some(2), true));
    }

    #[tokio::test]
    async fn what_is_not_there_is_told_to_those_who_wait_and_not_remembered() {
        let (_, prices) = prices(100);
        let (answer, answered) = oneshot::channel();
        let mut first = Box::pin(tea_later(&prices, answered));
        assert!(first.as_mut().now_or_never().is_none());
        let mut second = Box::pin(tea(&prices, Some(1)));
        assert!(second.as_mut().now_or_never().is_none());
        answer.send(None).unwrap();
        assert_eq!(first.await, None);
        assert_eq!(second.await, (None, false));
        assert_eq!(tea(&prices, Some(2)).await, (Some(2), true));
    }

    #[tokio::test]
    async fn what_is_forgotten_while_it_is_asked_for_is_not_remembered() {
        let forgets: [fn(&Prices); 2] = [|prices| prices.forget(&"TEA"), Prices::forget_all];
        for forget in forgets {
            let (_, prices) = prices(100);
            let (answer, answered) = oneshot::channel();
            let mut before = Box::pin(tea_later(&prices, answered));
            assert!(before.as_mut().now_or_never().is_none());
            forget(&prices);
            assert_eq!(tea(&prices, Some(2)).await, (Some(2), true), "who comes after does not wait for it");
            answer.send(Some(1)).unwrap();
            assert_eq!(before.await, Some(1));
            assert_eq!(tea(&prices, Some(3)).await, (Some(2), false));
        }
    }

    #[tokio::test]
    async fn many_who_want_one_value_ask_once_and_those_who_want_each_others_do_not_wait_for_ever() {
        let (_, prices) = prices(100);
        let asked = Arc::new(AtomicUsize::new(0));
        let calls = (0..100).map(|index| {
            let (prices, asked) = (prices.clone(), asked.clone());
            let keys = if index % 2 == 0 { ["A", "B"] } else { ["B", "A"] };
            tokio::spawn(async move {
                let found = prices.get_many(&keys, async |keys| {
                    tokio::task::yield_now().await;
                    asked.fetch_add(keys.len(), Ordering::Relaxed);
                    Ok::<_, Infallible>(keys.into_iter().map(|key| (key, 1)).collect())
                });
                assert_eq!(found.await.unwrap().len(), 2);
            })
        });
        for call in join_all(calls).await {
            call.unwrap();
        }
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn of_many_only_those_that_are_not_remembered_are_asked_for() {
        let (_, prices) = prices(100);
        tea(&prices, Some(1)).await;
        let found = prices.get_many(&["TEA", "CUP", "NONE", "CUP"], async |keys| {
            assert_eq!(keys, ["CUP", "NONE"]);
            Ok::<_, Infallible>(vec![("CUP", 2)])
        });
        assert_eq!(found.await.unwrap(), HashMap::from([("TEA", 1), ("CUP", 2)]));
        let found = prices.get_many(&["CUP", "NONE"], async |keys| {
            assert_eq!(keys, ["NONE"]);
            Ok::<_, Infallible>(Vec::new())
        });
        assert_eq!(found.await.unwrap(), HashMap::from([("CUP", 2)]));
    }

    #[tokio::test]
    async fn after_a_failure_or_a_caller_who_goes_away_the_next_one_asks() {
        let (_, prices) = prices(100);
        assert_eq!(prices.get(&"TEA", async || Err("gone")).await, Err("gone"));
        let (_answer, answered) = oneshot::channel();
        let mut first = Box::pin(tea_later(&prices, answered));
        assert!(first.as_mut().now_or_never().is_none());
        let mut second = Box::pin(tea(&prices, Some(1)));
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        assert_eq!(second.await, (Some(1), true));
    }

    #[tokio::test]
    async fn no_more_is_remembered_than_may_be() {
        let clock = Clock::fake(DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        let numbers: Remembered<usize, usize> = Remembered::new(clock, 100, TimeDelta::seconds(5));
        for number in 0..1_000 {
            numbers.get(&number, async || Ok::<_, Infallible>(Some(number))).await.unwrap();
        }
        assert!((1..=100).contains(&numbers.known.len()), "{}", numbers.known.len());
    }
}
