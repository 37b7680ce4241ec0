//! Products as the catalogue has them, remembered for a short while.
//!
//! A price that has changed is forgotten when the event of it comes, and at the latest when its time is up. One call asks for a product
//! at a time; the others wait for its answer.

use std::future::Future;

use chrono::TimeDelta;
use souk_runtime::{Clock, Remembered};

use crate::domain::pricing::Products;
use crate::domain::{Product, Sku};
use crate::error::Error;

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Prices(Remembered<Sku, Product>);

impl Prices {
    /// Remembers up to `products_max` products for `ttl`.
    pub fn new(clock: Clock, products_max: usize, ttl: TimeDelta) -> Self {
        Self(Remembered::new(clock, products_max, ttl))
    }

    /// Those of `skus` that exist; what is not known is asked for by `ask`, all at once.
    pub async fn get<F>(&self, skus: &[Sku], ask: impl FnOnce(Vec<Sku>) -> F) -> Result<Products, Error>
    where
        F: Future<Output = Result<Vec<Product>, Error>>,
    {
        let named = |product: Product| (product.sku.clone(), product);
        let ask = async |unknown| Ok(ask(unknown).await?.into_iter().map(named).collect());
        self.0.get_many(skus, ask).await
    }

    /// Asks anew the next time.
    pub fn forget(&self, sku: &Sku) {
        self.0.forget(sku);
    }

    /// Asks anew for everything.
    pub fn forget_all(&self) {
        self.0.forget_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use chrono::DateTime;
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
    async fn a_failure_is_told_and_the_next_one_asks_again() {
        let (_, prices) = prices();
        let failed = prices.get(&[sku("TEA")], async |_| Err(Error::PeerUnavailable { retry_after: None })).await;
        assert!(failed.is_err());
        assert_eq!(tea(&prices, 1).await, (1, 1));
    }
}
