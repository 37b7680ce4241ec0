//! Lists the ledger of a record, newest first.

use crate::domain::movement::Movement;
use crate::domain::query::ListMovements;
use crate::error::Error;
use crate::ops::App;
use crate::ops::batch_get_stock::check_location;
use crate::store;

/// A page, and whether there is more after it.
pub async fn list_movements(app: &App, query: ListMovements) -> Result<(Vec<Movement>, bool), Error> {
    let mut tx = app.db.read().await?;
    check_location(&mut tx, &query.key.location).await?;
    let mut page = store::list_movements(&mut tx, &query.key, query.before, query.size + 1).await?;
    if page.is_empty() && store::known_skus(&mut tx, std::slice::from_ref(&query.key.sku)).await?.is_empty() {
        return Err(Error::ProductNotFound(query.key.sku));
    }
    let asked = usize::try_from(query.size).unwrap_or(usize::MAX);
    let more = page.len() > asked;
    page.truncate(asked);
    Ok((page, more))
}
