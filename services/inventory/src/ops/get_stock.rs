//! Reads the stock of a product at a location.

use crate::domain::query::BatchGetStock;
use crate::domain::{StockKey, StockLevel};
use crate::error::Error;
use crate::ops::{App, batch_get_stock};

/// The level; all zeros, if there never was any.
pub async fn get_stock(app: &App, key: StockKey) -> Result<StockLevel, Error> {
    let query = BatchGetStock { skus: vec![key.sku.clone()], location: key.location };
    let (mut levels, _) = batch_get_stock(app, query).await?;
    levels.pop().ok_or(Error::ProductNotFound(key.sku))
}
