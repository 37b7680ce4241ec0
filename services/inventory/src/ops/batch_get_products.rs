//! Reads several products as of one moment.

use std::collections::HashMap;

use crate::domain::query::BatchGetProducts;
use crate::domain::{Product, Sku};
use crate::error::Error;
use crate::ops::App;
use crate::store;

/// Those that exist and those that do not, each in the order of asking.
pub async fn batch_get_products(app: &App, query: BatchGetProducts) -> Result<(Vec<Product>, Vec<Sku>), Error> {
    let mut tx = app.db.read_one().await?;
    let found = store::products(&mut tx, &query.skus).await?;
    let mut found: HashMap<Sku, Product> = found.into_iter().map(|product| (product.sku.clone(), product)).collect();
    let mut products = Vec::with_capacity(found.len());
    let mut missing = Vec::new();
    for sku in query.skus {
        match found.remove(&sku) {
            Some(product) => products.push(product),
            None => missing.push(sku),
        }
    }
    Ok((products, missing))
}
