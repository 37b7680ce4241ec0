//! Reads one product.

use std::sync::Arc;

use crate::domain::{Product, Sku};
use crate::error::Error;
use crate::ops::App;
use crate::store;

/// The product, as it was a moment ago.
pub async fn get_product(app: &App, sku: Sku) -> Result<Arc<Product>, Error> {
    let read = async || Ok::<_, Error>(store::product(&mut app.db.read_one().await?, &sku).await?.map(Arc::new));
    app.products.get(&sku, read).await?.ok_or(Error::ProductNotFound(sku))
}
