//! What the tests of every crate stand on: real databases, made for one test and thrown away. Never part of what ships.

#[cfg(feature = "suite")]
pub mod cluster;
#[cfg(feature = "suite")]
pub mod form;
pub mod http;
#[cfg(feature = "suite")]
pub mod load;
mod nats;
pub mod postgres;
#[cfg(feature = "suite")]
pub mod process;
#[cfg(feature = "grpc")]
pub mod raw;
#[cfg(feature = "suite")]
pub mod shop;
#[cfg(feature = "suite")]
pub mod suite;

pub use nats::{Nats, nats};

use std::future::Future;
use std::net::TcpListener;
use std::ops::Deref;
use std::time::Duration;

use souk_db::{Db, DbConfig, MigrationSet};
use tempfile::TempDir;

/// A database of one test.
#[derive(Debug)]
pub struct TestDatabase {
    db: Db,
    config: DbConfig,
    _folder: Option<TempDir>,
}

impl TestDatabase {
    /// How to open it a second time, as another replica would.
    pub fn config(&self) -> &DbConfig {
        &self.config
    }
}

impl Deref for TestDatabase {
    type Target = Db;

    fn deref(&self) -> &Db {
        &self.db
    }
}

/// An empty SQLite database in a folder of its own.
pub async fn sqlite() -> TestDatabase {
    let folder = TempDir::with_prefix("souk-").expect("a temporary folder");
    let config = DbConfig::at(format!("sqlite://{}", folder.path().join("test.sqlite").display()));
    let db = Db::open(&config).await.expect("SQLite opens");
    TestDatabase { db, config, _folder: Some(folder) }
}

/// An empty database on a real PostgreSQL, which the first test of a run starts.
pub async fn postgres() -> TestDatabase {
    let config = postgres::careless(postgres::new_database().await);
    let db = Db::open(&config).await.expect("PostgreSQL opens");
    TestDatabase { db, config, _folder: None }
}

/// Runs `test` on a migrated database of either engine, SQLite first. What fails says on which.
pub async fn on_both<F: Future<Output = ()>>(migrations: &[&MigrationSet], test: impl Fn(Db) -> F) {
    for database in [sqlite().await, postgres().await] {
        database.migrate(migrations).await.expect("the migrations run");
        println!("on {:?}", database.engine());
        test(database.clone()).await;
    }
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
}

/// What takes longer than this does not come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Looks again and again until it is so.
pub async fn eventually(what: &str, is_so: impl AsyncFnMut() -> bool) {
    within(PATIENCE, what, is_so).await;
}

/// Looks again and again until it is so, for no longer than `limit`.
pub async fn within(limit: Duration, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(limit, looking).await.is_ok(), "not within {limit:?}: {what}");
}
