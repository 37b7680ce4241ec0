//! The inventory service: what the shop sells, how much of it there is, and for whom it is set aside.
//!
//! All the wiring and nothing else.

pub mod config;
pub mod domain;
pub mod error;
pub mod events;
pub mod grpc;
pub mod ops;
pub mod store;
pub mod watchers;
pub mod wire;
mod workers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chrono::TimeDelta;
use souk_db::{Db, GroupCommit, InFlight, MigrationSet};
use souk_events::{Bus, Relay, Subscription, commands};
use souk_interceptors::token::{KeySource, PublicKey, Verifier};
use souk_interceptors::{client, server};
use souk_proto_common::{Failure, Reason};
use souk_proto_inventory::v1::catalog_service_server::CatalogServiceServer;
use souk_proto_inventory::v1::stock_service_server::StockServiceServer;
use souk_proto_user::v1::GetJwksRequest;
use souk_proto_user::v1::auth_service_client::AuthServiceClient;
use souk_runtime::server::{About, with_health_and_reflection};
use souk_runtime::{Kernel, Metrics, Remembered};
use tonic::codec::CompressionEncoding;
use tonic::server::NamedService;
use tonic::service::Routes;

pub use config::Config;
use grpc::{CatalogGrpc, StockGrpc};
use ops::App;
use ops::change_stock::StockBatch;
use watchers::Watchers;

type Catalog = CatalogServiceServer<CatalogGrpc>;
type Stock = StockServiceServer<StockGrpc>;

/// What the service shares with others of its process.
#[derive(Clone, Debug)]
pub struct Deps {
    /// Where events go, and where those of other replicas come from.
    pub bus: Bus,
}

/// The service, up and running. It ends with the kernel's tasks.
#[derive(Clone, Debug)]
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// What its operations use.
    pub app: App,
}

/// Starts the service: database, workers, server.
pub async fn start(kernel: Kernel, config: Config, deps: Deps) -> anyhow::Result<Running> {
    let listener = souk_runtime::server::bind(config.server.listen).await?;
    let address = listener.local_addr()?;
    let app = open(&kernel, &config, &deps).await?;
    let about = About {
        name: "inventory",
        services: &[Catalog::NAME, Stock::NAME],
        descriptors: &[souk_proto_inventory::DESCRIPTORS],
        health_interval: Duration::from_millis(app.limits.health_interval_ms),
    };
    let db = app.db.clone();
    let routes = with_health_and_reflection(&kernel, about, routes(&app), move || db.clone().is_well()).await?;
    let verifier =
        Verifier::new(kernel.clock.clone(), &config.token.issuer, &config.token.audience, keys(&kernel, &config)?);
    let methods = [souk_proto_inventory::METHODS];
    let stack = server::stack(&kernel, &methods, verifier, &config.stack, routes);
    souk_runtime::server::serve(&kernel, "inventory", listener, &config.server, stack)?;
    Ok(Running { address, app })
}

/// The two services.
fn routes(app: &App) -> Routes {
    let catalog = Catalog::new(CatalogGrpc::new(app.clone()));
    let stock = Stock::new(StockGrpc::new(app.clone()));
    let catalog = catalog.max_decoding_message_size(app.limits.catalog_message_bytes_max);
    let stock = stock.max_decoding_message_size(app.limits.stock_message_bytes_max);
    let gzip = CompressionEncoding::Gzip;
    Routes::new(catalog.accept_compressed(gzip)).add_service(stock.accept_compressed(gzip))
}

/// The keys of access tokens, from the user service.
fn keys(kernel: &Kernel, config: &Config) -> anyhow::Result<KeySource> {
    let channel = client::connect(kernel, "user", &config.user, &[souk_proto_user::METHODS], None)?;
    Ok(Arc::new(move || {
        let mut client = AuthServiceClient::new(channel.clone());
        Box::pin(async move {
            let response = client.get_jwks(GetJwksRequest {}).await.map_err(|_| {
                let message = "the user service does not tell its keys";
                Failure::unavailable(Reason::PeerUnavailable, message, Duration::from_secs(1))
            })?;
            let keys = response.into_inner().keys.into_iter().filter(|key| key.kty == "OKP" && key.crv == "Ed25519");
            Ok(keys.map(|key| PublicKey { kid: key.kid, x: key.x }).collect())
        })
    }))
}

/// Brings the database to the form that this version needs.
pub async fn migrate(config: &Config) -> anyhow::Result<()> {
    database(config, &Metrics::default()).await?.close().await;
    Ok(())
}

/// The database, for what an operator does beside the service. It has no consumers.
pub async fn for_operators(config: &Config) -> anyhow::Result<(Db, Vec<Arc<Subscription>>)> {
    let db = connect(config, &Metrics::default()).await?;
    Ok((commands::migrated(db, "the inventory's database", &TABLES).await?, Vec::new()))
}

/// Whose tables the database has.
static TABLES: [&MigrationSet; 3] = [&souk_db::MIGRATIONS, &souk_events::MIGRATIONS, &store::MIGRATIONS];

/// The database, migrated.
async fn database(config: &Config, metrics: &Metrics) -> anyhow::Result<Db> {
    let db = connect(config, metrics).await?;
    db.migrate(&TABLES).await.context("the inventory's database cannot be migrated")?;
    Ok(db)
}

async fn connect(config: &Config, metrics: &Metrics) -> anyhow::Result<Db> {
    Db::open_measured(&config.database, "inventory", metrics)
        .await
        .with_context(|| format!("the inventory's database {:?} cannot be opened", config.database.url))
}

/// Opens the database and starts everything but the server: for [`start`], and for tests of operations.
pub async fn open(kernel: &Kernel, config: &Config, deps: &Deps) -> anyhow::Result<App> {
    let db = database(config, &kernel.metrics).await?;
    let closing = db.clone();
    kernel.tasks.at_end(async move { closing.close().await });
    let batch =
        StockBatch { clock: kernel.clock.clone(), ids: kernel.ids.clone(), due_holds_max: config.limits.due_holds_max };
    let product_ttl = TimeDelta::milliseconds(i64::try_from(config.limits.product_ttl_ms).unwrap_or(i64::MAX));
    let app = App {
        clock: kernel.clock.clone(),
        ids: kernel.ids.clone(),
        stock: GroupCommit::start("change stock", db.clone(), batch, &config.group),
        relay: Relay::start(kernel.clone(), "inventory", db.clone(), deps.bus.clone(), config.relay.clone()),
        products: Remembered::new(kernel.clock.clone(), config.limits.products_remembered_max, product_ttl),
        in_flight: InFlight::default(),
        db,
        watchers: Watchers::default(),
        limits: config.limits.clone(),
        shutdown: kernel.tasks.shutdown().clone(),
    };
    workers::start(&app, kernel, &deps.bus).await?;
    Ok(app)
}
