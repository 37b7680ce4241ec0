//! The generated trait: accept, call the operation, reply.

mod place_orders;

use std::pin::Pin;

use futures::{Stream, StreamExt};
use souk_interceptors::{Caller, accept};
use souk_proto_common::REPLAY_HEADER;
use souk_proto_order::v1 as pb;
use souk_proto_order::v1::order_service_server::OrderService;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};

use crate::error::Error;
use crate::ops::{self, Answer, App};
use crate::wire;

/// See the module.
#[derive(Clone, Debug)]
pub struct OrderGrpc {
    app: App,
}

impl OrderGrpc {
    /// The service over `app`.
    pub fn new(app: App) -> Self {
        Self { app }
    }
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl OrderService for OrderGrpc {
    type WatchOrderStream = Responses<pb::WatchOrderResponse>;

    async fn place_order(
        &self,
        request: Request<pb::PlaceOrderRequest>,
    ) -> Result<Response<pb::PlaceOrderResponse>, Status> {
        let (caller, command) = accept(request)?;
        let answer = ops::place_order(&self.app, &caller, command).await?;
        reply(&answer, |order| pb::PlaceOrderResponse { order })
    }

    async fn place_orders(
        &self,
        request: Request<Streaming<pb::PlaceOrdersRequest>>,
    ) -> Result<Response<pb::PlaceOrdersResponse>, Status> {
        let caller: Caller = request.extensions().get().cloned().unwrap_or_default();
        let results = place_orders::run(&self.app, &caller, request.into_inner()).await?;
        Ok(Response::new(pb::PlaceOrdersResponse { results }))
    }

    async fn get_order(&self, request: Request<pb::GetOrderRequest>) -> Result<Response<pb::GetOrderResponse>, Status> {
        let (caller, id) = accept(request)?;
        let snapshot = ops::get_order(&self.app, &caller, id).await?;
        Ok(Response::new(pb::GetOrderResponse { order: Some(wire::order(&snapshot)?) }))
    }

    async fn list_orders(
        &self,
        request: Request<pb::ListOrdersRequest>,
    ) -> Result<Response<pb::ListOrdersResponse>, Status> {
        let filters = wire::filters(request.get_ref());
        let (caller, query) = accept(request)?;
        let (page, next) = ops::list_orders(&self.app, &caller, query).await?;
        let orders: Result<Vec<pb::Order>, Error> = page.iter().map(|snapshot| wire::order(snapshot)).collect();
        let next_page_token = next.map(|last| wire::page_token(last, &filters)).unwrap_or_default();
        Ok(Response::new(pb::ListOrdersResponse { orders: orders?, next_page_token }))
    }

    async fn cancel_order(
        &self,
        request: Request<pb::CancelOrderRequest>,
    ) -> Result<Response<pb::CancelOrderResponse>, Status> {
        let (caller, command) = accept(request)?;
        let answer = ops::cancel_order(&self.app, &caller, command).await?;
        reply(&answer, |order| pb::CancelOrderResponse { order })
    }

    async fn watch_order(
        &self,
        request: Request<pb::WatchOrderRequest>,
    ) -> Result<Response<Self::WatchOrderStream>, Status> {
        let (caller, query) = accept(request)?;
        let versions = ops::watch_order(&self.app, &caller, query).await?;
        let responses = versions.map(|snapshot| Ok(pb::WatchOrderResponse { order: Some(wire::order(&snapshot?)?) }));
        Ok(Response::new(Box::pin(responses)))
    }
}

/// The reply, with the header that says if it was given before.
fn reply<M>(answer: &Answer, message: impl FnOnce(Option<pb::Order>) -> M) -> Result<Response<M>, Status> {
    let mut response = Response::new(message(Some(wire::order(&answer.snapshot)?)));
    if answer.replayed {
        response.metadata_mut().insert(REPLAY_HEADER, MetadataValue::from_static("true"));
    }
    Ok(response)
}
