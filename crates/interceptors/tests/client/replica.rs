//! Replicas of a peer: real servers on one port of several loopback addresses, which say how they are, and can be stopped and killed.

use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use http::{Request, Response};
use souk_interceptors::client::{Channel, ClientConfig, Lookup, connect_with};
use souk_runtime::Kernel;
use souk_runtime::server::{ServerConfig, bind, serve};
use tonic::Status;
use tonic::body::Body;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::{Service, ServiceExt, service_fn};

use crate::peer::kernel;
use crate::probe::{METHODS, Probe};

/// One server.
pub(crate) struct Replica {
    pub(crate) address: SocketAddr,
    kernel: Kernel,
    health: HealthReporter,
    served: Arc<AtomicUsize>,
}

impl Replica {
    /// A replica that answers well.
    pub(crate) async fn start(address: SocketAddr) -> Self {
        Self::answering(address, |_| Ok(Bytes::new())).await
    }

    /// A replica that answers calls so, by their number from 0.
    pub(crate) async fn answering(
        address: SocketAddr,
        answer: impl Fn(usize) -> Result<Bytes, Status> + Send + Sync + 'static,
    ) -> Self {
        let config = ServerConfig { drain_timeout_ms: 20_000, ..ServerConfig::default() };
        Self::start_with(address, &config, answer).await
    }

    /// A replica that says that it is well, and never answers a call.
    pub(crate) async fn silent(address: SocketAddr) -> Self {
        let served = Arc::<AtomicUsize>::default();
        let count = served.clone();
        let silence = move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            futures::future::pending()
        };
        Self::serving(address, &ServerConfig::default(), Probe::echo().answering(silence), served).await
    }

    /// The same, under other settings.
    pub(crate) async fn start_with(
        address: SocketAddr,
        config: &ServerConfig,
        answer: impl Fn(usize) -> Result<Bytes, Status> + Send + Sync + 'static,
    ) -> Self {
        let served = Arc::<AtomicUsize>::default();
        Self::serving(address, config, counting(served.clone(), answer), served).await
    }

    async fn serving(address: SocketAddr, config: &ServerConfig, probe: Probe, served: Arc<AtomicUsize>) -> Self {
        let kernel = kernel();
        let (service, health) = service(probe).await;
        let listener = bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        serve(&kernel, "replica", listener, config, service).unwrap();
        Self { address, kernel, health, served }
    }

    /// Replicas of one port at 127.0.0.1, 127.0.0.2 and so on.
    pub(crate) async fn start_all<const N: usize>() -> [Self; N] {
        let first = Self::start(([127, 0, 0, 1], 0).into()).await;
        let port = first.address.port();
        let mut all = vec![first];
        for nth in 1..N {
            all.push(Self::start(at(nth, port)).await);
        }
        all.try_into().ok().unwrap()
    }

    /// Calls that it has had.
    pub(crate) fn served(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }

    /// Connections that it has ended, for their age.
    pub(crate) fn aged(&self) -> u32 {
        let text = self.kernel.metrics.encode();
        let ended = text.lines().filter(|line| line.starts_with("grpc_server_connections_ended_total{"));
        let ended = ended.filter(|line| line.contains("=\"age\"") || line.contains("=\"cut\""));
        ended.map(|line| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap()).sum()
    }

    /// Tells who watches.
    pub(crate) async fn says(&self, status: ServingStatus) {
        self.health.set_service_status("", status).await;
    }

    /// Ends as a server does: says so, then closes in peace. Answers when it is gone.
    pub(crate) async fn stop(self) {
        self.says(ServingStatus::NotServing).await;
        self.kill().await;
    }

    /// Goes away without a word before.
    pub(crate) async fn kill(mut self) {
        self.health.clear_service_status("").await; // ends the watches
        assert!(self.kernel.tasks.stop(Duration::from_secs(20)).await);
    }
}

/// The nth loopback address from 0.
pub(crate) fn at(nth: usize, port: u16) -> SocketAddr {
    ([127, 0, 0, 1 + u8::try_from(nth).unwrap()], port).into()
}

/// Answers calls by their number, and counts them.
pub(crate) fn counting(
    served: Arc<AtomicUsize>,
    answer: impl Fn(usize) -> Result<Bytes, Status> + Send + Sync + 'static,
) -> Probe {
    Probe::echo().answering(move |_| ready(answer(served.fetch_add(1, Ordering::Relaxed))))
}

/// What a replica serves: calls, and its health.
pub(crate) async fn service(
    probe: Probe,
) -> (
    impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + Sync,
    HealthReporter,
) {
    let (health, watched) = tonic_health::server::health_reporter();
    health.set_service_status("", ServingStatus::Serving).await;
    let stream = |_| {
        let endless = futures::stream::once(ready(Ok(Bytes::new()))).chain(futures::stream::pending());
        ready(Ok(endless.boxed()))
    };
    let probe = probe.streaming(stream);
    let both = service_fn(move |request: Request<Body>| {
        let (probe, watched) = (probe.clone(), watched.clone());
        async move {
            if request.uri().path().starts_with("/grpc.health.v1.") {
                return watched.oneshot(request).await;
            }
            probe.oneshot(request).await
        }
    });
    (both, health)
}

/// A name whose addresses the test says.
#[derive(Clone)]
pub(crate) struct Name {
    answer: Arc<Mutex<Result<Vec<SocketAddr>, io::ErrorKind>>>,
    pub(crate) asked: Arc<AtomicUsize>,
}

impl Name {
    pub(crate) fn of(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self { answer: Arc::new(Mutex::new(Ok(addresses.into_iter().collect()))), asked: Arc::default() }
    }

    pub(crate) fn becomes(&self, answer: Result<Vec<SocketAddr>, io::ErrorKind>) {
        *self.answer.lock().unwrap() = answer;
    }

    fn lookup(&self) -> Lookup {
        let name = self.clone();
        Arc::new(move |host, _| {
            assert_eq!(host, "replicas");
            name.asked.fetch_add(1, Ordering::Relaxed);
            ready(name.answer.lock().unwrap().clone().map_err(io::Error::from)).boxed()
        })
    }

    /// A client of the name.
    pub(crate) fn client(&self, amend: impl FnOnce(&mut ClientConfig)) -> Client {
        let mut config = ClientConfig {
            addresses: vec!["http://replicas:1".to_owned()],
            resolve_interval_ms: 100,
            connect_timeout_ms: 20_000, // a busy machine is no failure
            timeout_ms: 60_000,
            backoff_ms: 0,
            ..ClientConfig::default()
        };
        amend(&mut config);
        Client::of(&config, self.lookup())
    }
}

/// A client, and what it measures.
pub(crate) struct Client {
    kernel: Kernel,
    pub(crate) channel: Channel,
}

impl Client {
    pub(crate) fn of(config: &ClientConfig, lookup: Lookup) -> Self {
        let kernel = kernel();
        let channel = connect_with(&kernel, "peer", config, &[&METHODS], None, lookup).unwrap();
        Self { kernel, channel }
    }

    /// A metric of this peer, as `ejections_total` or `addresses` with `,state="healthy"`.
    pub(crate) fn metric(&self, name: &str, label: &str) -> i64 {
        let line = format!("grpc_client_{name}{{peer=\"peer\"{label}}} ");
        let text = self.kernel.metrics.encode();
        text.lines().find_map(|found| found.strip_prefix(&line)).map_or(0, |value| value.parse().unwrap())
    }

    /// Time goes on, and changed files are seen.
    pub(crate) fn later(&self) {
        self.kernel.clock.advance(Duration::from_secs(10));
    }

    /// Whether the files of certificates that lie there cannot be used.
    pub(crate) fn has_unusable_files(&self) -> bool {
        self.kernel.metrics.encode().contains("tls_files_unusable{of=\"peer client\"} 1")
    }

    /// Why the peer is not ready, as operators are told.
    pub(crate) fn is_missing(&self) -> Option<String> {
        self.kernel.readiness.dependencies()["peer.peer"].why.clone()
    }

    pub(crate) fn healthy(&self) -> i64 {
        self.metric("addresses", ",state=\"healthy\"")
    }
}
