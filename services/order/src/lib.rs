//! The order service: placed once, priced by the server, driven to its end whatever breaks on the way.
//!
//! All the wiring and nothing else.

pub mod config;
mod consumers;
pub mod domain;
pub mod error;
pub mod events;
pub mod failpoints;
pub mod grpc;
pub mod hands;
pub mod inventory;
pub mod ops;
pub mod prices;
pub mod store;
pub mod watchers;
pub mod wire;
mod workers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use souk_db::{Db, GroupCommit, InFlight, MigrationSet};
use souk_events::{Bus, DeadLetterGrpc, Relay, Subscription, commands};
use souk_interceptors::client::{Channel, IssuedToken, ServiceToken};
use souk_interceptors::token::{KeySource, PublicKey, Verifier};
use souk_interceptors::{client, server};
use souk_proto_common::{Failure, Reason, time};
use souk_proto_event::v1::dead_letter_service_server::DeadLetterServiceServer;
use souk_proto_order::v1::order_service_server::OrderServiceServer;
use souk_proto_user::v1::auth_service_client::AuthServiceClient;
use souk_proto_user::v1::{GetJwksRequest, IssueServiceTokenRequest};
use souk_runtime::server::{About, with_health_and_reflection};
use souk_runtime::{Clock, Kernel, Metrics, Secret};
use tonic::Status;
use tonic::codec::CompressionEncoding;
use tonic::server::NamedService;
use tonic::service::Routes;

pub use config::Config;
use grpc::OrderGrpc;

use hands::Hands;
use inventory::Inventory;
use ops::App;
use ops::drive_saga::{FinishBatch, millis};
use ops::place_order::PlaceBatch;
use prices::Prices;
use watchers::Watchers;

type Orders = OrderServiceServer<OrderGrpc>;
type DeadLetters = DeadLetterServiceServer<DeadLetterGrpc>;

/// What the service shares with others of its process.
#[derive(Clone, Debug)]
pub struct Deps {
    /// Where events go, and where those of the inventory and of other replicas come from.
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

/// Starts the service: database, workers, server. The services that it calls need not be there yet.
pub async fn start(kernel: Kernel, config: Config, deps: Deps) -> anyhow::Result<Running> {
    let listener = souk_runtime::server::bind(config.server.listen).await?;
    let address = listener.local_addr()?;
    let users = client::connect(&kernel, "user", &config.user, &[souk_proto_user::METHODS], None)?;
    let app = open(&kernel, &config, &deps, token(&kernel, &config, users.clone())).await?;
    let about = About {
        name: "order",
        services: &[Orders::NAME, DeadLetters::NAME],
        descriptors: &[souk_proto_order::DESCRIPTORS, souk_proto_event::DESCRIPTORS],
        health_interval: Duration::from_millis(app.limits.health_interval_ms),
    };
    let db = app.db.clone();
    let routes = with_health_and_reflection(&kernel, about, routes(&app), move || db.clone().is_well()).await?;
    let (issuer, audience) = (&config.token.issuer, &config.token.audience);
    let verifier = Verifier::new(kernel.clock.clone(), issuer, audience, keys(users));
    let methods = [souk_proto_order::METHODS, souk_proto_event::METHODS];
    let stack = server::stack(&kernel, &methods, verifier, &config.stack, routes);
    souk_runtime::server::serve(&kernel, "order", listener, &config.server, stack)?;
    Ok(Running { address, app })
}

/// Brings the database to the form that this version needs.
pub async fn migrate(config: &Config) -> anyhow::Result<()> {
    database(config, &Metrics::default()).await?.close().await;
    Ok(())
}

/// Whose tables the database has.
static TABLES: [&MigrationSet; 3] = [&souk_db::MIGRATIONS, &souk_events::MIGRATIONS, &store::MIGRATIONS];

/// The database, migrated.
async fn database(config: &Config, metrics: &Metrics) -> anyhow::Result<Db> {
    let db = connect(config, metrics).await?;
    db.migrate(&TABLES).await.context("the orders' database cannot be migrated")?;
    Ok(db)
}

async fn connect(config: &Config, metrics: &Metrics) -> anyhow::Result<Db> {
    Db::open_measured(&config.database, "order", metrics)
        .await
        .with_context(|| format!("the orders' database {:?} cannot be opened", config.database.url))
}

/// The database and the consumers, for what an operator does beside the service: the consumers take no events, and can replay.
pub async fn for_operators(config: &Config) -> anyhow::Result<(Db, Vec<Arc<Subscription>>)> {
    let db = connect(config, &Metrics::default()).await?;
    let db = commands::migrated(db, "the orders' database", &TABLES).await?;
    let kernel = Kernel::new(Clock::system());
    let hands = Hands::new(kernel.ids.new_id(), 1);
    let consumers = consumers::start(&kernel, config, &db, &hands, &Bus::memory())?;
    Ok((db, consumers))
}

/// Opens the database and starts everything but the server: for [`start`], and for tests of operations.
pub async fn open(kernel: &Kernel, config: &Config, deps: &Deps, token: ServiceToken) -> anyhow::Result<App> {
    let db = database(config, &kernel.metrics).await?;
    let closing = db.clone();
    kernel.tasks.at_end(async move { closing.close().await });
    let (clock, ids) = (kernel.clock.clone(), kernel.ids.clone());
    let step_deadline = millis(config.saga.deadline_ms);
    let place = PlaceBatch { clock: clock.clone() };
    let finish = FinishBatch { clock: clock.clone(), ids: ids.clone(), step_deadline };
    let hands = Hands::new(ids.new_id(), config.saga.concurrency_max);
    let consumers = consumers::start(kernel, config, &db, &hands, &deps.bus)?;
    let app = App {
        placing: GroupCommit::start("place orders", db.clone(), place, &config.group),
        finishing: GroupCommit::start("finish steps", db.clone(), finish, &config.group),
        in_flight: InFlight::default(),
        inventory: inventory(kernel, config, token)?,
        relay: Relay::start(kernel.clone(), "order", db.clone(), deps.bus.clone(), config.relay.clone()),
        consumers,
        hands,
        watchers: Watchers::default(),
        saga: config.saga.clone(),
        limits: config.limits.clone(),
        shutdown: kernel.tasks.shutdown().clone(),
        tracer: kernel.tracer.clone(),
        clock,
        ids,
        db,
    };
    workers::start(&app, kernel, &deps.bus).await?;
    Ok(app)
}

fn inventory(kernel: &Kernel, config: &Config, token: ServiceToken) -> anyhow::Result<Inventory> {
    let limits = &config.limits;
    let channel =
        client::connect(kernel, "inventory", &config.inventory, &[souk_proto_inventory::METHODS], Some(token))?;
    let prices = Prices::new(kernel.clock.clone(), limits.prices_max, millis(limits.price_ttl_ms));
    Ok(Inventory::start(channel, &config.lane, prices, Duration::from_millis(limits.hold_ttl_ms)))
}

/// The service.
fn routes(app: &App) -> Routes {
    let orders = Orders::new(OrderGrpc::new(app.clone())).max_decoding_message_size(app.limits.message_bytes_max);
    let dead_letters = DeadLetters::new(DeadLetterGrpc::new(app.db.clone(), app.consumers.clone()));
    Routes::new(orders.accept_compressed(CompressionEncoding::Gzip))
        .add_service(dead_letters.max_decoding_message_size(app.limits.message_bytes_max))
}

/// The keys of access tokens, from the user service.
fn keys(users: Channel) -> KeySource {
    Arc::new(move || {
        let mut client = AuthServiceClient::new(users.clone());
        Box::pin(async move {
            let response = client.get_jwks(GetJwksRequest {}).await.map_err(|_| {
                let message = "the user service does not tell its keys";
                Failure::unavailable(Reason::PeerUnavailable, message, Duration::from_secs(1))
            })?;
            let keys = response.into_inner().keys.into_iter().filter(|key| key.kty == "OKP" && key.crv == "Ed25519");
            Ok(keys.map(|key| PublicKey { kid: key.kid, x: key.x }).collect())
        })
    })
}

/// Our own access token, from the user service.
fn token(kernel: &Kernel, config: &Config, users: Channel) -> ServiceToken {
    let (service, secret) = (config.token.service_name.clone(), config.token.client_secret.clone());
    let source = Arc::new(move || -> futures::future::BoxFuture<'static, Result<IssuedToken, Status>> {
        let mut client = AuthServiceClient::new(users.clone());
        let request = IssueServiceTokenRequest { service: service.clone(), client_secret: secret.expose().to_owned() };
        Box::pin(async move {
            let issued = client.issue_service_token(request).await?.into_inner();
            let expires = issued.access_token_expire_time.as_ref().and_then(|expires| time::parse(expires).ok());
            let expires_at = expires.ok_or_else(|| Status::internal("a token without an end"))?;
            Ok(IssuedToken { token: Secret::new(issued.access_token), expires_at })
        })
    });
    ServiceToken::new(kernel.clock.clone(), source)
}
