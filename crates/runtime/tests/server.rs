//! The gRPC and admin servers over real sockets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use souk_runtime::server::{ServerConfig, bind, serve};
use souk_runtime::{Check, Clock, Kernel, admin};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn readiness_is_red_until_every_check_is_well_and_liveness_is_green_all_along() {
    let kernel = Kernel::new(Clock::system());
    let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    admin::serve(&kernel, listener);
    assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 503"));
    assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    kernel.readiness.set("database", Check::NotReady("no answer".into()));
    let red = get(address, "/readyz").await;
    assert!(red.starts_with("HTTP/1.1 503") && red.contains("no answer"), "{red}");
    kernel.readiness.set("database", Check::Ready);
    assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(get(address, "/metrics").await.contains("background_panics"));
    assert!(kernel.tasks.stop(Duration::from_secs(10)).await);
}

/// A client may send each small message of a long stream in a frame of its own, faster than we read them.
#[tokio::test]
async fn a_flood_of_small_frames_waits_until_it_is_read() {
    const FRAMES: usize = 20_000;
    let kernel = Kernel::new(Clock::system());
    let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let may_read = Arc::new(Semaphore::new(0));
    let waiting = may_read.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let waiting = waiting.clone();
        async move {
            waiting.acquire().await.unwrap().forget();
            let bytes = request.into_body().collect().await.unwrap().to_bytes().len();
            Ok::<_, Infallible>(Status::not_found(bytes.to_string()).into_http())
        }
    });
    serve(&kernel, "test", listener, &ServerConfig::default(), service).unwrap();
    let (mut client, connection) = h2::client::handshake(TcpStream::connect(address).await.unwrap()).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("http://souk/any").header("content-type", "application/grpc").body(()).unwrap();
    let (response, mut stream) = client.send_request(request, false).unwrap();
    let frame = Bytes::from_static(&[7; 30]);
    for sent in 0..FRAMES {
        stream.reserve_capacity(frame.len());
        while stream.capacity() < frame.len() {
            may_read.add_permits(1); // what we send now is more than is kept for the service
            poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
        }
        stream.send_data(frame.clone(), sent + 1 == FRAMES).unwrap();
    }
    let answer = response.await.unwrap();
    assert_eq!(answer.headers()["grpc-message"], (FRAMES * frame.len()).to_string());
}

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
