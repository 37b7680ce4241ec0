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
