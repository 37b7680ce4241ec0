//! A lane to the inventory: changes of reservations that are asked for while a call is on its way go together with the next one.
//!
//! One call for many costs both services, and the inventory's tables, little more than one for one. Each change is answered on its own.

use souk_interceptors::client::Channel;
use souk_proto_common::{Failure, Reason, failure};
use souk_proto_inventory::v1 as pb;
use souk_proto_inventory::v1::reservation_change::Change;
use souk_proto_inventory::v1::reservation_result::Outcome;
use souk_proto_inventory::v1::stock_service_client::StockServiceClient;
use souk_runtime::gather::{Gather, Gathered, Part, Unanswered, gather};
use souk_runtime::{TraceContext, deadline, trace};
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tracing::{Instrument, info_span};

use crate::config::LaneConfig;

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Lane(Gather<Change, Answer>);

/// Whether the change had taken effect before, or why nothing was changed.
type Answer = Result<Replayed, Status>;

/// It had taken effect before it was asked for.
pub(super) type Replayed = bool;

impl Lane {
    /// A lane of its own: no change waits behind one of another lane.
    pub(super) fn start(stock: StockServiceClient<Channel>, config: &LaneConfig) -> Self {
        let (gather, gathered) = gather(config.queue_max, config.batch_max, |_| 1);
        tokio::spawn(serve(gathered, stock, config.calls_max));
        Self(gather)
    }

    /// Has the change made.
    pub(super) async fn ask(&self, change: Change) -> Answer {
        match self.0.submit(change, deadline::current(), info_span!("gathered call")).await {
            Ok(answer) => answer,
            Err(Unanswered::QueueFull) => {
                let message = "too much is being asked of the inventory";
                Err(Failure::new(Code::Unavailable, Reason::LoadShed, message).into())
            }
            Err(Unanswered::Ended) => Err(Status::unknown("whoever asks the inventory has ended")),
        }
    }
}

async fn serve(mut gathered: Gathered<Change, Answer>, stock: StockServiceClient<Channel>, calls_max: usize) {
    let mut calls = JoinSet::new();
    loop {
        while calls.len() >= calls_max {
            // A call that panicked has answered nobody, and they have been told so.
            drop(calls.join_next().await);
        }
        let Some(mut part) = gathered.next().await else { return };
        part.drop_unwanted(|| Err(Status::deadline_exceeded("the deadline passed before the inventory was asked")));
        if !part.commands.is_empty() {
            calls.spawn(send(stock.clone(), part));
        }
    }
}

/// Sends a part, and its halves where it is too large for a message, or where one of its changes is the ruin of all. That is safe: each may be
/// asked for any number of times.
async fn send(stock: StockServiceClient<Channel>, part: Part<Change, Answer>) {
    let mut parts = vec![part];
    while let Some(mut part) = parts.pop() {
        match call(stock.clone(), &part).await {
            Ok(results) => part.answer(results.into_iter().map(answer)),
            Err(status) if is_worth_halving(&status) && part.commands.len() > 1 => {
                let second = part.split_half();
                parts.extend([second, part]);
            }
            Err(status) => part.answer(std::iter::repeat_with(|| Err(status.clone()))),
        }
    }
}

async fn call(
    mut stock: StockServiceClient<Channel>,
    part: &Part<Change, Answer>,
) -> Result<Vec<pb::ReservationResult>, Status> {
    let traced = part.commands.iter().zip(part.positions());
    let request = pb::BatchChangeReservationsRequest { changes: traced.map(|(change, at)| wire(change, at)).collect() };
    let (span, position) = part.span(|| info_span!("gathered", changes = part.commands.len()));
    let calling = stock.batch_change_reservations(request).instrument(span);
    let results = match position {
        Some(position) => trace::scope(position, deadline::scope(part.deadline(), calling)).await,
        None => deadline::scope(part.deadline(), calling).await,
    };
    let results = results?.into_inner().results;
    if results.len() == part.commands.len() {
        return Ok(results);
    }
    Err(Status::internal("the inventory has answered something else than what it was asked"))
}

fn wire(change: &Change, position: Option<TraceContext>) -> pb::ReservationChange {
    let traceparent = position.map(|position| position.to_string()).unwrap_or_default();
    pb::ReservationChange { change: Some(change.clone()), traceparent }
}

fn answer(result: pb::ReservationResult) -> Answer {
    match result.outcome {
        Some(Outcome::Reservation(_)) => Ok(result.replayed),
        Some(Outcome::Error(error)) => Err(error.into()),
        None => Err(Status::internal("a change has no result")),
    }
}

fn is_worth_halving(status: &Status) -> bool {
    status.code() == Code::Internal || failure::reason_of(status) == Some(Reason::MessageTooLarge)
}
