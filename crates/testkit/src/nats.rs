//! A NATS server with JetStream, of one test: on a port and in a folder of its own. It can be stopped, started again, and robbed of its
//! store.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use crate::free_port;

/// A program of one's own to be used instead.
const OVERRIDE: &str = "SOUK_TEST_NATS";

/// Somebody may have taken the port that was free.
const STARTS_MAX: u32 = 5;

/// See the module. It ends when it is dropped.
#[derive(Debug)]
pub struct Nats {
    port: u16,
    folder: TempDir,
    /// More settings, in the server's own language.
    settings: String,
    child: Mutex<Option<Child>>,
}

/// A server without credentials and without TLS.
pub async fn nats() -> Nats {
    Nats::with(|_| String::new()).await
}

impl Nats {
    /// A server with more settings, in the server's own language; they may name files in the folder that they are given.
    pub async fn with(settings: impl Fn(&Path) -> String) -> Self {
        for _ in 0..STARTS_MAX {
            let folder = TempDir::with_prefix("souk-nats-").expect("a temporary folder");
            let port = free_port();
            let settings = settings(folder.path());
            let nats = Self { port, folder, settings, child: Mutex::default() };
            if nats.try_start().await {
                return nats;
            }
        }
        panic!("nats-server does not start");
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Kills it. What it has on disk stays.
    pub fn stop(&self) {
        if let Some(mut child) = self.lock().take() {
            child.kill().and_then(|()| child.wait()).expect("a child can be killed");
        }
    }

    /// Lets it end in order: what it knows of consumers is on the disk, which it otherwise is a while later.
    fn end(&self) {
        if let Some(mut child) = self.lock().take() {
            let told = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
            assert!(told.is_ok_and(|told| told.success()), "a child can be told to end");
            child.wait().expect("a child ends");
        }
    }

    /// Starts it again, on the same port and what is in its folder.
    pub async fn start(&self) {
        assert!(self.lock().is_none(), "it runs");
        assert!(self.try_start().await, "nats-server does not start again");
    }

    /// Kills it and starts it without anything that it had.
    pub async fn wipe(&self) {
        self.stop();
        fs::remove_dir_all(self.store()).expect("the store can be removed");
        self.start().await;
    }

    /// Kills it, starts it again, and hands out a copy of what it had.
    pub async fn saved(&self) -> TempDir {
        self.stop();
        let copy = TempDir::with_prefix("souk-nats-").expect("a temporary folder");
        copy_folder(&self.store(), &copy.path().join("store"));
        self.start().await;
        copy
    }

    /// Kills it and starts it with what it had then.
    pub async fn restore(&self, saved: &TempDir) {
        self.stop();
        fs::remove_dir_all(self.store()).expect("the store can be removed");
        copy_folder(&saved.path().join("store"), &self.store());
        self.start().await;
    }

    /// Starts it anew with the events that it had then. What consumers have seen it knows as of now: a loss of power may take the end of a
    /// stream and leave the rest.
    pub async fn lose_events_since(&self, saved: &TempDir) {
        self.end();
        let streams = Path::new("jetstream/$G/streams");
        for stream in fs::read_dir(self.store().join(streams)).expect("the store can be read") {
            let events = streams.join(stream.expect("the store can be read").file_name()).join("msgs");
            fs::remove_dir_all(self.store().join(&events)).expect("the store can be removed");
            copy_folder(&saved.path().join("store").join(&events), &self.store().join(&events));
        }
        self.start().await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// Whether it listens; `false`: it has ended.
    async fn try_start(&self) -> bool {
        let file = self.folder.path().join("nats.conf");
        // By itself it offers three quarters of the free disk, and makes no stream that may grow larger: no test is about that.
        let store = format!("jetstream {{ store_dir: \"{}\", max_file_store: 64GB }}\n", self.store().display());
        fs::write(&file, store + &self.settings).expect("the folder can be written");
        let log = File::create(self.folder.path().join("nats.log")).expect("the folder can be written");
        let mut child = Command::new(program())
            .args(["-a", "127.0.0.1", "-p", &self.port.to_string(), "-c"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nats-server runs");
        for _ in 0..3_000 {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                *self.lock() = Some(child);
                return true;
            }
            if let Ok(Some(_)) = child.try_wait() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        child.kill().expect("a child can be killed");
        false
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.stop();
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("a folder can be read") {
        let entry = entry.expect("a folder can be read");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file can be copied");
        }
    }
}

fn program() -> PathBuf {
    if let Some(program) = std::env::var_os(OVERRIDE) {
        return program.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.push("/usr/sbin".into());
    folders.push(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/tools/bin").into());
    folders.into_iter().map(|folder| folder.join("nats-server")).find(|program| program.exists()).unwrap_or_else(|| {
        panic!("nats-server is not installed: the tests need a real one (./scripts/tools installs it), or {OVERRIDE}")
    })
}
