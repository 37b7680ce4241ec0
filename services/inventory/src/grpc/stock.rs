//! StockService.

use std::pin::Pin;

use futures::{Stream, StreamExt};
use souk_interceptors::accept;
use souk_proto_inventory::v1 as pb;
use souk_proto_inventory::v1::stock_service_server::StockService;
use souk_proto_inventory::v1::watch_stock_response::Update as WireUpdate;
use tonic::{Request, Response, Status, Streaming};

use super::{batch, caller_of, sync};
use crate::domain::query::ListMovements;
use crate::domain::{Sku, StockLevel};
use crate::ops::watch_stock::Update;
use crate::ops::{self, App};
use crate::wire;

/// See the module.
#[derive(Clone, Debug)]
pub struct StockGrpc {
    app: App,
}

impl StockGrpc {
    /// The service over `app`.
    pub fn new(app: App) -> Self {
        Self { app }
    }
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl StockService for StockGrpc {
    type WatchStockStream = Responses<pb::WatchStockResponse>;
    type SyncMovementsStream = Responses<pb::SyncMovementsResponse>;

    async fn get_stock(&self, request: Request<pb::GetStockRequest>) -> Result<Response<pb::GetStockResponse>, Status> {
        let (_, key) = accept(request)?;
        let level = ops::get_stock(&self.app, key).await?;
        Ok(Response::new(pb::GetStockResponse { level: Some((&level).into()) }))
    }

    async fn batch_get_stock(
        &self,
        request: Request<pb::BatchGetStockRequest>,
    ) -> Result<Response<pb::BatchGetStockResponse>, Status> {
        let (_, query) = accept(request)?;
        let (levels, missing) = ops::batch_get_stock(&self.app, query).await?;
        Ok(Response::new(pb::BatchGetStockResponse {
            levels: levels.iter().map(Into::into).collect(),
            missing_skus: missing.into_iter().map(Sku::into).collect(),
        }))
    }

    async fn reserve(&self, request: Request<pb::ReserveRequest>) -> Result<Response<pb::ReserveResponse>, Status> {
        let (caller, command) = accept(request)?;
        let answer = ops::reserve(&self.app, &caller, command).await?;
        Ok(answer.into_response(|held| pb::ReserveResponse { reservation: Some((&held).into()) }))
    }

    async fn commit(&self, request: Request<pb::CommitRequest>) -> Result<Response<pb::CommitResponse>, Status> {
        let (caller, command) = accept(request)?;
        let answer = ops::commit_reservation(&self.app, &caller, command).await?;
        Ok(answer.into_response(|committed| pb::CommitResponse { reservation: Some((&committed).into()) }))
    }

    async fn release(&self, request: Request<pb::ReleaseRequest>) -> Result<Response<pb::ReleaseResponse>, Status> {
        let (caller, command) = accept(request)?;
        let answer = ops::release_reservation(&self.app, &caller, command).await?;
        Ok(answer.into_response(|released| pb::ReleaseResponse { reservation: Some((&released).into()) }))
    }

    async fn batch_change_reservations(
        &self,
        request: Request<pb::BatchChangeReservationsRequest>,
    ) -> Result<Response<pb::BatchChangeReservationsResponse>, Status> {
        let caller = caller_of(&request);
        Ok(Response::new(batch::run(&self.app, &caller, request.into_inner()).await?))
    }

    async fn receive(&self, request: Request<pb::ReceiveRequest>) -> Result<Response<pb::ReceiveResponse>, Status> {
        let (caller, command) = accept(request)?;
        let answer = ops::receive_stock(&self.app, &caller, command).await?;
        Ok(answer.into_response(|level| pb::ReceiveResponse { level: Some((&level).into()) }))
    }

    async fn adjust(&self, request: Request<pb::AdjustRequest>) -> Result<Response<pb::AdjustResponse>, Status> {
        let (caller, command) = accept(request)?;
        let answer = ops::adjust_stock(&self.app, &caller, command).await?;
        Ok(answer.into_response(|level: StockLevel| pb::AdjustResponse { level: Some((&level).into()) }))
    }

    async fn list_movements(
        &self,
        request: Request<pb::ListMovementsRequest>,
    ) -> Result<Response<pb::ListMovementsResponse>, Status> {
        let (_, query): (_, ListMovements) = accept(request)?;
        let key = query.key.clone();
        let (page, more) = ops::list_movements(&self.app, query).await?;
        let next = page.last().filter(|_| more).map(|last| wire::movement_page_token(&key, last.seq));
        Ok(Response::new(pb::ListMovementsResponse {
            movements: page.iter().map(Into::into).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn watch_stock(
        &self,
        request: Request<pb::WatchStockRequest>,
    ) -> Result<Response<Self::WatchStockStream>, Status> {
        let (_, query) = accept(request)?;
        let updates = ops::watch_stock(&self.app, query).await?;
        let responses = updates.map(|update| {
            let update = match update? {
                Update::Level(level) => WireUpdate::Level(level.as_ref().into()),
                Update::SnapshotEnd => WireUpdate::SnapshotEnd(pb::SnapshotEnd {}),
            };
            Ok(pb::WatchStockResponse { update: Some(update) })
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn sync_movements(
        &self,
        request: Request<Streaming<pb::SyncMovementsRequest>>,
    ) -> Result<Response<Self::SyncMovementsStream>, Status> {
        let caller = caller_of(&request);
        let acknowledgements = sync::run(self.app.clone(), caller, request.into_inner());
        Ok(Response::new(Box::pin(acknowledgements)))
    }
}
