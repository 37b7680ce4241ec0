//! CatalogService.

use souk_interceptors::accept;
use souk_proto_inventory::v1 as pb;
use souk_proto_inventory::v1::catalog_service_server::CatalogService;
use tonic::{Request, Response, Status, Streaming};

use super::{caller_of, import};
use crate::domain::Sku;
use crate::domain::query::GetProduct;
use crate::ops::{self, App};
use crate::wire;

/// See the module.
#[derive(Clone, Debug)]
pub struct CatalogGrpc {
    app: App,
}

impl CatalogGrpc {
    /// The service over `app`.
    pub fn new(app: App) -> Self {
        Self { app }
    }
}

#[tonic::async_trait]
impl CatalogService for CatalogGrpc {
    async fn create_product(
        &self,
        request: Request<pb::CreateProductRequest>,
    ) -> Result<Response<pb::CreateProductResponse>, Status> {
        let (caller, command) = accept(request)?;
        let answer = ops::create_product(&self.app, &caller, command).await?;
        Ok(answer.into_response(|product| pb::CreateProductResponse { product: Some((&product).into()) }))
    }

    async fn get_product(
        &self,
        request: Request<pb::GetProductRequest>,
    ) -> Result<Response<pb::GetProductResponse>, Status> {
        let (_, GetProduct { sku }) = accept(request)?;
        let product = ops::get_product(&self.app, sku).await?;
        Ok(Response::new(pb::GetProductResponse { product: Some(product.as_ref().into()) }))
    }

    async fn batch_get_products(
        &self,
        request: Request<pb::BatchGetProductsRequest>,
    ) -> Result<Response<pb::BatchGetProductsResponse>, Status> {
        let (_, query) = accept(request)?;
        let (products, missing) = ops::batch_get_products(&self.app, query).await?;
        Ok(Response::new(pb::BatchGetProductsResponse {
            products: products.iter().map(|product| product.as_ref().into()).collect(),
            missing_skus: missing.into_iter().map(Sku::into).collect(),
        }))
    }

    async fn list_products(
        &self,
        request: Request<pb::ListProductsRequest>,
    ) -> Result<Response<pb::ListProductsResponse>, Status> {
        let (_, query) = accept(request)?;
        let (page, more) = ops::list_products(&self.app, query).await?;
        let next = page.last().filter(|_| more).map(|last| wire::product_page_token(&last.sku));
        Ok(Response::new(pb::ListProductsResponse {
            products: page.iter().map(Into::into).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn update_product(
        &self,
        request: Request<pb::UpdateProductRequest>,
    ) -> Result<Response<pb::UpdateProductResponse>, Status> {
        let (caller, command) = accept(request)?;
        let answer = ops::update_product(&self.app, &caller, command).await?;
        Ok(answer.into_response(|product| pb::UpdateProductResponse { product: Some((&product).into()) }))
    }

    async fn import_products(
        &self,
        request: Request<Streaming<pb::ImportProductsRequest>>,
    ) -> Result<Response<pb::ImportProductsResponse>, Status> {
        let caller = caller_of(&request);
        let response = import::run(&self.app, &caller, request.into_inner()).await?;
        Ok(Response::new(response))
    }
}
