//! Holds units for a while.

use souk_interceptors::Caller;

use super::change_stock::{change_stock, reservation};
use crate::domain::Reservation;
use crate::domain::command::{Answer, CallKey, Command, Keyed, Reserve};
use crate::error::Error;
use crate::ops::App;

pub(super) const METHOD: &str = "/souk.inventory.v1.StockService/Reserve";

/// Done, or refused as a whole.
pub async fn reserve(app: &App, caller: &Caller, asked: Keyed<Reserve>) -> Result<Answer<Reservation>, Error> {
    let key = CallKey::new(METHOD, asked.key);
    reservation(change_stock(app, caller, key, Command::Reserve(asked.command)).await?)
}
