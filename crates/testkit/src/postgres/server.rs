//! A PostgreSQL server of one test: as durable as in production, to be stopped, killed and started again.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Child;

use super::{connect, new_database_at, program};
use crate::{PATIENCE, free_port};

/// See the module. It ends with its value.
#[derive(Debug)]
pub struct Server {
    folder: TempDir,
    port: u16,
    child: Option<Child>,
}

impl Server {
    /// Makes an empty one and starts it.
    pub async fn start() -> Self {
        // Its own user must reach the data, so they cannot lie in a folder of somebody's home.
        let folder = TempDir::with_prefix("souk-postgres-").expect("a temporary folder");
        if is_root() {
            run("chown", &[id_of_its_user("-u").as_ref(), folder.path().as_os_str()]);
        }
        let mut server = Self { port: free_port(), folder, child: None };
        let mut initdb = as_its_user(&program("initdb"));
        initdb.args(["-U", "souk", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "-D"]);
        let made = initdb.arg(server.data()).stdout(Stdio::null()).status().expect("initdb runs");
        assert!(made.success(), "initdb failed: {made}");
        server.resume().await;
        server
    }

    /// The URL of a new, empty database.
    pub async fn new_database(&self) -> String {
        new_database_at(&self.url()).await
    }

    /// Starts it again on what it has, and waits until it answers.
    pub async fn resume(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let log = File::options().create(true).append(true).open(self.folder.path().join("log"));
        let mut command = as_its_user(&program("postgres"));
        command.args([
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "unix_socket_directories=",
            "-c",
            "max_connections=200",
        ]);
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.expect("a log file can be made"));
        let mut command = tokio::process::Command::from(command);
        self.child = Some(command.kill_on_drop(true).spawn().expect("postgres runs"));
        drop(connect(&format!("{}/postgres", self.url())).await);
    }

    /// Stops it in order; whoever is connected is cut off.
    pub async fn stop(&mut self) {
        self.end("-INT").await;
    }

    /// Ends it without a word, as a crash would. What was acknowledged is in its log.
    pub async fn kill(&mut self) {
        self.end("-QUIT").await;
    }

    /// It stays connected and says nothing, until [`wake`](Self::wake): as when a network or a disk hangs.
    pub fn freeze(&self) {
        self.signal_all("-STOP");
    }

    /// It goes on where [`freeze`](Self::freeze) has stopped it.
    pub fn wake(&self) {
        self.signal_all("-CONT");
    }

    fn url(&self) -> String {
        format!("postgres://souk@127.0.0.1:{}", self.port)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    async fn end(&mut self, signal: &str) {
        let mut child = self.child.take().expect("it runs");
        let id = child.id().expect("it has an id");
        run("kill", &[signal.as_ref(), id.to_string().as_ref()]);
        tokio::time::timeout(PATIENCE, child.wait()).await.expect("it ends").expect("a child can be waited for");
        // Its children may need a moment more.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    /// The server's process and those of its connections.
    fn signal_all(&self, signal: &str) {
        let id = self.child.as_ref().and_then(Child::id).expect("it runs").to_string();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("Linux knows its children");
        let all = std::iter::once(id.as_str()).chain(children.split_whitespace());
        let arguments: Vec<&OsStr> = std::iter::once(signal).chain(all).map(OsStr::new).collect();
        run("kill", &arguments);
    }
}

/// PostgreSQL does not run as root.
fn as_its_user(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    let (user, group) = (id_of_its_user("-u"), id_of_its_user("-g"));
    command.args([format!("--reuid={user}"), format!("--regid={group}"), "--clear-groups".to_owned()]).arg(program);
    // It may not enter the folder of whoever started the tests.
    command.current_dir("/");
    command
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The number of the user (`-u`) that Debian's package makes, or of nobody, or of its group (`-g`).
fn id_of_its_user(what: &str) -> String {
    let known = ["postgres", "nobody"].into_iter().find_map(|user| {
        let output = Command::new("id").args([what, user]).stderr(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    });
    known.expect("there is a user who is nobody")
}

fn run(program: &str, arguments: &[&OsStr]) {
    let status = Command::new(program).args(arguments).status().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(status.success(), "{program} {arguments:?}: {status}");
}
