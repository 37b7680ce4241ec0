//! Where an order is placed, and killed in the middle of it: the suite's process, or one replica of a cluster's service.

use souk_db::Db;
use souk_proto_order::v1::order_service_client::OrderServiceClient;
use souk_testkit::cluster::{Cluster, ClusterConfig};
use souk_testkit::form::Form;
use souk_testkit::process::{Process, database};
use souk_testkit::shop::{Client, PASSWORD, Person, plain_channel};
use tempfile::TempDir;

/// A product of the demonstration, which a cluster has too.
pub(crate) const SKU: &str = "TEA-GREEN-100G";
/// Beside those of the test.
const SWEEP: (&str, &str) = ("inventory.limits.sweep_interval_ms", "200");

pub(crate) enum Place {
    Suite {
        folder: TempDir,
        /// `None`: it was killed.
        process: Option<Process>,
    },
    Cluster {
        cluster: Box<Cluster>,
        /// The service of which the first replica is to die, and the second to go on.
        dying: Dying,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dying {
    Order,
    Inventory,
}

impl Place {
    /// Somewhere that has Alice and some tea, and dies at `failpoint`.
    pub(crate) async fn start(form: Form, failpoint: &str, settings: &[(&str, &str)]) -> Self {
        match form {
            Form::Suite => {
                let folder = TempDir::with_prefix("souk-crash-").unwrap();
                let process = start_suite(&folder, Some(failpoint), settings);
                Self::Suite { folder, process: Some(process) }
            }
            Form::Cluster => {
                let dying = if failpoint.starts_with("inventory") { Dying::Inventory } else { Dying::Order };
                let settings =
                    settings.iter().chain([&SWEEP]).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
                let config = ClusterConfig { settings: settings.collect(), ..ClusterConfig::default() };
                let mut cluster = Cluster::start_with(ClusterConfig { replicas: [1, 2, 2], ..config }).await;
                cluster.product(SKU, 690, 500).await;
                cluster.customer("alice").await;
                // Alone, so that nobody else does what it is to die of.
                cluster.order.stop(1).await;
                cluster.inventory.stop(1).await;
                let service = if dying == Dying::Order { &mut cluster.order } else { &mut cluster.inventory };
                service.stop(0).await;
                service.start_with(0, Some(failpoint));
                service.ready(0).await;
                Self::Cluster { cluster: Box::new(cluster), dying }
            }
        }
    }

    /// How often the process that dies changes stock before the first order.
    pub(crate) fn stock_changes_before(form: Form) -> usize {
        match form {
            Form::Suite => souk::demo::PRODUCTS.len(),
            Form::Cluster => 0,
        }
    }

    pub(crate) async fn alice(&self) -> Person {
        match self {
            Self::Suite { process, .. } => process.as_ref().unwrap().alice().await,
            Self::Cluster { cluster, .. } => cluster.log_in("alice@example.com", PASSWORD).await,
        }
    }

    /// OrderService of the one process that runs.
    pub(crate) fn orders(&self, person: &Person) -> OrderServiceClient<Client> {
        match self {
            Self::Suite { process, .. } => process.as_ref().unwrap().orders(person),
            Self::Cluster { cluster, dying } => {
                let alive = usize::from(*dying == Dying::Order && !cluster.order.is_running(0));
                let address = cluster.order.addresses()[alive];
                let channel = plain_channel(&[address]);
                cluster.by([channel.clone(), channel.clone(), channel]).orders(Some(person))
            }
        }
    }

    /// Waits for the death that the failpoint brings; whether it came.
    pub(crate) async fn killed(&mut self) -> bool {
        match self {
            Self::Suite { process, .. } => process.take().unwrap().killed(),
            Self::Cluster { cluster, dying: Dying::Order } => cluster.order.killed(0).await,
            Self::Cluster { cluster, dying: Dying::Inventory } => cluster.inventory.killed(0).await,
        }
    }

    /// The same process again, or another replica.
    pub(crate) async fn go_on(&mut self, settings: &[(&str, &str)]) {
        match self {
            Self::Suite { folder, process } => *process = Some(start_suite(folder, None, settings)),
            Self::Cluster { cluster, dying } => {
                let service = if *dying == Dying::Order { &mut cluster.order } else { &mut cluster.inventory };
                service.start(1);
                service.ready(1).await;
            }
        }
    }

    /// The tables of the inventory.
    pub(crate) async fn inventory(&self) -> Db {
        match self {
            Self::Suite { folder, .. } => database(folder.path(), "inventory").await,
            Self::Cluster { cluster, .. } => cluster.inventory.database().await,
        }
    }

    /// The tables of the order service.
    pub(crate) async fn order(&self) -> Db {
        match self {
            Self::Suite { folder, .. } => database(folder.path(), "order").await,
            Self::Cluster { cluster, .. } => cluster.order.database().await,
        }
    }

    pub(crate) async fn stop(self) {
        match self {
            Self::Suite { process, .. } => process.unwrap().stop(),
            Self::Cluster { cluster, .. } => cluster.stop().await,
        }
    }
}

fn start_suite(folder: &TempDir, failpoint: Option<&str>, settings: &[(&str, &str)]) -> Process {
    let flags: Vec<String> = settings.iter().map(|(name, value)| format!("--{name}={value}")).collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    Process::start(env!("CARGO_BIN_EXE_souk"), folder.path(), failpoint, &flags)
}
