//! A server whose process has no files left to open. A test of its own, as the limit is the process's.

use std::fs::File;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use souk_runtime::server::{ServerConfig, bind, serve};
use souk_runtime::{Clock, Kernel};
use tonic::service::Routes;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

#[tokio::test]
async fn without_files_it_waits_and_then_it_is_well_again() {
    let kernel = Kernel::new(Clock::system());
    let (_reporter, health) = tonic_health::server::health_reporter();
    let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    serve(&kernel, "test", listener, &ServerConfig::default(), Routes::new(health).prepare()).unwrap();
    let usual = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..usual }).unwrap();
    let mut hoard: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    hoard.pop(); // one for the client
    let mut client = HealthClient::new(Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy());
    let call = tokio::spawn(async move { client.check(HealthCheckRequest::default()).await });
    let errors = || {
        let text = kernel.metrics.encode();
        let series = "grpc_server_accept_errors_total{server=\"test\"} ";
        text.lines().find_map(|line| line.strip_prefix(series)?.parse::<u64>().ok()).unwrap()
    };
    let waiting = async {
        while errors() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap();
    assert!(!call.is_finished());
    drop(hoard);
    // The connection has waited in the queue.
    tokio::time::timeout(Duration::from_secs(30), call).await.unwrap().unwrap().unwrap();
    assert!(errors() < 100, "it has not asked without a pause");
}
