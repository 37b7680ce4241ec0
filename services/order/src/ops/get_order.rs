//! Reads an order.

use souk_interceptors::Caller;

use super::{App, READ_ALL, permitted};
use crate::domain::OrderId;
use crate::error::Error;
use crate::store;

/// The order as it stands, encoded.
pub async fn get_order(app: &App, caller: &Caller, id: OrderId) -> Result<Vec<u8>, Error> {
    let mut tx = app.db.read_one().await?;
    let found = store::latest(&mut tx, id).await?;
    let (_, snapshot) = permitted(caller, READ_ALL, id, found, |(owner_id, _)| *owner_id)?;
    Ok(snapshot)
}
