//! A Souk of one's own, started for a comparison: its binaries as processes on empty databases that lose nothing, and its end.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use souk_db::Db;
use souk_inventory::store::invariants;
use souk_testkit::cluster::{Cluster, ClusterConfig};
use souk_testkit::process::{self, Process};
use tempfile::TempDir;

use crate::cost::Meter;
use crate::souk::{Addresses, Souk, Token, settled};

/// How Souk runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Three processes, on a PostgreSQL that syncs every commit, and NATS.
    Postgres,
    /// One process, on SQLite that syncs every commit.
    Embedded,
}

/// What is started.
#[derive(Clone, Debug)]
pub(crate) struct RigConfig {
    /// How Souk runs.
    pub(crate) form: Form,
    /// Where its binaries are.
    pub(crate) binaries: PathBuf,
    /// Connections of each service to its database.
    pub(crate) pool: u32,
    /// Settings, in place of those of the same name that the benchmark itself makes.
    pub(crate) settings: Vec<(String, String)>,
    /// Connections of the benchmark to each service.
    pub(crate) connections: usize,
    /// The deadline of its calls.
    pub(crate) timeout: Duration,
}

/// See the module. What it has started ends with it.
pub(crate) struct Rig {
    /// Its services, with an administrator.
    pub(crate) souk: Souk,
    /// Where they are.
    pub(crate) addresses: Addresses,
    /// What they cost.
    pub(crate) meters: Vec<Meter>,
    databases: Databases,
    running: Running,
}

/// The databases of its services, beside the services.
struct Databases {
    user: Db,
    order: Db,
    inventory: Db,
}

/// Events that were not published when all else was done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backlog {
    /// How long it took to publish them.
    pub(crate) seconds: f64,
    /// Those that are left, though it was waited for them.
    pub(crate) left: i64,
}

enum Running {
    Cluster(Box<Cluster>),
    Process { process: Process, folder: TempDir },
}

impl Rig {
    /// Starts it, empty.
    pub(crate) async fn start(config: &RigConfig) -> anyhow::Result<Self> {
        // What it is started with is made for tests, which fail by a panic.
        let starting = async {
            match config.form {
                Form::Postgres => Self::start_cluster(config).await,
                Form::Embedded => Self::start_process(config).await,
            }
        };
        let started = Box::pin(AssertUnwindSafe(starting).catch_unwind()).await;
        started.unwrap_or_else(|_| anyhow::bail!("Souk cannot be started: see above"))
    }

    async fn start_cluster(config: &RigConfig) -> anyhow::Result<Self> {
        for name in ["user", "order", "inventory"] {
            must_be_there(&config.binaries.join(format!("souk-{name}")))?;
        }
        let cluster = ClusterConfig {
            replicas: [1, 1, 1],
            settings: settings(config),
            own_postgres: true,
            binaries: Some(config.binaries.clone()),
        };
        let cluster = Box::new(Box::pin(Cluster::start_with(cluster)).await);
        let services = [&cluster.user, &cluster.order, &cluster.inventory];
        let [user, order, inventory] = services.map(|service| service.addresses()[0].to_string());
        let meters = services.iter().flat_map(|service| service.admins()).map(Meter::Admin).collect();
        let addresses = Addresses { user, order, inventory, authority: None };
        let souk = Souk::new(&addresses, config.connections, config.timeout)?;
        let souk = souk.with_admin(Token::new(&cluster.admin().token)?);
        let databases = Databases {
            user: cluster.user.database().await,
            order: cluster.order.database().await,
            inventory: cluster.inventory.database().await,
        };
        Ok(Self { souk, addresses, meters, databases, running: Running::Cluster(cluster) })
    }

    async fn start_process(config: &RigConfig) -> anyhow::Result<Self> {
        let binary = config.binaries.join("souk");
        must_be_there(&binary)?;
        let folder = TempDir::with_prefix("souk-bench-")?;
        let process = Process::start_plain(&binary, folder.path(), &settings(config));
        let [user, order, inventory] = process.addresses().map(str::to_owned);
        let addresses = Addresses { user, order, inventory, authority: None };
        let souk = Souk::new(&addresses, config.connections, config.timeout)?;
        let (email, password) = process.administrator().context("Souk shows no first password")?;
        let (_, admin) = souk.log_in(email, password).await?;
        let meters = vec![Meter::Process(i32::try_from(process.id())?)];
        let database = |service| process::database(folder.path(), service);
        let databases = Databases {
            user: database("user").await,
            order: database("order").await,
            inventory: database("inventory").await,
        };
        let running = Running::Process { process, folder };
        Ok(Self { souk: souk.with_admin(admin), addresses, meters, databases, running })
    }

    /// What of I1 to I11 does not hold in the inventory's tables.
    pub(crate) async fn violations(&self) -> anyhow::Result<Vec<String>> {
        let mut tx = self.databases.inventory.read().await?;
        let violations = invariants::check(&mut tx).await?;
        let text = |found: &invariants::Violation| format!("{}, {}: {}", found.invariant, found.rule, found.subject);
        Ok(violations.iter().map(text).collect())
    }

    /// What the inventory service alone costs.
    pub(crate) fn inventory_meters(&self) -> Vec<Meter> {
        match &self.running {
            Running::Cluster(cluster) => cluster.inventory.admins().into_iter().map(Meter::Admin).collect(),
            Running::Process { .. } => self.meters.clone(),
        }
    }

    /// Ends the inventory service, if it is a process of its own, and starts it on what it has left.
    pub(crate) async fn renew_inventory(&mut self) -> anyhow::Result<()> {
        let Running::Cluster(cluster) = &mut self.running else { return Ok(()) };
        let renewing = async {
            cluster.inventory.stop(0).await;
            cluster.inventory.start(0);
            cluster.inventory.ready(0).await;
        };
        AssertUnwindSafe(renewing).catch_unwind().await.ok().context("the inventory service does not start again")
    }

    /// The inventory's tables.
    pub(crate) fn inventory(&self) -> &Db {
        &self.databases.inventory
    }

    /// Waits until the services have published all their events: what is left of them would burden whoever comes next.
    pub(crate) async fn published(&self) -> anyhow::Result<Backlog> {
        let (left, seconds) = settled(async || self.unpublished().await, |left| *left == 0).await?;
        Ok(Backlog { seconds, left })
    }

    async fn unpublished(&self) -> anyhow::Result<i64> {
        let mut all = 0;
        for db in self.databases.all() {
            let text = "SELECT COUNT(*) FROM outbox WHERE published_at IS NULL";
            let (count,): (i64,) = souk_db::sql(text).fetch_one(&mut db.read().await?).await?;
            all += count;
        }
        Ok(all)
    }

    /// The URL of a new database on the server that the services use.
    pub(crate) async fn new_database(&self) -> anyhow::Result<String> {
        match &self.running {
            Running::Cluster(cluster) => {
                Ok(cluster.postgres.as_ref().context("a server of its own")?.new_database().await)
            }
            Running::Process { .. } => anyhow::bail!("there is no PostgreSQL"),
        }
    }

    /// A folder on the disk that the embedded form writes to.
    pub(crate) fn folder(&self) -> anyhow::Result<&Path> {
        match &self.running {
            Running::Process { folder, .. } => Ok(folder.path()),
            Running::Cluster(_) => anyhow::bail!("there is no folder of one process"),
        }
    }

    /// Ends it in order.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        for db in self.databases.all() {
            db.close().await;
        }
        let stopping = async {
            match self.running {
                Running::Cluster(cluster) => cluster.stop().await,
                Running::Process { process, folder } => {
                    process.stop();
                    drop(folder);
                }
            }
        };
        AssertUnwindSafe(stopping).catch_unwind().await.ok().context("Souk does not end in order: see above")
    }
}

impl Databases {
    fn all(&self) -> [&Db; 3] {
        [&self.user, &self.order, &self.inventory]
    }
}

fn must_be_there(binary: &Path) -> anyhow::Result<()> {
    let build = "cargo build --release --workspace --bins";
    anyhow::ensure!(binary.exists(), "{} is not there: {build}, or --binaries", binary.display());
    Ok(())
}

/// Everything as it ships, but for what a handful of callers on one machine would run into: limits by caller and by address, and tokens that
/// end. The limits are looked up all the same. Calls are not logged one by one; `--set process.telemetry.log=info` does that.
fn settings(config: &RigConfig) -> Vec<(String, String)> {
    let mut settings: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |name: &str, value: &str| drop(settings.insert(name.to_owned(), value.to_owned()));
    set("process.telemetry.log", "warn");
    for service in ["user", "order", "inventory"] {
        for class in ["reads", "writes"] {
            set(&format!("{service}.stack.{class}.per_second"), "1000000");
            set(&format!("{service}.stack.{class}.burst"), "1000000");
        }
        set(&format!("{service}.database.connections_max"), &config.pool.to_string());
    }
    if config.form == Form::Embedded {
        // The cluster of the tests has these of its own.
        set("user.stack.logins.per_second", "0");
        set("user.tokens.access_ms", "3600000");
        set("user.keys.retire_ms", "7200000");
    }
    settings.extend(config.settings.iter().cloned());
    settings.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_is_said_stands_in_place_of_the_benchmarks_own() {
        let own = ("user.tokens.access_ms".to_owned(), "7200000".to_owned());
        let config = RigConfig {
            form: Form::Embedded,
            binaries: PathBuf::new(),
            pool: 8,
            settings: vec![own.clone(), ("order.group.batch_max".to_owned(), "128".to_owned())],
            connections: 1,
            timeout: Duration::from_secs(1),
        };
        let settings = settings(&config);
        assert_eq!(settings.iter().filter(|(name, _)| *name == own.0).collect::<Vec<_>>(), [&own]);
        assert!(settings.contains(&("inventory.database.connections_max".to_owned(), "8".to_owned())));
        assert!(settings.iter().any(|(name, _)| name == "order.group.batch_max"));
    }
}
