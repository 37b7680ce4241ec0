//! Reads one product.

use crate::domain::{Product, Sku};
use crate::error::Error;
use crate::ops::App;
use crate::store;

/// The product.
pub async fn get_product(app: &App, sku: Sku) -> Result<Product, Error> {
    let mut tx = app.db.read_one().await?;
    store::product(&mut tx, &sku).await?.ok_or(Error::ProductNotFound(sku))
}
