//! The whole of Souk in one process, on embedded SQLite and a bus in memory: what `cargo run` starts.
//!
//! All the wiring and nothing else. The services dial each other over loopback, exactly as they do apart: one code path.

pub mod config;
pub mod demo;

use std::time::Duration;

use souk_events::Bus;
use souk_interceptors::client::ClientConfig;
use souk_runtime::{Kernel, Secret};
use souk_user::config::ServiceAccount;
use souk_user::{FirstAdministrator, ShowFirstAdministrator};

pub use config::Config;

/// What the order service may do at the others.
pub const ORDER_SCOPES: [&str; 1] = ["stock.reserve"];

/// The suite, up and running. It ends with the kernel's tasks.
pub struct Running {
    /// The user service.
    pub user: souk_user::Running,
    /// The inventory service.
    pub inventory: souk_inventory::Running,
    /// The order service.
    pub order: souk_order::Running,
    /// What the suite itself can prove itself with, as [`demo::ACCOUNT`].
    pub demo_secret: Secret,
}

impl Running {
    /// The administrator that was created because there was none.
    pub fn first_administrator(&self) -> Option<&FirstAdministrator> {
        self.user.first_administrator.as_ref()
    }
}

/// Starts the three services. Their accounts with each other are made up anew at every start, and are nowhere but in this process. The
/// administrator that the first start creates is shown by `show_first_administrator` before it is stored: the password is nowhere else.
pub async fn start(
    kernel: Kernel,
    config: Config,
    show_first_administrator: ShowFirstAdministrator,
) -> anyhow::Result<Running> {
    let Config { mut user, mut inventory, mut order, bus, process: _ } = config;
    let (peers, orders) = in_order(&kernel);
    let bus = Bus::connect(&kernel, &bus).await?;
    let order_secret = secret(&kernel);
    let demo_secret = secret(&kernel);
    let account = |secret: &Secret, scopes: &[&str]| ServiceAccount {
        secret: secret.clone(),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
    };
    user.service_accounts.insert(order.token.service_name.clone(), account(&order_secret, &ORDER_SCOPES));
    user.service_accounts.insert(demo::ACCOUNT.to_owned(), account(&demo_secret, &demo::SCOPES));
    let user =
        Box::pin(souk_user::start(peers.clone(), user, souk_user::Deps { bus: bus.clone(), show_first_administrator }))
            .await?;

    inventory.user = ClientConfig { addresses: address(user.address), ..inventory.user };
    let inventory =
        Box::pin(souk_inventory::start(peers, inventory, souk_inventory::Deps { bus: bus.clone() })).await?;

    order.user = ClientConfig { addresses: address(user.address), ..order.user };
    order.inventory = ClientConfig { addresses: address(inventory.address), ..order.inventory };
    order.token.client_secret = order_secret;
    let order = Box::pin(souk_order::start(orders, order, souk_order::Deps { bus: bus.clone() })).await?;
    bus.open(); // everybody has subscribed
    Ok(Running { user, inventory, order, demo_secret })
}

/// Brings the three databases to the form that this version needs.
pub async fn migrate(config: &Config) -> anyhow::Result<()> {
    souk_user::migrate(&config.user).await?;
    souk_inventory::migrate(&config.inventory).await?;
    souk_order::migrate(&config.order).await
}

/// The kernels of the order service's peers and of the order service. They end with `kernel`, but one after the other: the calls that the
/// order service still has in flight need its peers to the last.
fn in_order(kernel: &Kernel) -> (Kernel, Kernel) {
    let part = || Kernel { tasks: kernel.tasks.part(), ..kernel.clone() };
    let (peers, orders) = (part(), part());
    let (ending, first, then) = (kernel.tasks.shutdown().clone(), orders.tasks.clone(), peers.tasks.clone());
    // How long the end may take is the business of whoever stops `kernel`.
    kernel.tasks.spawn("end of the services", async move {
        ending.cancelled().await;
        first.stop(Duration::MAX).await;
        then.stop(Duration::MAX).await;
    });
    (peers, orders)
}

fn address(address: std::net::SocketAddr) -> Vec<String> {
    vec![format!("http://{address}")]
}

fn secret(kernel: &Kernel) -> Secret {
    let bytes: [u8; 32] = kernel.ids.random_bytes();
    Secret::new(bytes.map(|byte| format!("{byte:02x}")).concat())
}
