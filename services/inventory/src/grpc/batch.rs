//! BatchChangeReservations: changes in, results out, in the same order.

use souk_interceptors::Caller;
use souk_proto_inventory::v1 as pb;
use souk_proto_inventory::v1::reservation_result::Outcome;
use tonic::Status;

use crate::domain::Reservation;
use crate::domain::command::Answer;
use crate::error::Error;
use crate::ops::{self, App};
use crate::wire;

/// A result for each change: one that is not well-formed is refused on its own, and the others are done.
pub(super) async fn run(
    app: &App,
    caller: &Caller,
    request: pb::BatchChangeReservationsRequest,
) -> Result<pb::BatchChangeReservationsResponse, Error> {
    let parsed = wire::reservation_changes(request)?;
    let good = parsed.iter().filter_map(|change| change.as_ref().ok()).cloned().collect();
    let mut done = ops::change_reservations(app, caller, good).await?.into_iter();
    let results = parsed.into_iter().map(|change| match change {
        Ok(_) => result(done.next().unwrap_or(Err(Error::Bug("every change has a result")))),
        Err(invalid) => result(Err(invalid.into())),
    });
    Ok(pb::BatchChangeReservationsResponse { results: results.collect() })
}

fn result(done: Result<Answer<Reservation>, Error>) -> pb::ReservationResult {
    let (outcome, replayed) = match done {
        Ok(Answer { value, replayed }) => (Outcome::Reservation((&value).into()), replayed),
        Err(error) => (Outcome::Error((&Status::from(error)).into()), false),
    };
    pb::ReservationResult { outcome: Some(outcome), replayed }
}
