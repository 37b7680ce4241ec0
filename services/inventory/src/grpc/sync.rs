//! SyncMovements: movements in, acknowledgements out, in the same order.

use std::future::ready;

use futures::future::join_all;
use futures::stream::{self, Stream, StreamExt};
use souk_interceptors::Caller;
use souk_proto_inventory::v1 as pb;
use souk_proto_inventory::v1::sync_movements_response::Outcome;
use tonic::Status;

use super::as_field;
use crate::domain::StockLevel;
use crate::domain::command::Answer;
use crate::error::Error;
use crate::ops::{self, App};

/// What has arrived is handed in together, in order, and acknowledged when all of it is committed: a scanner that comes back with a
/// day's movements pays for few commits. At the end of the process what was taken is still acknowledged.
pub(super) fn run(
    app: App,
    caller: Caller,
    movements: impl Stream<Item = Result<pb::SyncMovementsRequest, Status>> + Send + 'static,
) -> impl Stream<Item = Result<pb::SyncMovementsResponse, Status>> + Send + 'static {
    let ended = app.shutdown.clone();
    let chunks = movements.take_until(ended.clone().cancelled_owned()).ready_chunks(app.limits.sync_batch_max.max(1));
    let acknowledged = chunks.then(move |chunk| take(app.clone(), caller.clone(), chunk)).flat_map(stream::iter);
    let farewell = stream::once(async move { ended.is_cancelled().then(|| Err(Error::ShuttingDown.into())) });
    acknowledged.chain(farewell.filter_map(ready))
}

async fn take(
    app: App,
    caller: Caller,
    chunk: Vec<Result<pb::SyncMovementsRequest, Status>>,
) -> Vec<Result<pb::SyncMovementsResponse, Status>> {
    // Polled in order, so that they come into the queue in order.
    join_all(chunk.into_iter().map(|movement| async { Ok(acknowledge(&app, &caller, movement?).await) })).await
}

async fn acknowledge(app: &App, caller: &Caller, movement: pb::SyncMovementsRequest) -> pb::SyncMovementsResponse {
    let request_id = souk_proto_common::failure::echo(&movement.request_id);
    let (outcome, replayed) = match take_one(app, caller, movement).await {
        Ok(Answer { value, replayed }) => (Outcome::Level((&value).into()), replayed),
        Err(error) => (Outcome::Error(as_field(&Status::from(error))), false),
    };
    pb::SyncMovementsResponse { request_id, outcome: Some(outcome), replayed }
}

async fn take_one(app: &App, caller: &Caller, movement: pb::SyncMovementsRequest) -> Result<Answer<StockLevel>, Error> {
    ops::sync_movement(app, caller, movement.try_into()?).await
}
