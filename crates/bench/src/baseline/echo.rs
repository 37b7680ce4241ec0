//! A bare tonic server, in a process of its own: one fixed answer to GetProduct, of the size that Souk's has, and nothing around it. It runs
//! on the runtime and the allocator of the services; what is faster than it is not gRPC. Under our interceptors and on our server it shows
//! what these cost.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use prost::Message;
use souk_interceptors::client::{self, ClientConfig};
use souk_interceptors::server::{self, RateLimit, Stack, StackConfig};
use souk_interceptors::token::{KeySource, PublicKey, Verifier};
use souk_proto_common::{Failure, Reason};
use souk_proto_inventory::v1::catalog_service_server::{CatalogService, CatalogServiceServer};
use souk_proto_inventory::v1::{
    BatchGetProductsRequest, BatchGetProductsResponse, CreateProductRequest, CreateProductResponse, GetProductRequest,
    GetProductResponse, ImportProductsRequest, ImportProductsResponse, ListProductsRequest, ListProductsResponse,
    UpdateProductRequest, UpdateProductResponse,
};
use souk_proto_user::v1::GetJwksRequest;
use souk_proto_user::v1::auth_service_client::AuthServiceClient;
use souk_runtime::server::ServerConfig;
use souk_runtime::telemetry::Telemetry;
use souk_runtime::{Clock, Kernel, TelemetryConfig};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use tower::Service;

use crate::Ended;
use crate::args::{Dress, Echo};
use crate::cost::Meter;
use crate::report::show;
use crate::souk::{Addresses, Souk};

/// The process. It ends with its value.
pub(crate) struct Process {
    child: Child,
    address: String,
}

impl Process {
    /// Starts one that gives this answer. Who is called with tokens asks `user_address` for their keys.
    pub(crate) async fn start(answer: &GetProductResponse, dress: Dress, user_address: &str) -> anyhow::Result<Self> {
        let digits = answer.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
        let mut child = Command::new(std::env::current_exe()?)
            .args(["echo", "--answer", &digits, "--user-address", user_address, "--dress"])
            .arg(dress.to_possible_value().context("every dress has a name")?.get_name())
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
        let [user, order, inventory] = [(); 3].map(|()| self.address.clone());
        Souk::new(&Addresses { user, order, inventory, authority: None }, connections, timeout)
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
    let routes = Routes::new(CatalogServiceServer::new(Fixed(answer)));
    match args.dress {
        Dress::Bare => on_tonic(listener, routes).await?,
        Dress::Stack | Dress::Sampled => {
            let (kernel, _telemetry) = kernel(args.dress)?;
            on_tonic(listener, stack(&kernel, &args.user_address, routes)?).await?;
        }
        Dress::Whole => {
            let (kernel, _telemetry) = kernel(args.dress)?;
            let stack = stack(&kernel, &args.user_address, routes)?;
            souk_runtime::server::serve(&kernel, "echo", listener, &ServerConfig::default(), stack)?;
            parent_is_gone().await;
        }
    }
    Ok(Ended::Well)
}

/// tonic's own server, as it comes.
async fn on_tonic<S>(listener: TcpListener, service: S) -> anyhow::Result<()>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok(Server::builder().serve_with_incoming_shutdown(service, incoming, parent_is_gone()).await?)
}

async fn parent_is_gone() {
    drop(tokio::io::stdin().read_to_end(&mut Vec::new()).await);
}

/// A collector that nobody has to run: nothing is sent there.
const COLLECTOR: &str = "http://127.0.0.1:9";

/// Logs as those of the services that the benchmark starts.
fn kernel(dress: Dress) -> anyhow::Result<(Kernel, Telemetry)> {
    let mut kernel = Kernel::new(Clock::system());
    let collector = if dress == Dress::Sampled { COLLECTOR } else { "" };
    let config = TelemetryConfig {
        log: "warn".to_owned(),
        otlp_endpoint: collector.to_owned(),
        sample_permille: 0,
        ..TelemetryConfig::default()
    };
    let telemetry = Telemetry::start(&config, "souk-bench", &kernel)?;
    kernel.tracer = telemetry.tracer.clone();
    Ok((kernel, telemetry))
}

/// Our interceptors, as the inventory has them. Limits are looked up, and nobody runs into them.
fn stack(kernel: &Kernel, user_address: &str, routes: Routes) -> anyhow::Result<Stack> {
    let user = ClientConfig { addresses: vec![format!("http://{user_address}")], ..ClientConfig::default() };
    let channel = client::connect(kernel, "user", &user, &[souk_proto_user::METHODS], None)?;
    let keys: KeySource = Arc::new(move || {
        let mut auth = AuthServiceClient::new(channel.clone());
        Box::pin(async move {
            let unknown = |_| Failure::unavailable(Reason::PeerUnavailable, "no keys", Duration::from_secs(1));
            let keys = auth.get_jwks(GetJwksRequest {}).await.map_err(unknown)?.into_inner().keys;
            Ok(keys.into_iter().map(|key| PublicKey { kid: key.kid, x: key.x }).collect())
        })
    });
    let verifier = Verifier::new(kernel.clock.clone(), "souk", "souk", keys);
    let no_limit = RateLimit { per_second: 1_000_000, burst: 1_000_000 };
    let config = StackConfig { reads: no_limit, ..StackConfig::default() };
    Ok(server::stack(kernel, &[souk_proto_inventory::METHODS], verifier, &config, routes))
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
