//! One movement of a warehouse scanner.

use souk_interceptors::Caller;

use super::change_stock::{change_stock, level};
use crate::domain::StockLevel;
use crate::domain::command::{Answer, CallKey, Command, Keyed};
use crate::error::Error;
use crate::ops::App;

const METHOD: &str = "/souk.inventory.v1.StockService/SyncMovements";

/// The level right after it.
pub async fn sync_movement(app: &App, caller: &Caller, asked: Keyed<Command>) -> Result<Answer<StockLevel>, Error> {
    let key = CallKey { method: METHOD, key: asked.key };
    level(change_stock(app, caller, key, asked.command).await?)
}
