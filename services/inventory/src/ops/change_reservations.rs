//! Many changes of reservations, asked for in one call.

use souk_interceptors::Caller;
use souk_runtime::{TraceContext, trace};

use super::change_stock::{Given, change_all, reservation};
use super::{commit_reservation, release_reservation, reserve};
use crate::domain::Reservation;
use crate::domain::command::{Answer, CallKey, Command, ReservationChange};
use crate::error::Error;
use crate::ops::App;

/// Done together, in order: for each the reservation after it, or why it was refused. An `Err` is a failure of the whole, after which it
/// is not known whether they have taken effect.
pub async fn change_reservations(
    app: &App,
    caller: &Caller,
    changes: Vec<(ReservationChange, Option<TraceContext>)>,
) -> Result<Vec<Result<Answer<Reservation>, Error>>, Error> {
    let given = changes.into_iter().map(given).collect::<Result<Vec<_>, _>>()?;
    let answers = change_all(app, caller, given).await?;
    Ok(answers.into_iter().map(|answer| reservation(answer?)).collect())
}

/// A key is that of the RPC which does the same alone: a repeat may come by either.
fn given((change, position): (ReservationChange, Option<TraceContext>)) -> Result<Given, Error> {
    let method = match change.command {
        Command::Reserve(_) => reserve::METHOD,
        Command::Commit(_) => commit_reservation::METHOD,
        Command::Release(_) => release_reservation::METHOD,
        Command::Receive(_) | Command::Adjust(_) | Command::Expire(_) => {
            return Err(Error::Bug("this is no change of a reservation"));
        }
    };
    let key = CallKey { method, key: change.key, is_kept: change.is_callers };
    Ok(Given { key: Some(key), command: change.command, position: position.or_else(trace::current) })
}
