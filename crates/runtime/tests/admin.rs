//! The admin server over real sockets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use souk_runtime::admin::{self, AdminConfig};
use souk_runtime::server::bind;
use souk_runtime::{Call, Check, Clock, Kernel};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

async fn serve(kernel: &Kernel, config: AdminConfig) -> SocketAddr {
    let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    admin::serve(kernel, listener, &config);
    address
}

async fn with_debug(kernel: &Kernel) -> SocketAddr {
    serve(kernel, AdminConfig { debug: true, ..AdminConfig::default() }).await
}

/// The status and the body.
async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

async fn get_json(address: SocketAddr, path: &str) -> (u16, Value) {
    let (status, body) = get(address, path).await;
    (status, serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn readiness_is_red_until_every_check_is_well_and_liveness_is_green_all_along() {
    let kernel = Kernel::new(Clock::system());
    let address = serve(&kernel, AdminConfig::default()).await;
    assert_eq!(get(address, "/readyz").await.0, 503);
    assert_eq!(get(address, "/healthz").await.0, 200);
    kernel.readiness.set("order.database", Check::NotReady("no answer".into()));
    let (status, red) = get_json(address, "/readyz").await;
    assert_eq!((status, &red["state"]), (503, &"not_ready".into()));
    assert_eq!(red["dependencies"]["order.database"]["why"], "no answer");
    kernel.readiness.set("order.database", Check::Ready);
    assert_eq!(get(address, "/readyz").await.0, 200);
    assert!(get(address, "/metrics").await.1.contains("background_panics"));
}

#[tokio::test]
async fn a_bus_that_is_down_is_told_and_takes_nobody_out_of_rotation() {
    let kernel = Kernel::new(Clock::fake(chrono::DateTime::from_timestamp_micros(0).unwrap()));
    let address = serve(&kernel, AdminConfig::default()).await;
    kernel.readiness.set("order.database", Check::Ready);
    kernel.clock.advance(Duration::from_secs(1));
    kernel.readiness.set_optional("order.bus", Check::NotReady("no answer".into()));
    let expected = serde_json::json!({
        "state": "degraded",
        "ending": false,
        "dependencies": {
            "order.bus": { "state": "degraded", "required": false, "since": "1970-01-01T00:00:01Z", "why": "no answer" },
            "order.database": { "state": "ready", "required": true, "since": "1970-01-01T00:00:00Z" },
        },
    });
    assert_eq!(get_json(address, "/readyz").await, (200, expected));
}

#[tokio::test]
async fn who_ends_is_seen_to_the_last() {
    let kernel = Kernel::new(Clock::system());
    let address = serve(&kernel, AdminConfig::default()).await;
    kernel.readiness.set("order.database", Check::Ready);
    assert_eq!(get(address, "/readyz").await.0, 200);
    assert!(kernel.tasks.stop(Duration::from_secs(10)).await);
    let (status, red) = get_json(address, "/readyz").await;
    assert_eq!((status, &red["state"], &red["ending"]), (503, &"not_ready".into(), &true.into()));
    assert_eq!(get(address, "/healthz").await.0, 200);
    assert_eq!(get(address, "/metrics").await.0, 200);
}

#[tokio::test]
async fn a_request_whose_head_does_not_come_and_an_idle_connection_are_closed() {
    let kernel = Kernel::new(Clock::system());
    let address = serve(&kernel, AdminConfig { header_timeout_ms: 50, ..AdminConfig::default() }).await;
    for begun in ["GET /healthz HTTP/1.1\r\nhost:", "GET /healthz HTTP/1.1\r\nhost: test\r\n\r\n", ""] {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(begun.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut answer)).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn more_connections_wait_and_old_ones_are_closed() {
    let kernel = Kernel::new(Clock::system());
    let config = AdminConfig { connections_max: 1, connection_age_max_ms: 300, ..AdminConfig::default() };
    let address = serve(&kernel, config).await;
    let first = TcpStream::connect(address).await.unwrap();
    assert_eq!(get(address, "/healthz").await.0, 200);
    // The second was served: so the first is closed.
    first.readable().await.unwrap();
    assert!(matches!(first.try_read(&mut [0]), Ok(0)));

    let first = serve_one(AdminConfig::default(), &kernel).await;
    assert_eq!(first.try_read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock, "there is room for both");
}

/// A connection that is open while another is served.
async fn serve_one(config: AdminConfig, kernel: &Kernel) -> TcpStream {
    let address = serve(kernel, config).await;
    let first = TcpStream::connect(address).await.unwrap();
    assert_eq!(get(address, "/healthz").await.0, 200);
    first
}

#[tokio::test]
async fn nothing_is_told_to_debug_unless_it_was_asked_for() {
    let kernel = Kernel::new(Clock::system());
    let address = serve(&kernel, AdminConfig::default()).await;
    for path in ["/debug/tasks", "/debug/profile?seconds=1"] {
        assert_eq!(get(address, path).await.0, 404, "{path}");
    }
    assert!(kernel.calls.enter(|| unreachable!("nobody can see it")).is_none());
}

#[tokio::test]
async fn tasks_and_calls_are_seen() {
    let kernel = Kernel::new(Clock::system());
    let address = with_debug(&kernel).await;
    kernel.tasks.spawn("relay", std::future::pending());
    let call_id = Uuid::from_u128(7);
    let rpc = "/souk.order.v1.OrderService/PlaceOrder";
    let call = kernel.calls.enter(|| Call { rpc, call_id, trace_id: "0af7".into(), peer: None });
    let (_, dump) = get_json(address, "/debug/tasks").await;
    assert_eq!(dump["tasks"][0]["name"], "relay");
    assert_eq!((&dump["calls"][0]["rpc"], &dump["calls"][0]["trace_id"]), (&rpc.into(), &"0af7".into()));
    assert_eq!(dump["calls"][0]["call_id"], call_id.to_string());
    assert!(dump["calls"][0]["age_ms"].is_u64() && dump["tasks"][0]["age_ms"].is_u64(), "{dump}");
    drop(call);
    assert_eq!(get_json(address, "/debug/tasks").await.1["calls"], serde_json::json!([]));
}

#[inline(never)]
fn a_loop_that_is_hot(until: &AtomicBool) -> u64 {
    let mut number = 1_u64;
    while !until.load(Ordering::Relaxed) {
        number = std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
    number
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_shows_what_is_hot_and_there_is_one_at_a_time() {
    let kernel = Kernel::new(Clock::system());
    let address = with_debug(&kernel).await;
    for seconds in ["0", "61", "-1", "ten"] {
        assert_eq!(get(address, &format!("/debug/profile?seconds={seconds}")).await.0, 400, "{seconds}");
    }
    let enough = Arc::new(AtomicBool::new(false));
    let hot = enough.clone();
    let working = tokio::task::spawn_blocking(move || a_loop_that_is_hot(&hot));
    let (one, other) = tokio::join!(get(address, "/debug/profile?seconds=2"), get(address, "/debug/profile?seconds=2"));
    enough.store(true, Ordering::Relaxed);
    working.await.unwrap();
    let (taken, refused) = if one.0 == 200 { (one, other) } else { (other, one) };
    assert_eq!((taken.0, refused.0), (200, 409), "{} {}", taken.1, refused.1);
    assert!(taken.1.contains("<svg") && taken.1.contains("a_loop_that_is_hot"));
}
