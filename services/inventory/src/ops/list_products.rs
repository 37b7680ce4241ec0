//! Lists the catalogue, page by page.

use crate::domain::Product;
use crate::domain::query::ListProducts;
use crate::error::Error;
use crate::ops::App;
use crate::store;

/// A page, and whether there is more after it. A page of very large products is shorter than asked for.
pub async fn list_products(app: &App, query: ListProducts) -> Result<(Vec<Product>, bool), Error> {
    let mut tx = app.db.read().await?;
    let mut page = store::list_products(&mut tx, query.after.as_ref(), query.size + 1).await?;
    let asked = usize::try_from(query.size).unwrap_or(usize::MAX);
    let fitting = fitting(&page, app.limits.page_bytes_max).min(asked);
    let more = page.len() > fitting;
    page.truncate(fitting);
    Ok((page, more))
}

/// How many of `page` stay within `bytes_max`; one at least, so that every page goes on.
fn fitting(page: &[Product], bytes_max: usize) -> usize {
    let mut bytes = 0;
    let within = page.iter().take_while(|product| {
        bytes += size(product);
        bytes <= bytes_max
    });
    within.count().max(1)
}

/// About what a product takes on the wire.
fn size(product: &Product) -> usize {
    let details = &product.details;
    let attributes: usize = details.attributes.iter().map(|(key, value)| key.len() + value.len() + 8).sum();
    64 + product.sku.as_str().len() + details.name.len() + details.description.len() + attributes
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use souk_proto_common::{Currency, Money};

    use super::*;
    use crate::domain::Sku;
    use crate::domain::product::Details;

    #[test]
    fn a_page_of_large_products_is_short_but_never_empty() {
        let details = Details {
            name: "x".into(),
            description: "y".repeat(1_000),
            price: Money::zero(Currency::parse("EUR").unwrap()),
            tax_basis_points: 0,
            attributes: [].into(),
        };
        let page = vec![Product::new(Sku::parse("A").unwrap(), details, DateTime::UNIX_EPOCH); 5];
        assert_eq!(fitting(&page, 10_000), 5);
        assert_eq!(fitting(&page, 3_500), 3);
        assert_eq!(fitting(&page, 10), 1);
    }
}
