//! Products as the catalogue has them, remembered for a short while.
//!
//! A price that has changed is forgotten when the event of it comes, and at the latest when its time is up. One call asks for a product
//! at a time; the others wait for its answer.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use quick_cache::sync::Cache;
use souk_runtime::Clock;

use crate::domain::pricing::Products;
use crate::domain::{Product, Sku};
use crate::error::Error;

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Prices {
    clock: Clock,
    ttl: TimeDelta,
    known: Arc<Cache<Sku, Known>>,
}

#[derive(Clone, Debug)]
struct Known {
    product: Arc<Product>,
    until: DateTime<Utc>,
}

impl Prices {
    /// Remembers up to `products_max` products for `ttl`.
    pub fn new(clock: Clock, products_max: usize, ttl: TimeDelta) -> Self {
        Self { clock, ttl, known: Arc::new(Cache::new(products_max)) }
    }

    /// Those of `skus` that exist; what is not known is asked for by `ask`, all at once.
    pub async fn get<F>(&self, skus: &[Sku], ask: impl FnOnce(Vec<Sku>) -> F) -> Result<Products, Error>
    where
        F: Future<Output = Result<Vec<Product>, Error>>,
    {
        let now = self.clock.now();
        // In one order for everybody: whoever waits for another's product never has one that the other waits for.
        let mut sorted: Vec<&Sku> = skus.iter().collect();
        sorted.sort_unstable();
        sorted.dedup();
        let mut found = HashMap::with_capacity(sorted.len());
        let mut unknown = HashMap::new();
        for sku in sorted {
            self.known.remove_if(sku, |known| known.until <= now);
            match self.known.get_value_or_guard_async(sku).await {
                Ok(known) => drop(found.insert(sku.clone(), Product::clone(&known.product))),
                Err(place) => drop(unknown.insert(sku.clone(), place)),
            }
        }
        if unknown.is_empty() {
            return Ok(found);
        }
        for product in ask(unknown.keys().cloned().collect()).await? {
            if let Some(place) = unknown.remove(&product.sku) {
                let known = Known { product: Arc::new(product.clone()), until: now + self.ttl };
                // The place is gone if the product was forgotten meanwhile: what we were told may be what it was before.
                drop(place.insert(known));
                found.insert(product.sku.clone(), product);
            }
        }
        Ok(found)
    }

    /// Asks anew the next time.
    pub fn forget(&self, sku: &Sku) {
        self.known.remove(sku);
    }

    /// Asks anew for everything.
    pub fn forget_all(&self) {
        self.known.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use souk_proto_common::{Currency, Money};

    use super::*;

    fn sku(text: &str) -> Sku {
        Sku::parse(text).unwrap()
    }

    fn product(sku: &Sku, amount_minor: i64) -> Product {
        let price = Money { currency: Currency::parse("EUR").unwrap(), amount_minor };
        Product { sku: sku.clone(), name: "Tea".into(), price, tax_basis_points: 0 }
    }

    fn prices() -> (Clock, Prices) {
        let clock = Clock::fake(DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        (clock.clone(), Prices::new(clock, 100, TimeDelta::seconds(5)))
    }

    /// The price of TEA, and what the catalogue was asked for.
    async fn tea(prices: &Prices, amount_minor: i64) -> (i64, usize) {
        let asked = AtomicUsize::new(0);
        let tea = [sku("TEA")];
        let found = prices.get(&tea, async |skus| {
            asked.fetch_add(skus.len(), Ordering::Relaxed);
            Ok(skus.iter().map(|sku| product(sku, amount_minor)).collect())
        });
        (found.await.unwrap()[&tea[0]].price.amount_minor, asked.into_inner())
    }

    #[tokio::test]
    async fn a_price_is_remembered_until_its_time_is_up_or_it_is_forgotten() {
        let (clock, prices) = prices();
        assert_eq!(tea(&prices, 1).await, (1, 1));
        assert_eq!(tea(&prices, 2).await, (1, 0));
        clock.advance(Duration::from_secs(5));
        assert_eq!(tea(&prices, 2).await, (2, 1));
        prices.forget(&sku("TEA"));
        assert_eq!(tea(&prices, 3).await, (3, 1));
        prices.forget_all();
        assert_eq!(tea(&prices, 4).await, (4, 1));
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_remembered() {
        let (_, prices) = prices();
        let nothing = prices.get(&[sku("TEA")], async |_| Ok(Vec::new())).await.unwrap();
        assert!(nothing.is_empty());
        assert_eq!(tea(&prices, 1).await, (1, 1));
    }

    #[tokio::test]
    async fn a_price_that_changes_while_it_is_asked_for_is_not_remembered() {
        let (_, prices) = prices();
        let tea_only = [sku("TEA")];
        let found = prices.get(&tea_only, async |skus| {
            prices.forget(&sku("TEA"));
            Ok(vec![product(&skus[0], 1)])
        });
        assert_eq!(found.await.unwrap()[&tea_only[0]].price.amount_minor, 1);
        assert_eq!(tea(&prices, 2).await, (2, 1));
    }

    #[tokio::test]
    async fn many_who_want_one_price_ask_once_and_those_who_want_each_others_do_not_wait_for_ever() {
        let (_, prices) = prices();
        let asked = Arc::new(AtomicUsize::new(0));
        let calls = (0..100).map(|index| {
            let (prices, asked) = (prices.clone(), asked.clone());
            let skus = if index % 2 == 0 { [sku("A"), sku("B")] } else { [sku("B"), sku("A")] };
            tokio::spawn(async move {
                let found = prices.get(&skus, async |skus| {
                    tokio::task::yield_now().await;
                    asked.fetch_add(skus.len(), Ordering::Relaxed);
                    Ok(skus.iter().map(|sku| product(sku, 1)).collect())
                });
                assert_eq!(found.await.unwrap().len(), 2);
            })
        });
        for call in futures::future::join_all(calls).await {
            call.unwrap();
        }
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_failure_is_told_and_the_next_one_asks_again() {
        let (_, prices) = prices();
        let failed = prices.get(&[sku("TEA")], async |_| Err(Error::PeerUnavailable { retry_after: None })).await;
        assert!(failed.is_err());
        assert_eq!(tea(&prices, 1).await, (1, 1));
    }
}
