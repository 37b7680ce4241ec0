//! Turns a hold into an allocation.

use souk_interceptors::Caller;

use super::change_stock::{change_stock, reservation};
use crate::domain::Reservation;
use crate::domain::command::{Answer, CallKey, Command, Keyed, Resolve};
use crate::error::Error;
use crate::ops::App;

pub(super) const METHOD: &str = "/souk.inventory.v1.StockService/Commit";

/// Done, or refused as a whole.
pub async fn commit_reservation(
    app: &App,
    caller: &Caller,
    asked: Keyed<Resolve>,
) -> Result<Answer<Reservation>, Error> {
    let key = CallKey::new(METHOD, asked.key);
    reservation(change_stock(app, caller, key, Command::Commit(asked.command)).await?)
}
