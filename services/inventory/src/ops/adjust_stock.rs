//! Corrects what is on hand.

use souk_interceptors::Caller;

use super::change_stock::{change_stock, level};
use crate::domain::StockLevel;
use crate::domain::command::{Adjust, Answer, CallKey, Command, Keyed};
use crate::error::Error;
use crate::ops::App;

const METHOD: &str = "/souk.inventory.v1.StockService/Adjust";

/// Done, or refused as a whole.
pub async fn adjust_stock(app: &App, caller: &Caller, asked: Keyed<Adjust>) -> Result<Answer<StockLevel>, Error> {
    let key = CallKey::new(METHOD, asked.key);
    level(change_stock(app, caller, key, Command::Adjust(asked.command)).await?)
}
