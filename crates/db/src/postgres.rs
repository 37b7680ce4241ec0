//! A PostgreSQL server, as a pool of connections and what is known of its health.
//!
//! Why the pool's own ways are not enough, each with its remedy here:
//!
//! - A caller who goes away leaves its statement running, and the pool waits for it: [`session`] gives it a moment, then closes the
//!   connection, and the server, which looks for its client ever so often, ends the statement.
//! - A server that is gone keeps every caller waiting for as long as a connection may take: [`health`] finds it out once, for all.
//! - A server that stands still closes nothing and answers nothing: each exchange has an end on our side too.

mod health;
mod look;
mod session;

use std::sync::Arc;
use std::time::{Duration, Instant};

use souk_runtime::deadline;
use sqlx::pool::{PoolConnection, PoolConnectionMetadata};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool, Postgres};
use tokio::time::Instant as TokioInstant;
use tokio::time::timeout;

use crate::config::DbConfig;
use crate::error::Error;
use crate::meters::Meters;
use crate::transaction::Access;
use health::Health;
pub(crate) use session::Session;

/// See the module.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) pool: PgPool,
    /// One for each host of the URL.
    hosts: Vec<PgConnectOptions>,
    config: DbConfig,
    health: Arc<Health>,
    meters: Arc<Meters>,
}

/// A connection that was idle for longer is asked whether it is still there before it is used.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);
/// So long a connection may take to answer what costs nothing: being there, undoing a transaction.
const TRIFLE: Duration = Duration::from_secs(1);

impl Server {
    /// Waits for the server, no longer than `connect_timeout_ms`.
    pub(crate) async fn open(config: &DbConfig, meters: Arc<Meters>) -> Result<Arc<Self>, Error> {
        config.url.check().map_err(|problem| Error::config(format!("the database's url {problem}")))?;
        let hosts: Vec<PgConnectOptions> =
            config.url.hosts().iter().map(|url| options(url, config, meters.database)).collect::<Result<_, _>>()?;
        let first = hosts.first().ok_or_else(|| Error::config("the database's url names no host"))?.clone();
        let health = Arc::new(Health::new(config));
        let server =
            Arc::new(Self { pool: pool(config, first, &health), hosts, config: config.clone(), health, meters });
        server.wait_until_found().await?;
        server.warm_up().await;
        server.meters.measure_pool("all", server.pool.clone().into(), config.connections_max);
        Ok(server)
    }

    /// Makes the connections that are to be there always. Afterwards the pool sees to that.
    async fn warm_up(&self) {
        let connecting = (0..self.config.connections_min).map(|_| self.pool.acquire());
        // One that cannot be made is missed by nobody yet.
        drop(futures::future::join_all(connecting).await);
    }

    /// Begins a transaction, or what does without one, within the deadline of the task.
    pub(crate) async fn begin(self: &Arc<Self>, access: Access) -> Result<Session, Error> {
        let deadline = deadline::current();
        let mut tries_left = self.config.connections_max;
        loop {
            let connection = self.acquire(deadline).await?;
            let mut session = Session::new(self.clone(), connection, access, deadline);
            match session.begin().await {
                Ok(()) => return Ok(session),
                // Where nothing has begun, nothing is done twice: all of the pool may have been cut at once.
                Err(_) if session.is_broken() && tries_left > 0 => tries_left -= 1,
                Err(error) => return Err(error),
            }
        }
    }

    async fn acquire(self: &Arc<Self>, deadline: Option<TokioInstant>) -> Result<PoolConnection<Postgres>, Error> {
        let since = Instant::now();
        let mut down = self.health.subscribe();
        if *down.borrow_and_update() {
            return Err(Error::down());
        }
        let acquired = tokio::select! {
            biased;
            acquired = self.pool.acquire() => acquired.map_err(Error::no_connection),
            _ = down.wait_for(|down| *down) => Err(Error::down()),
            () = at(deadline) => Err(Error::too_late()),
        };
        self.meters.acquired(since.elapsed(), acquired.is_ok());
        if acquired.is_err() {
            self.suspect(Some(since));
        }
        acquired
    }

    /// It is known that the server does not answer.
    pub(crate) fn is_known_to_be_down(&self) -> bool {
        *self.health.subscribe().borrow()
    }

    /// A connection of its own to the server in use, on which a statement may take `statement_timeout`.
    pub(crate) async fn connect(&self, statement_timeout: Duration) -> Result<PgConnection, Error> {
        let options = self.pool.connect_options().as_ref().clone();
        let options = options.options([("statement_timeout", millis(statement_timeout))]);
        let connecting = timeout(Duration::from_millis(self.config.acquire_timeout_ms), options.connect());
        let connected = connecting.await.map_err(|_| Error::unanswered("no connection was made in time"))?;
        connected.map_err(Error::no_connection)
    }

    pub(crate) fn config(&self) -> &DbConfig {
        &self.config
    }
}

/// Waits for the deadline; for ever, where there is none.
async fn at(deadline: Option<TokioInstant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn millis(duration: Duration) -> String {
    format!("{}ms", duration.as_millis().max(1))
}

fn options(url: &str, config: &DbConfig, database: &str) -> Result<PgConnectOptions, Error> {
    let mut url = url::Url::parse(url).map_err(|_| Error::config("the database's url is no URL"))?;
    let known: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(name, _)| name != "target_session_attrs")
        .map(|(k, v)| (k.into(), v.into()))
        .collect();
    url.set_query(None);
    if !known.is_empty() {
        url.query_pairs_mut().extend_pairs(known);
    }
    let ms = |ms: u64| format!("{ms}ms");
    let mut options = PgConnectOptions::from_url(&url)?
        .application_name(&format!("souk-{database}"))
        .statement_cache_capacity(config.statement_cache_max as usize)
        .options([
            ("statement_timeout", ms(config.statement_timeout_ms)),
            ("lock_timeout", ms(config.lock_timeout_ms)),
            ("idle_in_transaction_session_timeout", ms(config.idle_transaction_timeout_ms)),
        ]);
    // What is done for calls looks rows up by keys and indexes, a few hundred at a time. A plan that was made while a table was small, and is
    // kept, reads all of it for each batch when it has grown: orders then became slower with every order (1,089, 734, 679 a second in three runs
    // of one shop; without such plans 1,197, 1,171, 1,006). What has to read a whole table still does: it has no other way. So one plan serves
    // all values of a statement, and none is made for each: for one order at a time that was 2.1 ms of 5.2 (68 a second before, 90 with it).
    options = options.options([
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        ("jit", "off"),
        ("plan_cache_mode", "force_generic_plan"),
        // Such a plan does not know how few rows a LIMIT asks for, and would start processes to read them all.
        ("max_parallel_workers_per_gather", "0"),
    ]);
    if config.client_check_interval_ms > 0 {
        options = options.options([("client_connection_check_interval", ms(config.client_check_interval_ms))]);
    }
    Ok(options)
}

fn pool(config: &DbConfig, options: PgConnectOptions, health: &Arc<Health>) -> PgPool {
    let health = health.clone();
    PgPoolOptions::new()
        .max_connections(config.connections_max)
        .min_connections(config.connections_min)
        .acquire_timeout(Duration::from_millis(config.acquire_timeout_ms))
        .idle_timeout(Duration::from_millis(config.idle_timeout_ms))
        .max_lifetime(Duration::from_millis(config.lifetime_max_ms))
        // Where a connection was used a moment ago, that would be a round trip for nothing: BEGIN finds out as well, or the one statement.
        .test_before_acquire(false)
        .before_acquire(move |connection, about| {
            let usable = health.may_use(about.age);
            Box::pin(async move { Ok(usable && is_there(connection, &about).await?) })
        })
        .connect_lazy_with(options)
}

async fn is_there(connection: &mut PgConnection, about: &PoolConnectionMetadata) -> Result<bool, sqlx::Error> {
    if about.idle_for <= TRUSTED_IDLE {
        return Ok(true);
    }
    let answered = timeout(TRIFLE, connection.ping()).await;
    answered.map_err(|_| sqlx::Error::PoolTimedOut)??;
    Ok(true)
}
