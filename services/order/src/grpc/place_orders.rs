//! PlaceOrders: many orders, each on its own. So many at a time, the results in the order of the messages, all of it bounded.

use futures::{Stream, StreamExt, TryStreamExt};
use prost::Message;
use souk_interceptors::Caller;
use souk_proto_common::{FieldError, InvalidRequest, Reason, google_rpc};
use souk_proto_order::v1 as pb;
use souk_proto_order::v1::place_order_result::Outcome;
use tonic::Status;

use crate::domain::PlaceOrder;
use crate::error::Error;
use crate::ops::{self, App};
use crate::wire;

/// Places what comes; one result for each. Past the bounds of a stream nothing more is placed, and the stream fails.
pub(super) async fn run(
    app: &App,
    caller: &Caller,
    requests: impl Stream<Item = Result<pb::PlaceOrdersRequest, Status>> + Send,
) -> Result<Vec<pb::PlaceOrderResult>, Status> {
    let limits = &app.limits;
    let numbered = requests.enumerate().map(|(index, request)| {
        if index < limits.place_orders_max { request } else { Err(too_many(limits.place_orders_max)) }
    });
    let placing = numbered.map_ok(|request| async move { Ok(place(app, caller, request).await) });
    let mut placed = Box::pin(placing.try_buffered(limits.place_orders_concurrency));
    let mut results = Vec::new();
    let mut bytes = 0;
    while let Some(result) = placed.try_next().await? {
        bytes += result.encoded_len();
        if bytes > limits.place_orders_result_bytes_max {
            return Err(too_many(results.len()));
        }
        results.push(result);
    }
    Ok(results)
}

fn too_many(most: usize) -> Status {
    let error = FieldError::new(Reason::TooMany, format!("must be at most {most} in a stream"));
    InvalidRequest::one("orders", error).into()
}

async fn place(app: &App, caller: &Caller, request: pb::PlaceOrdersRequest) -> pb::PlaceOrderResult {
    let request_id = request.order.as_ref().map(|order| order.request_id.clone()).unwrap_or_default();
    match try_place(app, caller, request).await {
        Ok((order, replayed)) => pb::PlaceOrderResult { request_id, outcome: Some(Outcome::Order(order)), replayed },
        Err(status) => {
            let outcome = Some(Outcome::Error(as_field(&status)));
            // What was sent as the id may be anything, and long.
            let request_id = souk_proto_common::failure::echo(&request_id);
            pb::PlaceOrderResult { request_id, outcome, replayed: false }
        }
    }
}

async fn try_place(app: &App, caller: &Caller, request: pb::PlaceOrdersRequest) -> Result<(pb::Order, bool), Status> {
    let command = PlaceOrder::try_from(request)?;
    let answer = ops::place_order(app, caller, command).await?;
    let order: Result<pb::Order, Error> = wire::order(&answer.snapshot);
    Ok((order?, answer.replayed))
}

/// A status as a field of a message: the outcome of one order of the stream.
fn as_field(status: &Status) -> google_rpc::Status {
    let with_details = google_rpc::Status::decode(status.details()).ok();
    // A status without details has no bytes, which are a message of code 0.
    with_details.filter(|decoded| decoded.code != 0).unwrap_or_else(|| google_rpc::Status {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: Vec::new(),
    })
}
