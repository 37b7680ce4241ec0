//! The admin server.

use std::time::Duration;

use souk_runtime::server::bind;
use souk_runtime::{Check, Clock, Kernel, admin};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

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
