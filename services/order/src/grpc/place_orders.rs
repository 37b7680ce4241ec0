//! PlaceOrders: many orders, each on its own. So many at a time, the results in the order of the messages, all of it bounded.

use std::pin::pin;

use futures::stream::FuturesOrdered;
use futures::{Stream, StreamExt};
use prost::Message;
use souk_interceptors::Caller;
use souk_proto_common::{Check, FieldError, InvalidRequest, Reason};
use souk_proto_order::v1 as pb;
use souk_proto_order::v1::place_order_result::Outcome;
use tonic::Status;

use crate::domain::PlaceOrder;
use crate::error::Error;
use crate::ops::{self, App};
use crate::wire;

/// Places what comes; one result for each. When the stream breaks, or is past its bounds, nothing more is read; what was read is placed
/// before the caller is told.
pub(super) async fn run(
    app: &App,
    caller: &Caller,
    requests: impl Stream<Item = Result<pb::PlaceOrdersRequest, Status>> + Send,
) -> Result<Vec<pb::PlaceOrderResult>, Status> {
    let limits = &app.limits;
    let mut requests = pin!(requests);
    let mut placing = FuturesOrdered::new();
    let mut results = Vec::new();
    let (mut read, mut bytes) = (0, 0);
    // Why nothing more is read.
    let mut end: Option<Result<(), Status>> = None;
    loop {
        tokio::select! {
            request = requests.next(), if end.is_none() && placing.len() < limits.place_orders_concurrency => {
                match request {
                    Some(Ok(_)) if read == limits.place_orders_max => end = Some(Err(too_many(read))),
                    Some(Ok(request)) => {
                        read += 1;
                        placing.push_back(place(app, caller, request));
                    }
                    Some(Err(status)) => end = Some(Err(status)),
                    None => end = Some(Ok(())),
                }
            }
            Some(result) = placing.next() => {
                bytes += field_bytes(&result);
                if bytes <= limits.place_orders_result_bytes_max {
                    results.push(result);
                } else if !matches!(end, Some(Err(_))) {
                    end = Some(Err(too_many(results.len())));
                }
            }
            () = app.shutdown.cancelled(), if end.is_none() => end = Some(Err(Error::ShuttingDown.into())),
            else => break,
        }
    }
    end.unwrap_or(Ok(())).map(|()| results)
}

/// The bytes of a result in the response: with its tag and its length.
fn field_bytes(result: &pb::PlaceOrderResult) -> usize {
    let length = result.encoded_len();
    1 + prost::length_delimiter_len(length) + length
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
            let outcome = Some(Outcome::Error((&status).into()));
            // What was sent as the id may be anything, and long.
            let request_id = souk_proto_common::failure::echo(&request_id);
            pb::PlaceOrderResult { request_id, outcome, replayed: false }
        }
    }
}

async fn try_place(app: &App, caller: &Caller, request: pb::PlaceOrdersRequest) -> Result<(pb::Order, bool), Status> {
    let command = PlaceOrder::try_from(request)?;
    let answer = ops::place_order(app, caller, command).await.map_err(in_message)?;
    let order: Result<pb::Order, Error> = wire::order(&answer.snapshot);
    Ok((order?, answer.replayed))
}

/// What is wrong with an order stands under `order` in its message, be it found by parsing or later.
fn in_message(error: Error) -> Error {
    let Error::Invalid(invalid) = error else { return error };
    let mut check = Check::new();
    check.inside("order", |check| {
        for (field, error) in invalid.violations() {
            check.bad(field, error.clone());
        }
        Some(())
    });
    check.finish(|| None::<std::convert::Infallible>).map_or_else(Error::Invalid, |never| match never {})
}
