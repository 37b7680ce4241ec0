//! Movements of a warehouse scanner.

use souk_interceptors::Caller;

use super::change_stock::{Given, change_all, level};
use crate::domain::StockLevel;
use crate::domain::command::{Answer, CallKey, Command, Keyed};
use crate::error::Error;
use crate::ops::App;

const METHOD: &str = "/souk.inventory.v1.StockService/SyncMovements";

/// Done together, in order: for each the level right after it, or why it was refused. An `Err` is a failure of the whole, after which
/// it is not known whether they have taken effect.
pub async fn sync_movements(
    app: &App,
    caller: &Caller,
    movements: Vec<Keyed<Command>>,
) -> Result<Vec<Result<Answer<StockLevel>, Error>>, Error> {
    let given = |asked: Keyed<Command>| Given::here(CallKey::new(METHOD, asked.key), asked.command);
    let answers = change_all(app, caller, movements.into_iter().map(given).collect()).await?;
    Ok(answers.into_iter().map(|answer| level(answer?)).collect())
}
