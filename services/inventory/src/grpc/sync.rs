//! SyncMovements: movements in, acknowledgements out, in the same order.

use std::future::ready;

use futures::stream::{self, Stream, StreamExt};
use souk_interceptors::Caller;
use souk_proto_common::InvalidRequest;
use souk_proto_inventory::v1 as pb;
use souk_proto_inventory::v1::sync_movements_response::Outcome;
use tonic::Status;

use crate::domain::StockLevel;
use crate::domain::command::{Answer, Command, Keyed};
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
    let chunks = movements.take_until(ended.clone().cancelled_owned()).ready_chunks(app.limits.sync_batch_max);
    let acknowledged = chunks.then(move |chunk| take(app.clone(), caller.clone(), chunk)).flat_map(stream::iter);
    let farewell = stream::once(async move { ended.is_cancelled().then(|| Err(Error::ShuttingDown.into())) });
    acknowledged.chain(farewell.filter_map(ready))
}

/// A movement on its way: good, or refused before it came to the tables.
struct Movement {
    request_id: String,
    parsed: Result<Keyed<Command>, InvalidRequest>,
}

/// An acknowledgement for each movement, or the failure that ends the stream: whether the movements have taken effect is not known then,
/// and what comes after them must not be done before them.
async fn take(
    app: App,
    caller: Caller,
    chunk: Vec<Result<pb::SyncMovementsRequest, Status>>,
) -> Vec<Result<pb::SyncMovementsResponse, Status>> {
    let mut movements = Vec::with_capacity(chunk.len());
    let mut broken = None;
    for movement in chunk {
        match movement {
            Ok(movement) => movements.push(Movement::parse(movement)),
            // The first says why; what comes after it only that there is no more.
            Err(status) => {
                broken.get_or_insert(Err(status));
            }
        }
    }
    let good = movements.iter().filter_map(|movement| movement.parsed.clone().ok()).collect();
    let mut done = match ops::sync_movements(&app, &caller, good).await {
        Ok(done) => done.into_iter(),
        Err(error) => return vec![Err(error.into())],
    };
    let acknowledged = movements.into_iter().map(|Movement { request_id, parsed }| {
        Ok(match parsed {
            Ok(_) => acknowledge(request_id, done.next().unwrap_or(Err(Error::Bug("every movement has a result")))),
            Err(invalid) => acknowledge(request_id, Err(invalid.into())),
        })
    });
    acknowledged.chain(broken).collect()
}

impl Movement {
    fn parse(movement: pb::SyncMovementsRequest) -> Self {
        let request_id = souk_proto_common::failure::echo(&movement.request_id);
        Self { request_id, parsed: movement.try_into() }
    }
}

fn acknowledge(request_id: String, result: Result<Answer<StockLevel>, Error>) -> pb::SyncMovementsResponse {
    let (outcome, replayed) = match result {
        Ok(Answer { value, replayed }) => (Outcome::Level((&value).into()), replayed),
        Err(error) => (Outcome::Error((&Status::from(error)).into()), false),
    };
    pb::SyncMovementsResponse { request_id, outcome: Some(outcome), replayed }
}
