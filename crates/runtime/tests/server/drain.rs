//! The end of a server.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use souk_runtime::server::{About, ServerConfig, bind, serve, with_health_and_reflection};
use souk_runtime::{Clock, Kernel};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::service::Routes;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::harness::{Server, eventually, rude};

#[tokio::test]
async fn at_the_end_a_call_in_flight_is_answered() {
    let kernel = Kernel::new(Clock::system());
    let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (arrived, may_answer) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (arriving, waiting) = (arrived.clone(), may_answer.clone());
    let service = tower::service_fn(move |_| {
        let (arriving, waiting) = (arriving.clone(), waiting.clone());
        async move {
            arriving.add_permits(1);
            waiting.acquire().await.unwrap().forget();
            Ok::<_, Infallible>(Status::not_found("at last").into_http())
        }
    });
    serve(&kernel, "test", listener, &ServerConfig::default(), service).unwrap();
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    let call = tokio::spawn(async move { HealthClient::new(channel).check(HealthCheckRequest::default()).await });
    arrived.acquire().await.unwrap().forget();
    let stopping = tokio::spawn(async move { kernel.tasks.stop(Duration::from_secs(10)).await });
    tokio::task::yield_now().await;
    may_answer.add_permits(1);
    assert_eq!(call.await.unwrap().unwrap_err().message(), "at last");
    assert!(stopping.await.unwrap());
}

#[tokio::test]
async fn at_the_end_open_streams_have_their_time_and_no_more() {
    let kernel = Kernel::new(Clock::system());
    let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("shop", tonic_health::ServingStatus::Serving).await;
    let routes = Routes::new(health).prepare();
    let config = ServerConfig { drain_timeout_ms: 100, ..ServerConfig::default() };
    serve(&kernel, "test", listener, &config, routes).unwrap();
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    let mut client = HealthClient::new(channel);
    let request = || HealthCheckRequest { service: "shop".into() };
    client.check(request()).await.unwrap();
    // A watch never ends by itself: it is cut.
    let mut watch = client.watch(request()).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());
    let began = tokio::time::Instant::now();
    assert!(kernel.tasks.stop(Duration::from_secs(10)).await);
    assert!(began.elapsed() >= Duration::from_millis(100), "{:?}", began.elapsed());
    assert!(watch.message().await.is_err());
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn at_the_end_connections_without_a_call_hold_nothing_up() {
    let server = Server::start(ServerConfig { drain_timeout_ms: 60_000, ..ServerConfig::default() }).await;
    let mut polite = server.client();
    polite.check(HealthCheckRequest::default()).await.unwrap();
    // These never answer the PING that goes with GOAWAY, and one has not even said what it speaks.
    let _rude = (rude::greeted(server.address).await, rude::greeted(server.address).await);
    let _silent = TcpStream::connect(server.address).await.unwrap();
    eventually("all are there", async || server.count("grpc_server_connections{server=\"test\"}") == 4).await;
    let began = tokio::time::Instant::now();
    assert!(server.kernel.tasks.stop(Duration::from_secs(30)).await);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(server.ended("shutdown"), 3);
    assert_eq!(server.count("grpc_server_connections{server=\"test\"}"), 0);
}

#[tokio::test]
async fn who_is_leaving_serves_and_says_that_it_goes() {
    let kernel = Kernel::new(Clock::system());
    let hour = Duration::from_hours(1);
    let about = About { name: "shop", services: &["shop"], descriptors: &[], health_interval: hour };
    let routes = with_health_and_reflection(&kernel, about, Routes::default(), async || true).await.unwrap();
    let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let server = Server { address: listener.local_addr().unwrap(), kernel };
    serve(&server.kernel, "test", listener, &ServerConfig::default(), routes).unwrap();
    let mut client = server.client();
    let mut told = async || client.check(HealthCheckRequest::default()).await.unwrap().into_inner().status();
    eventually("it is well", async || told().await == ServingStatus::Serving && server.kernel.readiness.is_ready())
        .await;
    server.kernel.leave();
    assert!(!server.kernel.readiness.is_ready());
    eventually("it says so", async || told().await == ServingStatus::NotServing).await;
    // Whoever has not heard it yet is served.
    server.client().check(HealthCheckRequest::default()).await.unwrap();
    assert!(server.kernel.tasks.stop(Duration::from_secs(10)).await);
}
