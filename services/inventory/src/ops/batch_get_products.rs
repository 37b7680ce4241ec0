//! Reads several products.

use std::collections::HashMap;
use std::sync::Arc;

use crate::domain::query::BatchGetProducts;
use crate::domain::{Product, Sku};
use crate::error::Error;
use crate::ops::App;
use crate::store;

/// Those that exist, each as it was a moment ago or all as they are, and those that do not, each in the order of asking.
pub async fn batch_get_products(app: &App, query: BatchGetProducts) -> Result<(Vec<Arc<Product>>, Vec<Sku>), Error> {
    let mut found: HashMap<Sku, Arc<Product>> = if query.fresh {
        read(app, &query.skus).await?.into_iter().collect()
    } else {
        app.products.get_many(&query.skus, async |skus| read(app, &skus).await).await?
    };
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

async fn read(app: &App, skus: &[Sku]) -> Result<Vec<(Sku, Arc<Product>)>, Error> {
    let found = store::products(&mut app.db.read_one().await?, skus).await?;
    Ok(found.into_iter().map(|product| (product.sku.clone(), Arc::new(product))).collect())
}
