//! A Souk of one's own, started for a comparison: its binaries as processes on empty databases that lose nothing, and its end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use souk_db::Db;
use souk_inventory::store::invariants;
use souk_testkit::cluster::{Cluster, ClusterConfig};
use souk_testkit::process::{self, Process};
use tempfile::TempDir;

use crate::cost::Meter;
use crate::souk::{Addresses, Souk, Token};

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
    /// Where its binaries are; none: where this one is.
    pub(crate) binaries: Option<PathBuf>,
    /// Connections of each service to its database.
    pub(crate) pool: u32,
    /// Settings beside those that the benchmark itself makes.
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
    running: Running,
}

enum Running {
    Cluster(Box<Cluster>),
    Process { process: Process, folder: TempDir },
}

impl Rig {
    /// Starts it, empty.
    pub(crate) async fn start(config: &RigConfig) -> anyhow::Result<Self> {
        let own = std::env::current_exe()?;
        let beside = own.parent().context("a program lies in a folder")?;
        let binaries = config.binaries.clone().unwrap_or_else(|| beside.to_owned());
        match config.form {
            Form::Postgres => Self::start_cluster(config, binaries).await,
            Form::Embedded => Self::start_process(config, &binaries).await,
        }
    }

    async fn start_cluster(config: &RigConfig, binaries: PathBuf) -> anyhow::Result<Self> {
        for name in ["user", "order", "inventory"] {
            must_be_there(&binaries.join(format!("souk-{name}")))?;
        }
        // Names of settings are static there; these few live as long as the process.
        let settings = settings(config).into_iter().map(|(name, value)| (&*name.leak(), value)).collect();
        let binaries = Some(binaries);
        let own = ClusterConfig { own_postgres: true, binaries, ..ClusterConfig::default() };
        let cluster = ClusterConfig { replicas: [1, 1, 1], settings, ..own };
        let cluster = Box::new(Box::pin(Cluster::start_with(cluster)).await);
        let services = [&cluster.user, &cluster.order, &cluster.inventory];
        let [user, order, inventory] = services.map(|service| service.addresses()[0].to_string());
        let meters = services.iter().flat_map(|service| service.admins()).map(Meter::Admin).collect();
        let addresses = Addresses { user, order, inventory };
        let souk = Souk::new(&addresses, config.connections, config.timeout)?;
        let souk = souk.with_admin(Token::new(&cluster.admin().token)?);
        Ok(Self { souk, addresses, meters, running: Running::Cluster(cluster) })
    }

    async fn start_process(config: &RigConfig, binaries: &Path) -> anyhow::Result<Self> {
        let binary = binaries.join("souk");
        must_be_there(&binary)?;
        let folder = TempDir::with_prefix("souk-bench-")?;
        let flags: Vec<String> = settings(config).iter().map(|(name, value)| format!("--{name}={value}")).collect();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let process = Process::start(&binary.to_string_lossy(), folder.path(), None, &flags);
        let [user, order, inventory] = process.addresses().map(str::to_owned);
        let addresses = Addresses { user, order, inventory };
        let souk = Souk::new(&addresses, config.connections, config.timeout)?;
        let (email, password) = process.administrator().context("Souk shows no first password")?;
        let (_, admin) = souk.log_in(email, password).await?;
        let meters = vec![Meter::Process(i32::try_from(process.id())?)];
        Ok(Self { souk: souk.with_admin(admin), addresses, meters, running: Running::Process { process, folder } })
    }

    /// What of I1 to I11 does not hold in the inventory's tables.
    pub(crate) async fn violations(&self) -> anyhow::Result<Vec<String>> {
        let db = self.inventory().await;
        let mut tx = db.read().await?;
        let violations = invariants::check(&mut tx).await?;
        drop(tx);
        db.close().await;
        let text = |found: &invariants::Violation| format!("{}, {}: {}", found.invariant, found.rule, found.subject);
        Ok(violations.iter().map(text).collect())
    }

    async fn inventory(&self) -> Db {
        match &self.running {
            Running::Cluster(cluster) => cluster.inventory.database().await,
            Running::Process { folder, .. } => process::database(folder.path(), "inventory").await,
        }
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
    pub(crate) async fn stop(self) {
        match self.running {
            Running::Cluster(cluster) => cluster.stop().await,
            Running::Process { process, folder } => {
                process.stop();
                drop(folder);
            }
        }
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
    let mut settings: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: &str| settings.push((name.to_owned(), value.to_owned()));
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
    settings
}
