//! A bare tonic server, in a process of its own: one fixed answer to GetProduct, of the size that Souk's has, and nothing around it. It runs
//! on the runtime and the allocator of the services; what is faster than it is not gRPC.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use prost::Message;
use souk_proto_inventory::v1::catalog_service_server::{CatalogService, CatalogServiceServer};
use souk_proto_inventory::v1::{
    BatchGetProductsRequest, BatchGetProductsResponse, CreateProductRequest, CreateProductResponse, GetProductRequest,
    GetProductResponse, ImportProductsRequest, ImportProductsResponse, ListProductsRequest, ListProductsResponse,
    UpdateProductRequest, UpdateProductResponse,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::Ended;
use crate::args::Echo;
use crate::cost::Meter;
use crate::report::show;
use crate::souk::{Addresses, Souk};

/// The process. It ends with its value.
pub(crate) struct Process {
    child: Child,
    address: String,
}

impl Process {
    /// Starts one that gives this answer.
    pub(crate) async fn start(answer: &GetProductResponse) -> anyhow::Result<Self> {
        let digits = answer.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
        let mut child = Command::new(std::env::current_exe()?)
            .args(["echo", "--answer", &digits])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("the echo server cannot be started")?;
        let output = child.stdout.take().context("its output is a pipe")?;
        let line = BufReader::new(output).lines().next_line().await?;
        Ok(Self { child, address: line.context("the echo server does not start")? })
    }

    /// A Souk of which only GetProduct answers.
    pub(crate) fn souk(&self, connections: usize, timeout: Duration) -> anyhow::Result<Souk> {
        let address = || self.address.clone();
        Souk::new(&Addresses { user: address(), order: address(), inventory: address() }, connections, timeout)
    }

    /// What it costs.
    pub(crate) fn meter(&self) -> anyhow::Result<Meter> {
        let id = self.child.id().context("the echo server has ended")?;
        Ok(Meter::Process(i32::try_from(id)?))
    }
}

/// The sub-command: says where it listens, and serves until whoever has started it is gone.
pub(crate) async fn serve(args: &Echo) -> anyhow::Result<Ended> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    show(&listener.local_addr()?.to_string())?;
    let answer = GetProductResponse::decode(&*bytes(&args.answer)?).context("the answer is none")?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let parent_is_gone = async { drop(tokio::io::stdin().read_to_end(&mut Vec::new()).await) };
    Server::builder()
        .add_service(CatalogServiceServer::new(Fixed(answer)))
        .serve_with_incoming_shutdown(incoming, parent_is_gone)
        .await?;
    Ok(Ended::Well)
}

fn bytes(digits: &str) -> anyhow::Result<Vec<u8>> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair)?, 16).context("no hexadecimal digits");
    digits.as_bytes().chunks(2).map(byte).collect()
}

struct Fixed(GetProductResponse);

#[tonic::async_trait]
impl CatalogService for Fixed {
    async fn get_product(&self, request: Request<GetProductRequest>) -> Result<Response<GetProductResponse>, Status> {
        let mut answer = self.0.clone();
        if let Some(product) = &mut answer.product {
            product.sku = request.into_inner().sku;
        }
        Ok(Response::new(answer))
    }

    async fn create_product(
        &self,
        _: Request<CreateProductRequest>,
    ) -> Result<Response<CreateProductResponse>, Status> {
        Err(not_here())
    }

    async fn batch_get_products(
        &self,
        _: Request<BatchGetProductsRequest>,
    ) -> Result<Response<BatchGetProductsResponse>, Status> {
        Err(not_here())
    }

    async fn list_products(&self, _: Request<ListProductsRequest>) -> Result<Response<ListProductsResponse>, Status> {
        Err(not_here())
    }

    async fn update_product(
        &self,
        _: Request<UpdateProductRequest>,
    ) -> Result<Response<UpdateProductResponse>, Status> {
        Err(not_here())
    }

    async fn import_products(
        &self,
        _: Request<Streaming<ImportProductsRequest>>,
    ) -> Result<Response<ImportProductsResponse>, Status> {
        Err(not_here())
    }
}

fn not_here() -> Status {
    Status::unimplemented("a baseline has GetProduct alone")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn digits_are_bytes_or_nothing() {
        assert_eq!(bytes("00ff10").unwrap(), [0, 255, 16]);
        assert!(bytes("0g").is_err() && bytes("é").is_err());
    }
}
