//! A PostgreSQL server for the tests of a run: started by the first test that needs it, shared by all (nextest runs each in a process of
//! its own), and stopped by itself when none has needed it for some seconds. And servers of one test each, which can be stopped and killed.

mod server;

pub use server::{Server, certificate};

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use souk_db::{DbConfig, Durability};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::free_port;

/// A server of one's own to be used instead: `postgres://user:password@host:port` of a role that may create databases.
const OVERRIDE: &str = "SOUK_TEST_POSTGRES";

/// The URL of a new, empty database.
pub(crate) async fn new_database() -> String {
    new_database_at(&server_url()).await
}

/// How to open a database of a server that forgets everything with its machine, as ours do: nothing is synced there.
pub(crate) fn careless(url: String) -> DbConfig {
    let unsafe_allow = vec![Durability::Fsync, Durability::FullPageWrites];
    DbConfig { unsafe_allow, ..DbConfig::at(url) }
}

async fn new_database_at(server: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let mut connection = connect(&format!("{server}/postgres")).await;
    for statement in [format!("DROP DATABASE IF EXISTS {name}"), format!("CREATE DATABASE {name}")] {
        sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await.expect("a database is made");
    }
    format!("{server}/{name}")
}

/// A server that has just begun to listen refuses for a moment more.
async fn connect(url: &str) -> PgConnection {
    let mut tries_left = 100;
    loop {
        match PgConnection::connect(url).await {
            Ok(connection) => return connection,
            Err(error) if tries_left == 0 => panic!("the test server does not answer: {error}"),
            Err(_) => tries_left -= 1,
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn server_url() -> String {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| std::env::var(OVERRIDE).unwrap_or_else(|_| shared_server())).clone()
}

/// Joins the users of the shared server, and starts it if it does not run.
fn shared_server() -> String {
    /// Held, shared, for as long as this process lives: while anyone holds it, the server stays.
    static USERS: OnceLock<File> = OnceLock::new();

    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/testkit"));
    fs::create_dir_all(&folder).expect("target/testkit can be made");
    let lock = |name: &str| File::create(folder.join(name)).expect("a lock file can be made");
    // One process at a time starts or stops the server.
    let starting = lock("starting.lock");
    starting.lock().expect("the lock can be had");
    let users = lock("users.lock");
    users.lock_shared().expect("the lock can be had");
    USERS.get_or_init(|| users);

    let port_file = folder.join("postgres.port");
    let running =
        fs::read_to_string(&port_file).ok().and_then(|port| port.trim().parse().ok()).filter(|port| answers(*port));
    let port = running.unwrap_or_else(|| start(&folder, &port_file));
    format!("postgres://souk@127.0.0.1:{port}")
}

fn start(folder: &Path, port_file: &Path) -> u16 {
    let initdb = program("initdb");
    let bin = initdb.parent().expect("a program lies in a folder");
    // PostgreSQL's own user must reach the data, so it cannot lie under target/, which may lie in somebody's home.
    let home = std::env::temp_dir().join(format!("souk-testkit-{}", std::process::id()));
    let port = free_port();
    let log = File::create(folder.join("postgres.log")).expect("a log file can be made");
    #[expect(clippy::zombie_processes, reason = "the server is shared: it outlives this test and ends by itself")]
    let mut child = Command::new("setsid")
        .args(["bash", "-c", SERVE, "postgres"])
        .args([bin, &home, folder])
        .arg(port.to_string())
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file can be shared"))
        .stderr(log)
        .spawn()
        .expect("bash and setsid run");
    for _ in 0..600 {
        if answers(port) {
            let mut file = File::create(port_file).expect("target/testkit can be written");
            write!(file, "{port}").expect("target/testkit can be written");
            return port;
        }
        if let Ok(Some(status)) = child.try_wait() {
            panic!("PostgreSQL did not start ({status}): see target/testkit/postgres.log");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("PostgreSQL did not answer within 30 s: see target/testkit/postgres.log");
}

/// Makes the data, serves, and ends when nobody holds `users.lock` any more. The data are thrown away, so nothing is synced.
const SERVE: &str = r#"
bin=$1 home=$2 folder=$3 port=$4
as=""
if [ "$(id -u)" = 0 ]; then
  # PostgreSQL does not run as root.
  user=postgres; id -u postgres >/dev/null 2>&1 || user=nobody
  as="setpriv --reuid=$user --regid=$(id -g $user) --clear-groups"
fi
mkdir -m 700 "$home" && { [ -z "$as" ] || chown $user "$home"; } && cd "$home" || exit 1
trap 'rm -rf "$home"' EXIT
$as "$bin/initdb" -D "$home/data" -U souk -A trust -E UTF8 --locale=C.UTF-8 --no-sync >/dev/null || exit 1
$as "$bin/postgres" -D "$home/data" -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=400 \
  -c fsync=off -c full_page_writes=off -c shared_buffers=64MB &
server=$!
while sleep 5 && kill -0 $server 2>/dev/null; do
  flock "$folder/starting.lock" flock -n -x "$folder/users.lock" sh -c "kill -INT $server; while kill -0 $server 2>/dev/null; do sleep 0.1; done"
done
wait
"#;

fn answers(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// A program of PostgreSQL's.
pub fn program(name: &str) -> PathBuf {
    find_program(name).unwrap_or_else(|| {
        panic!("{name} is not installed: the tests need a real PostgreSQL (./scripts/tools installs it), or {OVERRIDE}")
    })
}

/// A program of PostgreSQL's, if it is installed.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let debian =
        fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|version| version.path().join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = debian.collect();
    folders.sort();
    folders.extend(std::env::split_paths(&path));
    folders.push(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/tools/postgres/bin")));
    folders.into_iter().map(|folder| folder.join(name)).find(|program| program.exists())
}
