//! The binary: what it can be told to do, with what it ends, and what it shows of itself while it serves and while it ends.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use souk_proto_order::v1::WatchOrderRequest;
use souk_proto_order::v1::order_service_client::OrderServiceClient;
use souk_testkit::{eventually, http};
use tempfile::TempDir;

const SECRET: &str = "open sesame";

fn command(folder: &Path, args: &[&str]) -> Command {
    std::fs::write(folder.join("secret"), format!("{SECRET}\n")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_souk-order"));
    command.current_dir(folder).args(args).env("SOUK_ORDER__TOKEN__CLIENT_SECRET_FILE", "secret");
    command.env("SOUK_PROCESS__TELEMETRY__LOG_FORMAT", "json");
    command
}

/// Its exit code, what it showed and what it complained of.
fn run(folder: &Path, args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command(folder, args).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// One that serves; killed when dropped.
struct Serving {
    child: Child,
    admin: SocketAddr,
    grpc: SocketAddr,
}

impl Serving {
    fn start(folder: &Path, args: &[&str]) -> Self {
        let ports = ["--process.admin.listen", "127.0.0.1:0", "--order.server.listen", "127.0.0.1:0"];
        let args: Vec<&str> = args.iter().chain(&ports).chain(&["--bus.url", "memory:"]).copied().collect();
        let mut child = command(folder, &args).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut listens = |who: &str| {
            let said = format!("\"{who} listens\"");
            let line = lines.find(|line| line.contains(&said)).expect("it says where it listens");
            let (_, rest) = line.split_once("\"address\":\"").unwrap();
            rest.split('"').next().unwrap().parse().unwrap()
        };
        let (admin, grpc) = (listens("admin"), listens("order"));
        std::thread::spawn(move || lines.for_each(drop)); // or it would write no more
        Self { child, admin, grpc }
    }

    fn terminate(&self) {
        assert!(Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap().success());
    }

    async fn get(&self, path: &str) -> (u16, String) {
        http::get(self.admin, path).await.unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.child.kill()); // it may have ended
        drop(self.child.wait());
    }
}

#[test]
fn a_command_line_that_makes_no_sense_ends_with_2_and_settings_that_cannot_be_with_1() {
    let folder = TempDir::with_prefix("souk-").unwrap();
    for args in [&["sell"][..], &["migrate", "--nonsense"], &["healthcheck", "--timeout-ms", "0"]] {
        assert_eq!(run(folder.path(), args).0, 2, "{args:?}");
    }
    let (code, _, error) = run(folder.path(), &["migrate", "--order.saga.lease_ms", "0"]);
    assert!(code == 1 && error.contains("order.saga.lease_ms must be "), "{code} {error}");
    let (code, help, _) = run(folder.path(), &["--help"]);
    let told = ["serve", "migrate", "healthcheck", "Examples:", "Exit codes:", "--order.saga.lease_ms"];
    assert!(code == 0 && told.iter().all(|word| help.contains(word)), "{help}");
}

#[test]
fn migrating_makes_the_database_and_ends_and_again_changes_nothing() {
    let folder = TempDir::with_prefix("souk-").unwrap();
    for _ in 0..2 {
        assert_eq!(run(folder.path(), &["migrate"]).0, 0);
        assert!(folder.path().join("souk-data/order.sqlite").exists());
    }
    let nowhere = ["--order.database.url", "postgres://nobody@127.0.0.1:1/none"];
    let soon = ["--order.database.connect_timeout_ms", "100"];
    let (code, _, error) = run(folder.path(), &[&["migrate"][..], &nowhere, &soon].concat());
    assert!(code == 1 && error.contains("error: the orders' database"), "{error}");
}

#[test]
fn it_does_not_serve_before_it_is_told_which_bus() {
    let folder = TempDir::with_prefix("souk-").unwrap();
    let (code, _, error) = run(folder.path(), &["serve"]);
    assert!(code == 1 && error.contains("bus.url must be set: nats://host:port, or memory:"), "{code} {error}");
}

#[test]
fn an_operator_who_lists_changes_no_tables() {
    let folder = TempDir::with_prefix("souk-").unwrap();
    for command in [&["dead-letters", "list"][..], &["events", "republish"]] {
        let (code, _, error) = run(folder.path(), command);
        assert!(code == 1 && error.contains("the orders' database is not migrated"), "{code} {error}");
    }
    assert_eq!(run(folder.path(), &["migrate"]).0, 0);
    assert_eq!(run(folder.path(), &["dead-letters", "list"]), (0, String::new(), String::new()));
    assert_eq!(run(folder.path(), &["events", "republish"]).1, "they will be published again\n");
}

/// As under `| head`.
#[test]
fn a_reader_who_has_seen_enough_is_no_error() {
    let folder = TempDir::with_prefix("souk-").unwrap();
    assert_eq!(run(folder.path(), &["migrate"]).0, 0);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let said = command(folder.path(), &["events", "republish"]).stdout(writer).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

#[test]
fn a_secret_comes_from_a_file_and_is_not_shown() {
    let folder = TempDir::with_prefix("souk-").unwrap();
    let (code, config, _) = run(folder.path(), &["serve", "--print-config"]);
    assert!(code == 0 && config.contains("client_secret = \"********\"") && !config.contains(SECRET), "{config}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_well_as_long_as_it_serves() {
    let folder = TempDir::with_prefix("souk-").unwrap();
    let order = Serving::start(folder.path(), &["serve"]);
    let listen = order.grpc.to_string();
    let asked = ["healthcheck", "--order.server.listen", &listen];
    eventually("it serves", async || run(folder.path(), &asked).0 == 0).await;
    assert_eq!(run(folder.path(), &asked).1, "order: serving\n");
    eventually("it is ready", async || order.get("/readyz").await.0 == 200).await;
    assert!(order.get("/readyz").await.1.contains("\"order.database\":{\"state\":\"ready\""));
    let metrics = order.get("/metrics").await.1;
    for metric in
        ["souk_build_info{service=\"souk-order\"", "process_cpu_seconds_total ", "tokio_workers ", "souk_ready 1"]
    {
        assert!(metrics.contains(metric), "{metric}\n{metrics}");
    }
    assert_eq!(order.get("/debug/tasks").await.0, 404);
    drop(order);
    let (code, shown, error) = run(folder.path(), &asked);
    assert!(code == 1 && shown.is_empty() && error.starts_with("error: order: "), "{shown} {error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

/// A call waits for the keys of tokens, which the user service that is not there does not tell: it is in flight.
#[tokio::test(flavor = "multi_thread")]
async fn while_it_drains_it_is_red_and_tells_what_it_waits_for() {
    let folder = TempDir::with_prefix("souk-").unwrap();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let user = format!("[\"http://{}\"]", silent.local_addr().unwrap());
    let mut order = Serving::start(folder.path(), &["--process.admin.debug", "true", "--order.user.addresses", &user]);
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", order.grpc)).unwrap();
    let mut client = OrderServiceClient::new(endpoint.connect().await.unwrap());
    let call = tokio::spawn(async move {
        let mut request = tonic::Request::new(WatchOrderRequest::default());
        // A token of nobody's: whose it is, only the user service could tell.
        let token = "Bearer eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFZERTQSIsImtpZCI6IjEifQ.eyJzdWIiOiIxIn0.AAAA";
        request.metadata_mut().insert("authorization", token.parse().unwrap());
        client.watch_order(request).await.map(drop)
    });
    let rpc = "/souk.order.v1.OrderService/WatchOrder";
    eventually("it is seen", async || order.get("/debug/tasks").await.1.contains(rpc)).await;
    order.terminate();
    eventually("it is red", async || order.get("/readyz").await.1.contains("\"ending\":true")).await;
    assert_eq!(order.get("/readyz").await.0, 503);
    assert_eq!(order.get("/healthz").await.0, 200);
    assert!(call.await.unwrap().is_err());
    assert!(order.child.wait().unwrap().success());
}
