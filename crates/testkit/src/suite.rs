//! The whole of Souk in the test's process, on free ports, an empty folder and a clock that the test moves.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use souk::{Config, Running};
use souk_db::{Db, DbConfig};
use souk_interceptors::server::RateLimit;
use souk_runtime::{Clock, Kernel};
use tempfile::TempDir;

use crate::shop::plain_channel;
pub use crate::shop::{Bearer, Client, PASSWORD, Person, Shop, new_id, one};

/// The suite.
pub struct Suite {
    /// The process that it runs in.
    pub kernel: Kernel,
    /// Its services.
    pub running: Running,
    shop: Shop,
    folder: Option<TempDir>,
}

impl Deref for Suite {
    type Target = Shop;

    fn deref(&self) -> &Shop {
        &self.shop
    }
}

/// I1 to I11, against the inventory's tables.
pub async fn assert_invariants(inventory: &Db) {
    let mut tx = inventory.read().await.expect("a transaction");
    let violations = souk_inventory::store::invariants::check(&mut tx).await.expect("the invariants are checked");
    assert!(violations.is_empty(), "{violations:?}");
}

impl Suite {
    /// Starts it with an empty folder, at a time in 2026.
    pub async fn start() -> Self {
        let folder = TempDir::with_prefix("souk-").expect("a temporary folder");
        let clock = Clock::fake(DateTime::from_timestamp(1_790_000_000, 0).expect("a time"));
        let mut suite = Self::start_in(folder.path(), clock).await;
        suite.folder = Some(folder);
        suite
    }

    /// Starts it on what is in `folder`.
    pub async fn start_in(folder: &Path, clock: Clock) -> Self {
        Self::start_with(config(folder), clock).await
    }

    /// Starts it as configured.
    pub async fn start_with(config: Config, clock: Clock) -> Self {
        Self::start_on(Kernel::new(clock), config).await
    }

    /// Starts it as configured, in a process of the test's own making.
    pub async fn start_on(kernel: Kernel, config: Config) -> Self {
        let starting = souk::start(kernel.clone(), config, Arc::new(|_| Ok(())));
        let running = Box::pin(starting).await.expect("the suite starts");
        let addresses = [running.user.address, running.order.address, running.inventory.address];
        let mut shop = Shop::new(addresses.map(|address| plain_channel(&[address])));
        if let Some(first) = running.first_administrator() {
            shop.log_in_admin(&first.email, first.password.expose()).await;
        }
        Self { kernel, running, shop, folder: None }
    }

    /// Ends it as SIGTERM would, and hands out its folder.
    pub async fn stop(self) -> Option<TempDir> {
        assert!(self.kernel.tasks.stop(Duration::from_secs(20)).await, "the suite ends in time");
        self.folder
    }

    /// Ends it as SIGTERM would, and starts it on what it has left.
    pub async fn restart(self) -> Self {
        let clock = self.kernel.clock.clone();
        let folder = self.stop().await.expect("a suite with a folder of its own");
        let mut suite = Self::start_in(folder.path(), clock).await;
        suite.folder = Some(folder);
        suite
    }

    /// I1 to I11, against the inventory's tables.
    pub async fn assert_invariants(&self) {
        assert_invariants(&self.running.inventory.app.db).await;
    }
}

/// Free ports, data in `folder`, no limit on logins: a test has one address and many people.
pub fn config(folder: &Path) -> Config {
    let mut config = Config::default();
    let at = |name: &str| DbConfig::at(format!("sqlite://{}", folder.join(name).display()));
    let free = ([127, 0, 0, 1], 0).into();
    config.user.database = at("user.sqlite");
    config.user.server.listen = free;
    config.user.stack.logins = RateLimit { per_second: 0, burst: 0 };
    config.inventory.database = at("inventory.sqlite");
    config.inventory.server.listen = free;
    config.order.database = at("order.sqlite");
    config.order.server.listen = free;
    config
}
