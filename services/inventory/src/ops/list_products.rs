//! Lists the catalogue, page by page.

use crate::domain::Product;
use crate::domain::query::ListProducts;
use crate::error::Error;
use crate::ops::App;
use crate::store;

/// So many rows are read at once: a page that ends by its bytes has read few in vain.
const ROWS_READ_MAX: usize = 100;

/// A page, and whether there is more after it. A page of very large products is shorter than asked for, but never empty.
pub async fn list_products(app: &App, query: ListProducts) -> Result<(Vec<Product>, bool), Error> {
    let asked = usize::try_from(query.size).unwrap_or(usize::MAX);
    // A page that is full after one reading needs no transaction.
    let mut tx = if asked < ROWS_READ_MAX { app.db.read_one().await? } else { app.db.read().await? };
    let mut page: Vec<Product> = Vec::new();
    let mut bytes = 0;
    loop {
        let after = page.last().map(|product| &product.sku).or(query.after.as_ref());
        let wanted = (asked - page.len()).saturating_add(1).min(ROWS_READ_MAX);
        let rows = store::list_products(&mut tx, after, wanted).await?;
        let last = rows.len() < wanted;
        for product in rows {
            bytes += size(&product);
            if page.len() == asked || (bytes > app.limits.page_bytes_max && !page.is_empty()) {
                return Ok((page, true));
            }
            page.push(product);
        }
        if last {
            return Ok((page, false));
        }
    }
}

/// About what a product takes on the wire.
fn size(product: &Product) -> usize {
    let details = &product.details;
    let attributes: usize = details.attributes.iter().map(|(key, value)| key.len() + value.len() + 8).sum();
    64 + product.sku.as_str().len() + details.name.len() + details.description.len() + attributes
}
