//! The services as a team deploys them: each a process of its own, several replicas of each, on PostgreSQL and NATS. To be killed, stopped
//! and started again, one by one.
//!
//! Each replica has an address of the loopback network of its own, and keeps it: `127.x.y.1` is the first of the user service.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use souk_db::{Db, DbConfig};
use souk_interceptors::client::{self, ClientConfig};
use souk_runtime::Kernel;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::oneshot;

use crate::http::get;
use crate::nats::{Nats, nats};
use crate::shop::{Shop, plain_channel};
use crate::suite::assert_invariants;
use crate::{PATIENCE, postgres, within};

/// What the order service and the user service know each other by.
const SECRET: &str = "a secret between two services of a test";

/// What is started.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Replicas of the user, order and inventory service.
    pub replicas: [usize; 3],
    /// Settings, in place of those of the same name that the cluster itself makes: flag and value. A service takes those that begin with its
    /// name, and those of `process` and `bus`.
    pub settings: Vec<(String, String)>,
    /// On a PostgreSQL of its own, to be stopped: [`Cluster::postgres`].
    pub own_postgres: bool,
    /// The folder of the services' binaries; none: they lie where the test's own does.
    pub binaries: Option<PathBuf>,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self { replicas: [2, 2, 3], settings: Vec::new(), own_postgres: false, binaries: None }
    }
}

/// The services.
pub struct Cluster {
    /// The user service.
    pub user: Service,
    /// The order service.
    pub order: Service,
    /// The inventory service.
    pub inventory: Service,
    /// Where their databases are, if it is theirs alone.
    pub postgres: Option<postgres::Server>,
    /// Their bus.
    pub nats: Nats,
    shop: Shop,
    _folder: TempDir,
}

/// A service and its replicas.
pub struct Service {
    name: &'static str,
    binary: PathBuf,
    arguments: Vec<String>,
    database: DbConfig,
    replicas: Vec<Replica>,
}

/// One process of a service.
struct Replica {
    ip: IpAddr,
    port: u16,
    log: PathBuf,
    child: Option<Child>,
}

const ADMIN_PORT: u16 = 9090;

impl Cluster {
    /// Starts all of them, and logs the administrator in.
    pub async fn start() -> Self {
        Self::start_with(ClusterConfig::default()).await
    }

    /// Starts what is configured, on new databases, and logs the administrator in.
    pub async fn start_with(config: ClusterConfig) -> Self {
        let folder = TempDir::with_prefix("souk-cluster-").expect("a temporary folder");
        let postgres = if config.own_postgres { Some(postgres::Server::start().await) } else { None };
        let nats = nats().await;
        let nth = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let service = async |index: u8, name, port| {
            let database = match &postgres {
                Some(server) => DbConfig::at(server.new_database().await),
                None => postgres::careless(postgres::new_database().await),
            };
            let ips = (0..config.replicas[usize::from(index)]).map(|number| loopback(nth, index, number));
            let replicas = ips.enumerate().map(|(number, ip)| Replica {
                ip,
                port,
                log: folder.path().join(format!("{name}-{number}.log")),
                child: None,
            });
            let binary = binary(config.binaries.as_deref(), name);
            Service { name, binary, arguments: Vec::new(), database, replicas: replicas.collect() }
        };
        let mut user = service(0, "user", 50_051).await;
        let mut order = service(1, "order", 50_052).await;
        let mut inventory = service(2, "inventory", 50_053).await;
        // People who stay for a whole campaign.
        let people = [
            ("user.stack.logins.per_second", "0".to_owned()),
            ("user.tokens.access_ms", "3600000".to_owned()),
            ("user.keys.retire_ms", "7200000".to_owned()),
        ];
        let bus = nats.url();
        user.configure(&people, &bus, &config);
        inventory.configure(&[("inventory.user.addresses", user.urls())], &bus, &config);
        let peers = [("order.user.addresses", user.urls()), ("order.inventory.addresses", inventory.urls())];
        order.configure(&peers, &bus, &config);

        // The first of the user service alone: it shows the administrator's password, once.
        let output = user.spawn(0, None);
        let Some((email, password)) = administrator(output).await else {
            panic!("the user service shows no first password:\n{}", user.log(0));
        };
        start_all([&mut user, &mut inventory, &mut order]).await;
        let channels = [&user, &order, &inventory].map(|service| plain_channel(&service.addresses()));
        let mut shop = Shop::new(channels);
        shop.log_in_admin(&email, &password).await;
        Self { user, order, inventory, postgres, nats, shop, _folder: folder }
    }

    /// I1 to I11, against the inventory's tables.
    pub async fn assert_invariants(&self) {
        assert_invariants(&self.inventory.database().await).await;
    }

    /// Callers who balance over all replicas, and try again what can be tried again, as our own services do.
    pub fn by_balancing_clients(&self, kernel: &Kernel) -> Shop {
        let channel = |peer, service: &Service, methods| {
            let addresses = service.addresses().iter().map(|address| format!("http://{address}")).collect();
            let config = ClientConfig { addresses, ..ClientConfig::default() };
            client::connect(kernel, peer, &config, &[methods], None).expect("a channel")
        };
        self.shop.by([
            channel("user", &self.user, souk_proto_user::METHODS),
            channel("order", &self.order, souk_proto_order::METHODS),
            channel("inventory", &self.inventory, souk_proto_inventory::METHODS),
        ])
    }

    /// Ends all that run as SIGTERM would, and starts all on what they have left.
    pub async fn restart(&mut self) {
        self.stop_all().await;
        start_all([&mut self.user, &mut self.inventory, &mut self.order]).await;
    }

    /// Ends all that run as SIGTERM would.
    pub async fn stop(mut self) {
        self.stop_all().await;
    }

    async fn stop_all(&mut self) {
        for service in [&mut self.order, &mut self.inventory, &mut self.user] {
            for replica in 0..service.replicas.len() {
                if service.is_running(replica) {
                    service.stop(replica).await;
                }
            }
        }
    }
}

/// All replicas that do not run yet, at once.
async fn start_all(mut services: [&mut Service; 3]) {
    for service in &mut services {
        for replica in 0..service.replicas.len() {
            service.start(replica);
        }
    }
    for service in services {
        for replica in 0..service.replicas.len() {
            service.ready(replica).await;
        }
    }
}

impl Deref for Cluster {
    type Target = Shop;

    fn deref(&self) -> &Shop {
        &self.shop
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for replica in [&self.user, &self.order, &self.inventory].into_iter().flat_map(|service| &service.replicas)
            {
                replica.show_log();
            }
        }
    }
}

impl Service {
    fn configure(&mut self, own: &[(&str, String)], bus: &str, config: &ClusterConfig) {
        let database = self.database.url.expose().to_owned();
        let mut set = |name: &str, value: &str| {
            if !config.settings.iter().any(|(said, _)| said == name) {
                self.arguments.push(format!("--{name}={value}"));
            }
        };
        set(&format!("{}.database.url", self.name), &database);
        set("bus.url", bus);
        if !self.database.unsafe_allow.is_empty() {
            set(&format!("{}.database.unsafe_allow", self.name), "[fsync, full_page_writes]");
        }
        for (name, value) in own {
            set(name, value);
        }
        let takes = |name: &str| [self.name, "process", "bus"].contains(&name.split('.').next().unwrap_or_default());
        let said = config.settings.iter().filter(|(name, _)| takes(name));
        self.arguments.extend(said.map(|(name, value)| format!("--{name}={value}")));
    }

    /// Starts a replica that does not run; it begins where it was.
    pub fn start(&mut self, replica: usize) {
        self.start_with(replica, None);
    }

    /// Starts a replica that does not run; it kills itself at `failpoint`.
    pub fn start_with(&mut self, replica: usize, failpoint: Option<&str>) {
        if self.replicas[replica].child.is_none() {
            let mut output = self.spawn(replica, failpoint);
            // Somebody must read it.
            tokio::spawn(async move { tokio::io::copy(&mut output, &mut tokio::io::sink()).await });
        }
    }

    fn spawn(&mut self, replica: usize, failpoint: Option<&str>) -> ChildStdout {
        let (name, at) = (self.name, &mut self.replicas[replica]);
        let log = File::options().create(true).append(true).open(&at.log).expect("a log file can be made");
        let mut command = Command::new(&self.binary);
        command
            .arg(format!("--{name}.server.listen={}:{}", at.ip, at.port))
            .arg(format!("--process.admin.listen={}:{ADMIN_PORT}", at.ip))
            .args(&self.arguments)
            .env("SOUK_PROCESS__TELEMETRY__LOG_FORMAT", "json")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true);
        match name {
            "user" => {
                command.env("SOUK_USER__SERVICE_ACCOUNTS__ORDER__SECRET", SECRET);
                command.env("SOUK_USER__SERVICE_ACCOUNTS__ORDER__SCOPES", format!("{:?}", souk::ORDER_SCOPES));
            }
            "order" => {
                command.env("SOUK_ORDER__TOKEN__CLIENT_SECRET", SECRET);
            }
            _ => {}
        }
        if let Some(failpoint) = failpoint {
            command.env("SOUK_FAILPOINT", failpoint);
        }
        let mut child = command.spawn().unwrap_or_else(|error| panic!("souk-{name} does not run: {error}"));
        let output = child.stdout.take().expect("its output is a pipe");
        at.child = Some(child);
        output
    }

    /// Waits until a replica says that it can serve.
    pub async fn ready(&self, replica: usize) {
        let at = &self.replicas[replica];
        within(PATIENCE, &format!("{} {replica} is ready", self.name), async || {
            get(at.admin(), "/readyz").await.is_some_and(|(status, _)| status == 200)
        })
        .await;
    }

    /// Kills a replica by signal 9, whatever it is at.
    pub async fn kill(&mut self, replica: usize) {
        let mut child = self.replicas[replica].child.take().expect("the replica runs");
        child.kill().await.expect("a child can be killed");
    }

    /// Sends a signal to a replica.
    pub fn signal(&self, replica: usize, signal: Signal) {
        let child = self.replicas[replica].child.as_ref().expect("the replica runs");
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw).expect("it has an id");
        kill_process(pid, signal).expect("a child can be signalled");
    }

    /// Ends a replica as an operator would.
    pub async fn stop(&mut self, replica: usize) {
        self.signal(replica, Signal::TERM);
        let status = self.ended(replica).await;
        assert!(status.success(), "{} {replica} ends in order: {status}", self.name);
    }

    /// Waits until a replica has ended.
    pub async fn ended(&mut self, replica: usize) -> ExitStatus {
        let mut child = self.replicas[replica].child.take().expect("the replica runs");
        tokio::time::timeout(PATIENCE, child.wait())
            .await
            .expect("the replica ends")
            .expect("a child can be waited for")
    }

    /// Waits for the death by signal 9 that a failpoint brings; whether it came.
    pub async fn killed(&mut self, replica: usize) -> bool {
        let child = self.replicas[replica].child.as_mut().expect("the replica runs");
        let Ok(status) = tokio::time::timeout(PATIENCE, child.wait()).await else { return false };
        self.replicas[replica].child = None;
        status.expect("a child can be waited for").signal() == Some(9)
    }

    /// Whether a replica was started and not ended.
    pub fn is_running(&self, replica: usize) -> bool {
        self.replicas[replica].child.is_some()
    }

    /// Where the replicas listen, whether they run or not.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.replicas.iter().map(|replica| SocketAddr::new(replica.ip, replica.port)).collect()
    }

    /// Where the admin servers of the replicas listen.
    pub fn admins(&self) -> Vec<SocketAddr> {
        self.replicas.iter().map(Replica::admin).collect()
    }

    /// The addresses, as a setting has them.
    pub fn urls(&self) -> String {
        format!("{:?}", self.addresses().iter().map(|address| format!("http://{address}")).collect::<Vec<_>>())
    }

    /// The tables of the service, beside the replicas that may be running on them.
    pub async fn database(&self) -> Db {
        Db::open(&self.database).await.expect("PostgreSQL opens")
    }

    /// The value of a metric of one replica, summed over its labels; those that a line must contain are `labels`.
    pub async fn metric(&self, replica: usize, name: &str, labels: &[&str]) -> f64 {
        let (_, text) = get(self.replicas[replica].admin(), "/metrics").await.expect("the replica answers");
        let lines = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        let lines = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Everything that a replica has logged so far.
    pub fn log(&self, replica: usize) -> String {
        std::fs::read_to_string(&self.replicas[replica].log).expect("the log can be read")
    }

    /// How many replicas there are.
    pub fn len(&self) -> usize {
        self.replicas.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.replicas.is_empty()
    }
}

impl Replica {
    fn admin(&self) -> SocketAddr {
        SocketAddr::new(self.ip, ADMIN_PORT)
    }

    fn show_log(&self) {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let told = |line: &&str| !line.contains(r#""message":"call""#) || !line.contains(r#""level":"INFO""#);
        let lines: Vec<&str> = text.lines().filter(told).collect();
        println!("-- {}", self.log.file_name().unwrap_or_default().display());
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].iter().for_each(|line| println!("{line}"));
    }
}

/// Of each replica, when a test fails: of all but calls that went well.
const LOG_LINES_SHOWN: usize = 40;

/// Clusters that this process has started so far.
static CLUSTERS: AtomicU8 = AtomicU8::new(0);

/// An address that no other cluster has: the tests of a run are processes of their own, whose ids lie close together.
fn loopback(nth: u8, service: u8, replica: usize) -> IpAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    let replica = u8::try_from(replica).expect("some replicas");
    // Twenty clusters of a process, with four replicas of each of three services.
    Ipv4Addr::new(127, 1 + high % 254, low, 1 + 12 * (nth % 20) + 4 * service + replica).into()
}

/// A service's binary. It lies where that of this test lies, in the folder above, if no folder is named.
fn binary(folder: Option<&Path>, name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own file");
    let beside = test.parent().and_then(Path::parent).expect("a test lies in a folder");
    let binary = folder.unwrap_or(beside).join(format!("souk-{name}"));
    assert!(binary.exists(), "souk-{name} is not built: cargo build --workspace");
    binary
}

/// The administrator's address and password, which are shown once; `None`: they are not.
async fn administrator(output: ChildStdout) -> Option<(String, String)> {
    let (found, shown) = oneshot::channel();
    tokio::spawn(async move {
        let mut lines = BufReader::new(output).lines();
        let mut found = Some(found);
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some(both) = line.strip_prefix("administrator: ").and_then(|both| both.split_once("  password: "))
                && let Some(found) = found.take()
            {
                drop(found.send((both.0.to_owned(), both.1.to_owned())));
            }
        }
    });
    tokio::time::timeout(PATIENCE, shown).await.ok()?.ok()
}
