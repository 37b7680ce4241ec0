//! The user service: accounts, logins, and the tokens that prove them.
//!
//! All the wiring and nothing else.

pub mod config;
pub mod domain;
pub mod error;
pub mod events;
pub mod grpc;
pub mod hasher;
pub mod issuer;
pub mod ops;
pub mod store;
pub mod throttle;
pub mod wire;
mod workers;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use souk_db::{Db, InFlight, MigrationSet};
use souk_events::{Bus, Relay, Subscription, commands};
use souk_interceptors::server;
use souk_interceptors::token::Verifier;
use souk_proto_user::v1::auth_service_server::AuthServiceServer;
use souk_proto_user::v1::user_service_server::UserServiceServer;
use souk_runtime::server::{About, with_health_and_reflection};
use souk_runtime::{Kernel, Metrics};
use tonic::codec::CompressionEncoding;
use tonic::server::NamedService;
use tonic::service::Routes;

pub use config::Config;
use domain::Email;
use grpc::{AuthGrpc, UserGrpc};
use hasher::Hasher;
use issuer::Issuer;
use ops::App;
pub use ops::FirstAdministrator;
use throttle::Throttle;

type Auth = AuthServiceServer<AuthGrpc>;
type Users = UserServiceServer<UserGrpc>;

/// What the service shares with others of its process.
#[derive(Clone)]
pub struct Deps {
    /// Where events go.
    pub bus: Bus,
    /// Shows the first administrator to a person, once: the password is nowhere else. Called before the account is stored.
    pub show_first_administrator: ShowFirstAdministrator,
}

/// An error keeps the account from being created.
pub type ShowFirstAdministrator = Arc<dyn Fn(&FirstAdministrator) -> anyhow::Result<()> + Send + Sync>;

impl Deps {
    /// Shows the first administrator to nobody: see [`Running::first_administrator`].
    pub fn new(bus: Bus) -> Self {
        Self { bus, show_first_administrator: Arc::new(|_| Ok(())) }
    }
}

impl fmt::Debug for Deps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deps").field("bus", &self.bus).finish_non_exhaustive()
    }
}

/// The service, up and running. It ends with the kernel's tasks.
#[derive(Clone, Debug)]
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// The administrator that was created because there was none.
    pub first_administrator: Option<FirstAdministrator>,
    /// What its operations use.
    pub app: App,
}

/// Starts the service: database, keys, workers, server.
pub async fn start(kernel: Kernel, config: Config, deps: Deps) -> anyhow::Result<Running> {
    let listener = souk_runtime::server::bind(config.server.listen).await?;
    let address = listener.local_addr()?;
    let (app, first_administrator) = open(&kernel, &config, &deps).await?;
    let about = About {
        name: "user",
        services: &[Auth::NAME, Users::NAME],
        descriptors: &[souk_proto_user::DESCRIPTORS],
        health_interval: Duration::from_millis(app.limits.health_interval_ms),
    };
    let db = app.db.clone();
    let routes = with_health_and_reflection(&kernel, about, routes(&app), move || db.clone().is_well()).await?;
    let verifier = Verifier::new(kernel.clock.clone(), &config.issuer, &config.audience, app.issuer.key_source());
    let stack = server::stack(&kernel, &[souk_proto_user::METHODS], verifier, &config.stack, routes);
    souk_runtime::server::serve(&kernel, "user", listener, &config.server, stack)?;
    Ok(Running { address, first_administrator, app })
}

/// The two services.
fn routes(app: &App) -> Routes {
    let bytes_max = app.limits.message_bytes_max;
    let auth = Auth::new(AuthGrpc::new(app.clone())).max_decoding_message_size(bytes_max);
    let users = Users::new(UserGrpc::new(app.clone())).max_decoding_message_size(bytes_max);
    let gzip = CompressionEncoding::Gzip;
    Routes::new(auth.accept_compressed(gzip)).add_service(users.accept_compressed(gzip))
}

/// Brings the database to the form that this version needs.
pub async fn migrate(config: &Config) -> anyhow::Result<()> {
    database(config, &Metrics::default()).await?.close().await;
    Ok(())
}

/// The database, for what an operator does beside the service. It has no consumers.
pub async fn for_operators(config: &Config) -> anyhow::Result<(Db, Vec<Arc<Subscription>>)> {
    let db = connect(config, &Metrics::default()).await?;
    Ok((commands::migrated(db, "the user service's database", &TABLES).await?, Vec::new()))
}

/// Whose tables the database has.
static TABLES: [&MigrationSet; 3] = [&souk_db::MIGRATIONS, &souk_events::MIGRATIONS, &store::MIGRATIONS];

/// The database, migrated.
async fn database(config: &Config, metrics: &Metrics) -> anyhow::Result<Db> {
    let db = connect(config, metrics).await?;
    db.migrate(&TABLES).await.context("the user service's database cannot be migrated")?;
    Ok(db)
}

async fn connect(config: &Config, metrics: &Metrics) -> anyhow::Result<Db> {
    Db::open_measured(&config.database, "user", metrics)
        .await
        .with_context(|| format!("the user service's database {:?} cannot be opened", config.database.url))
}

/// Opens the database and starts everything but the server: for [`start`], and for tests of operations.
pub async fn open(kernel: &Kernel, config: &Config, deps: &Deps) -> anyhow::Result<(App, Option<FirstAdministrator>)> {
    let admin_email = Email::parse(&config.admin_email).ok().context("user.admin_email is no address")?;
    let db = database(config, &kernel.metrics).await?;
    let closing = db.clone();
    kernel.tasks.at_end(async move { closing.close().await });
    let app = App {
        clock: kernel.clock.clone(),
        ids: kernel.ids.clone(),
        relay: Relay::start(kernel.clone(), "user", db.clone(), deps.bus.clone(), config.relay.clone()),
        db,
        hasher: Hasher::new(&config.passwords, kernel.ids.clone())?,
        throttle: Throttle::new(&config.throttle),
        in_flight: InFlight::default(),
        issuer: Issuer::new(config, kernel.ids.clone()),
        service_accounts: Arc::new(config.service_accounts.clone()),
        session_rules: config.tokens.session_rules(),
        key_rules: config.keys.rules(),
        limits: config.limits.clone(),
        replica: kernel.ids.new_id(),
        shutdown: kernel.tasks.shutdown().clone(),
    };
    ops::maintain_keys(&app).await.context("there is no key to sign tokens with")?;
    let first_administrator = ops::create_first_administrator(&app, &admin_email, &*deps.show_first_administrator)
        .await
        .context("no administrator can be created")?;
    workers::start(&app, kernel, config);
    Ok((app, first_administrator))
}
