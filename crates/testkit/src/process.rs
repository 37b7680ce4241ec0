//! The real binary of the suite as a process of its own, to be killed and stopped.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use souk_db::{Db, DbConfig};
use souk_proto_order::v1::order_service_client::OrderServiceClient;

use crate::shop::{Client, Person, Shop, plain_channel};

/// So many commands are shown at the start.
const COMMANDS: usize = 3;

/// What a plain start logs, in its folder.
const LOG: &str = "souk.log";

/// The suite, on free ports.
#[derive(Debug)]
pub struct Process {
    child: Child,
    user: String,
    order: String,
    inventory: String,
    administrator: Option<(String, String)>,
    commands: Vec<String>,
}

impl Process {
    /// Starts `binary` with the demonstration's data on what is in `folder`; it kills itself at `failpoint`.
    pub fn start(binary: &str, folder: &Path, failpoint: Option<&str>, settings: &[&str]) -> Self {
        let mut command = Command::new(binary);
        command.args(["--demo", "--inventory.limits.sweep_interval_ms", "200"]).args(settings).stderr(Stdio::null());
        if let Some(failpoint) = failpoint {
            command.env("SOUK_FAILPOINT", failpoint);
        }
        Self::spawn(command, folder)
    }

    /// Starts `binary` on what is in `folder` as it ships, but for these settings: name and value.
    pub fn start_plain(binary: &Path, folder: &Path, settings: &[(String, String)]) -> Self {
        let log = File::create(folder.join(LOG)).expect("a log file can be made");
        let mut command = Command::new(binary);
        command.args(settings.iter().map(|(name, value)| format!("--{name}={value}"))).stderr(log);
        Self::spawn(command, folder)
    }

    fn spawn(mut command: Command, folder: &Path) -> Self {
        command.current_dir(folder).stdout(Stdio::piped());
        for service in ["user", "order", "inventory"] {
            command.args([format!("--{service}.server.listen"), "127.0.0.1:0".to_owned()]);
        }
        command.args(["--process.admin.listen", "127.0.0.1:0"]);
        let mut child = command.spawn().expect("the binary runs");
        let output = child.stdout.take().expect("its output is a pipe");
        let mut lines = BufReader::new(output).lines().map(|line| line.expect("its output is text"));
        let mut administrator = None;
        let line = loop {
            let Some(line) = lines.next() else {
                panic!("Souk does not start:\n{}", fs::read_to_string(folder.join(LOG)).unwrap_or_default());
            };
            if line.starts_with("Souk listens") {
                break line;
            }
            administrator = administrator.or_else(|| first_login(&line));
        };
        let commands = lines.by_ref().filter(|line| line.starts_with("  ")).take(COMMANDS).collect();
        // Somebody must read the rest: a process that cannot show the first password does not start.
        std::thread::spawn(move || lines.for_each(drop));
        let address = |service: &str| {
            let (_, rest) = line.split_once(&format!("{service} ")).expect("it says where it listens");
            rest.split([',', ' ']).next().unwrap_or_default().to_owned()
        };
        let [user, order, inventory] = ["user", "order", "inventory"].map(address);
        Self { child, user, order, inventory, administrator, commands }
    }

    /// Address and password of the administrator, if this start has made one.
    pub fn administrator(&self) -> Option<(&str, &str)> {
        self.administrator.as_ref().map(|(email, password)| (email.as_str(), password.as_str()))
    }

    /// Its number on this machine.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where the user, order and inventory services listen.
    pub fn addresses(&self) -> [&str; 3] {
        [&self.user, &self.order, &self.inventory]
    }

    /// What it shows to be pasted into a shell.
    pub fn commands(&self) -> &[String] {
        &self.commands
    }

    /// Where the order service listens.
    pub fn order_address(&self) -> &str {
        &self.order
    }

    /// The first customer of the demonstration, logged in.
    pub async fn alice(&self) -> Person {
        let (_, email, password) = souk::demo::CUSTOMERS[0];
        self.shop().log_in(email, password).await
    }

    fn shop(&self) -> Shop {
        Shop::new([&self.user, &self.order, &self.inventory].map(|address| plain_channel(&[address])))
    }

    /// OrderService.
    pub fn orders(&self, person: &Person) -> OrderServiceClient<Client> {
        self.shop().orders(Some(person))
    }

    /// Waits for the death that the failpoint brings; whether it came.
    pub fn killed(mut self) -> bool {
        for _ in 0..200 {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status.signal() == Some(9);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
        false
    }

    /// Kills it by signal 9, whatever it is at.
    pub fn kill(mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// Asks it to end, as an operator would.
    pub fn terminate(&self) {
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().expect("kill runs");
        assert!(asked.success());
    }

    /// Waits until it has ended in order.
    pub fn ended(mut self) {
        assert!(self.child.wait().expect("a child can be waited for").success(), "it ends in order");
    }

    /// Ends it as an operator would.
    pub fn stop(self) {
        self.terminate();
        self.ended();
    }
}

impl Drop for Process {
    /// Whoever has lost it has no use for it any more.
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            drop(self.child.kill().and_then(|()| self.child.wait()));
        }
    }
}

/// What the line shows of a first administrator, if it does.
fn first_login(line: &str) -> Option<(String, String)> {
    let (email, password) = line.strip_prefix("The administrator, shown this once: ")?.split_once("  password: ")?;
    Some((email.to_owned(), password.to_owned()))
}

/// The tables of `service` in `folder`, beside the process that may be running on them.
pub async fn database(folder: &Path, service: &str) -> Db {
    let path = folder.join(format!("souk-data/{service}.sqlite"));
    Db::open(&DbConfig::at(format!("sqlite://{}", path.display()))).await.expect("SQLite opens")
}

/// What the order service still owes: steps of orders, and events that were not published.
pub async fn owed(orders: &Db) -> i64 {
    let text = "SELECT (SELECT COUNT(*) FROM saga_steps WHERE state = 'DUE')
                     + (SELECT COUNT(*) FROM outbox WHERE published_at IS NULL)";
    let mut tx = orders.read().await.expect("a transaction");
    let (count,): (i64,) = souk_db::sql(text).fetch_one(&mut tx).await.expect("a count");
    count
}
