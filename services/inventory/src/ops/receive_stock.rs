//! Books units that have arrived.

use souk_interceptors::Caller;

use super::change_stock::{change_stock, level};
use crate::domain::StockLevel;
use crate::domain::command::{Answer, CallKey, Command, Keyed, Receive};
use crate::error::Error;
use crate::ops::App;

const METHOD: &str = "/souk.inventory.v1.StockService/Receive";

/// Done, or refused as a whole.
pub async fn receive_stock(app: &App, caller: &Caller, asked: Keyed<Receive>) -> Result<Answer<StockLevel>, Error> {
    let key = CallKey::new(METHOD, asked.key);
    level(change_stock(app, caller, key, Command::Receive(asked.command)).await?)
}
