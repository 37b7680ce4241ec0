//! A PostgreSQL server of one test: as durable as in production, to be stopped, killed and started again.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use souk_db::DbConfig;
use tempfile::TempDir;
use tokio::process::Child;

use super::{careless, connect, new_database_at, program};
use crate::{PATIENCE, free_port};

/// See the module. It ends with its value.
#[derive(Debug)]
pub struct Server {
    folder: TempDir,
    port: u16,
    settings: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// Makes an empty one and starts it.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Makes an empty one that loses what it has when the machine fails, and starts it.
    pub async fn start_careless() -> Self {
        Self::start_with(&["fsync=off", "full_page_writes=off"]).await
    }

    /// Makes an empty one, and starts it with these settings: `fsync=off`.
    pub async fn start_with(settings: &[&str]) -> Self {
        // Its own user must reach the data, so they cannot lie in a folder of somebody's home.
        let folder = TempDir::with_prefix("souk-postgres-").expect("a temporary folder");
        if is_root() {
            run("chown", &[id_of_its_user("-u").as_ref(), folder.path().as_os_str()]);
        }
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut server = Self { port: free_port(), folder, settings, child: None };
        let mut initdb = as_its_user(&program("initdb"));
        initdb.args(["-U", "souk", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "-D"]);
        let made = initdb.arg(server.data()).stdout(Stdio::null()).status().expect("initdb runs");
        assert!(made.success(), "initdb failed: {made}");
        server.resume().await;
        server
    }

    /// The URL of a new, empty database.
    pub async fn new_database(&self) -> String {
        new_database_at(&self.address("souk")).await
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
        command.args(self.settings.iter().flat_map(|setting| ["-c", setting]));
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.expect("a log file can be made"));
        let mut command = tokio::process::Command::from(command);
        self.child = Some(command.kill_on_drop(true).spawn().expect("postgres runs"));
        drop(connect(&self.url("souk")).await);
    }

    /// Stops it in order; whoever is connected is cut off.
    pub async fn stop(&mut self) {
        self.end("-INT").await;
    }

    /// Kills it with all its processes, as a crash would. What was acknowledged is in its log.
    pub async fn kill(&mut self) {
        self.signal_all("-KILL");
        self.ended().await;
    }

    /// It stays connected and says nothing, until [`wake`](Self::wake): as when a network or a disk hangs.
    pub fn freeze(&self) {
        self.signal_all("-STOP");
    }

    /// It goes on where [`freeze`](Self::freeze) has stopped it.
    pub fn wake(&self) {
        self.signal_all("-CONT");
    }

    /// The URL of its database `postgres`, for a role.
    pub fn url(&self, role: &str) -> String {
        format!("{}/postgres", self.address(role))
    }

    /// How to open its database `postgres`, which may lose what was committed.
    pub fn config(&self) -> DbConfig {
        careless(self.url("souk"))
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes a setting at the next start.
    pub fn set(&mut self, setting: &str) {
        self.settings.push(setting.to_owned());
    }

    /// Puts a file among its data that only the server can read: `pg_hba.conf`, a key.
    pub fn put(&self, name: &str, content: &str) {
        let file = self.data().join(name);
        fs::write(&file, content).expect("the data can be written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("the file is ours");
        if is_root() {
            run("chown", &[id_of_its_user("-u").as_ref(), file.as_os_str()]);
        }
    }

    fn address(&self, role: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}", self.port)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    async fn end(&mut self, signal: &str) {
        let id = self.child.as_ref().and_then(Child::id).expect("it runs");
        run("kill", &[signal.as_ref(), id.to_string().as_ref()]);
        self.ended().await;
    }

    async fn ended(&mut self) {
        let mut child = self.child.take().expect("it runs");
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

/// So long it may take to leave nothing behind.
const LEAVING: Duration = Duration::from_secs(5);

impl Drop for Server {
    /// It gives its shared memory back, for which it must not be killed; what it has on disk is thrown away, so it need not write it.
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let Some(id) = child.id() else { return };
        let told = Command::new("kill").args(["-QUIT", &id.to_string()]).stderr(Stdio::null()).status();
        let began = Instant::now();
        while told.as_ref().is_ok_and(ExitStatus::success)
            && matches!(child.try_wait(), Ok(None))
            && began.elapsed() < LEAVING
        {
            std::thread::sleep(Duration::from_millis(5));
        }
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

/// Makes a certificate authority and a certificate of it for `localhost`: its certificate, the server's, and the server's key, as PEM in
/// `folder`.
pub fn certificate(folder: &Path) -> [PathBuf; 3] {
    let [ca, ca_key, certificate, key, request] =
        ["ca.pem", "ca.key", "server.pem", "server.key", "server.csr"].map(|name| folder.join(name));
    let path = |file: &Path| file.to_str().expect("a path of ours").to_owned();
    let openssl = |args: &[&str]| {
        let done = Command::new("openssl").args(args).stderr(Stdio::null()).stdout(Stdio::null()).status();
        assert!(done.expect("openssl runs").success(), "openssl {args:?}");
    };
    let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let authority =
        ["req", "-x509", "-subj", "/CN=souk test", "-days", "2", "-keyout", &path(&ca_key), "-out", &path(&ca)];
    openssl(&[&authority[..], &new_key[..]].concat());
    let asked = ["req", "-new", "-subj", "/CN=localhost", "-keyout", &path(&key), "-out", &path(&request)];
    openssl(&[&asked[..], &new_key[..]].concat());
    let names = folder.join("names");
    fs::write(&names, "subjectAltName=DNS:localhost").expect("the folder can be written");
    openssl(&[
        "x509",
        "-req",
        "-in",
        &path(&request),
        "-CA",
        &path(&ca),
        "-CAkey",
        &path(&ca_key),
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        &path(&names),
        "-out",
        &path(&certificate),
    ]);
    [ca, certificate, key]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_nobody_needs_any_more_leaves_no_shared_memory() {
        let server = Server::start_careless().await;
        let id = server.child.as_ref().and_then(Child::id).expect("it runs");
        let maps = fs::read_to_string(format!("/proc/{id}/maps")).expect("Linux knows its memory");
        let segments: Vec<&str> =
            maps.lines().filter_map(|line| line.find("/dev/shm/").map(|from| &line[from..])).collect();
        assert!(!segments.is_empty(), "{maps}");
        drop(server);
        assert!(segments.iter().all(|segment| !Path::new(segment).exists()), "{segments:?}");
    }
}
