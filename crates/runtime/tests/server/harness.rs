//! A server that says it is well, clients that behave and clients that do not.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, Response};
use souk_runtime::server::{ServerConfig, bind, serve};
use souk_runtime::{Clock, Kernel};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::Service;

/// What takes longer than this does not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Looks again and again until it is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, looking).await.is_ok(), "it never came: {what}");
}

/// Waits for what must come soon.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it must come soon")
}

pub(crate) struct Server {
    pub(crate) kernel: Kernel,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// It serves health: of "" and of "shop".
    pub(crate) async fn start(config: ServerConfig) -> Self {
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_service_status("shop", ServingStatus::Serving).await;
        Self::of(config, Routes::new(health).prepare()).await
    }

    pub(crate) async fn of<S>(config: ServerConfig, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
    {
        let kernel = Kernel::new(Clock::system());
        let listener = bind(config.listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        serve(&kernel, "test", listener, &config, service).unwrap();
        Self { kernel, address }
    }

    /// A client with a connection of its own.
    pub(crate) fn client(&self) -> HealthClient<Channel> {
        HealthClient::new(Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect_lazy())
    }

    /// The value of a series, with its labels; 0 if there is none.
    pub(crate) fn count(&self, series: &str) -> u64 {
        let text = self.kernel.metrics.encode();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')).map(str::to_owned);
        value.map_or(0, |value| value.parse().unwrap())
    }

    pub(crate) fn refused(&self, reason: &str) -> u64 {
        self.count(&format!("grpc_server_connections_refused_total{{server=\"test\",reason=\"{reason}\"}}"))
    }

    pub(crate) fn ended(&self, reason: &str) -> u64 {
        self.count(&format!("grpc_server_connections_ended_total{{server=\"test\",reason=\"{reason}\"}}"))
    }
}

pub(crate) async fn is_well(client: &mut HealthClient<Channel>) {
    soon(client.check(HealthCheckRequest::default())).await.unwrap();
}

/// Clients that speak HTTP/2 byte by byte.
pub(crate) mod rude {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::soon;

    pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    /// A frame: <https://www.rfc-editor.org/rfc/rfc9113#section-4.1>
    pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    pub(crate) fn settings() -> Vec<u8> {
        frame(4, 0, 0, &[])
    }

    /// A connection that has said hello and has been answered; it says no more.
    pub(crate) async fn greeted(address: SocketAddr) -> TcpStream {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(&[PREFACE, &settings()].concat()).await.unwrap();
        let mut header = [0; 9];
        soon(socket.read_exact(&mut header)).await.unwrap();
        assert_eq!(header[3], 4, "a server begins with its settings");
        socket
    }

    /// Sends `begin`, then `again` without end and reads what is answered, until it is cut off.
    pub(crate) async fn flood(address: SocketAddr, begin: &[u8], again: &[u8]) {
        let socket = greeted(address).await;
        let (mut reading, mut writing) = socket.into_split();
        let answers = tokio::spawn(async move { tokio::io::copy(&mut reading, &mut tokio::io::sink()).await });
        let many = again.repeat(64);
        let flooding = async {
            writing.write_all(begin).await?;
            loop {
                writing.write_all(&many).await?;
            }
        };
        let ended: std::io::Result<()> = soon(flooding).await;
        ended.unwrap_err();
        answers.abort();
    }

    /// Whether the other side has closed; what it says first is not looked at.
    pub(crate) async fn is_closed(mut socket: TcpStream) {
        let mut said = Vec::new();
        // Closed, or reset.
        drop(soon(socket.read_to_end(&mut said)).await);
    }
}
