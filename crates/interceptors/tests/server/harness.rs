//! The probe under the whole stack, on a real server, with keys and a clock of the test's own.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use chrono::DateTime;
use futures::{FutureExt, StreamExt};
use souk_interceptors::server::{StackConfig, stack};
use souk_interceptors::token::Verifier;
use souk_proto_common::failure::reason_of;
use souk_proto_common::{Access, Method, Reason, Shape};
use souk_runtime::server::{ServerConfig, bind, serve};
use souk_runtime::{Clock, Kernel};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::keys::{AUDIENCE, ISSUER, Key, claims};
use crate::probe::{self, METHODS, Probe, WATCH, soon};

pub(crate) const MINE: &str = "/probe.v1.Probe/Mine";
pub(crate) const ADMIN: &str = "/probe.v1.Probe/Admin";
/// It is served, and no table has it.
pub(crate) const UNRULED: &str = "/probe.v1.Probe/Unruled";

pub(crate) const UPLOAD: &str = "/probe.v1.Probe/Upload";
pub(crate) const CHAT: &str = "/probe.v1.Probe/Chat";

/// What only some may call, and what streams the other way.
static MORE_METHODS: [Method; 4] = [
    Method { path: MINE, access: Access::SignedIn, shape: Shape::Unary, read_only: true, keyed: false },
    Method { path: ADMIN, access: Access::Scope("probe.admin"), shape: Shape::Unary, read_only: false, keyed: true },
    Method { path: UPLOAD, access: Access::Public, shape: Shape::ClientStream, read_only: true, keyed: false },
    Method { path: CHAT, access: Access::Public, shape: Shape::BidiStream, read_only: true, keyed: false },
];

pub(crate) struct Server {
    pub(crate) kernel: Kernel,
    pub(crate) channel: Channel,
    pub(crate) address: SocketAddr,
    key: Key,
}

impl Server {
    pub(crate) async fn of(probe: Probe) -> Self {
        Self::with(probe, |_| ()).await
    }

    /// Under a stack that is configured by `amend`.
    pub(crate) async fn with(probe: Probe, amend: impl FnOnce(&mut StackConfig)) -> Self {
        Self::on(probe, &[&METHODS, &MORE_METHODS], amend).await
    }

    /// Any routes, under the rules of any tables.
    pub(crate) async fn on<S>(routes: S, methods: &[&'static [Method]], amend: impl FnOnce(&mut StackConfig)) -> Self
    where
        S: tower::Service<
                http::Request<tonic::body::Body>,
                Response = http::Response<tonic::body::Body>,
                Error = std::convert::Infallible,
                Future: Send,
            > + Clone
            + Send
            + Sync
            + 'static,
    {
        crate::logs::prepare();
        let kernel = Kernel::new(Clock::fake(DateTime::from_timestamp(1_800_000_000, 0).unwrap()));
        let mut config = StackConfig::default();
        amend(&mut config);
        let key = Key::new("first", 1);
        let public = key.public();
        let source = Arc::new(move || futures::future::ready(Ok(vec![public.clone()])).boxed());
        let verifier = Verifier::new(kernel.clock.clone(), ISSUER, AUDIENCE, source);
        let stack = stack(&kernel, methods, verifier, &config, routes);
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        serve(&kernel, "probe", listener, &ServerConfig::default(), stack).unwrap();
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        Self { kernel, channel, address, key }
    }

    pub(crate) async fn call(&self, path: &'static str, request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
        probe::call(self.channel.clone(), path, request).await
    }

    pub(crate) async fn watch(&self) -> Result<Streaming<Bytes>, Status> {
        probe::watch(self.channel.clone(), WATCH, probe::message()).await
    }

    /// All that comes back for an empty message by gRPC-Web, from a client that has no timer of its own.
    pub(crate) async fn answer_within(&self, path: &str, grpc_timeout: &str) -> String {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nhost: probe\r\nconnection: close\r\ncontent-length: 5\r\n");
        let headers = format!("content-type: application/grpc-web\r\ngrpc-timeout: {grpc_timeout}\r\n\r\n");
        socket.write_all(&[head.as_bytes(), headers.as_bytes(), &[0; 5]].concat()).await.unwrap();
        let mut answer = Vec::new();
        soon(socket.read_to_end(&mut answer)).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A message with a token of `subject`.
    pub(crate) fn signed(&self, subject: &str, scopes: &str) -> Request<Bytes> {
        with_header("authorization", &format!("Bearer {}", self.token(subject, scopes)))
    }

    pub(crate) fn token(&self, subject: &str, scopes: &str) -> String {
        self.key.sign(&claims(subject, scopes, self.kernel.clock.now()))
    }

    /// The value of a counter: `grpc_server_panics_total`, with its labels if it has any.
    pub(crate) fn count(&self, series: &str) -> u64 {
        let text = self.kernel.metrics.encode();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {series} in {text}")).parse().unwrap()
    }
}

/// A message under a header.
pub(crate) fn with_header(name: &'static str, value: &str) -> Request<Bytes> {
    let mut request = probe::message();
    request.metadata_mut().insert(name, value.parse().unwrap());
    request
}

/// Code and reason, as the table of errors has them.
#[track_caller]
pub(crate) fn assert_refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, reason: Reason) -> Status {
    let status = result.expect_err("must be refused");
    assert_eq!((status.code(), reason_of(&status)), (code, Some(reason)), "{status:?}");
    status
}

/// A probe whose calls wait for the test's answer. The sender of a call that is dropped is closed.
pub(crate) fn held() -> (Probe, UnboundedReceiver<oneshot::Sender<Result<Bytes, Status>>>) {
    let (arrived, calls) = mpsc::unbounded_channel();
    let probe = Probe::echo().answering(move |_| {
        let (answer, answered) = oneshot::channel();
        arrived.send(answer).unwrap();
        async { answered.await.unwrap() }
    });
    (probe, calls)
}

/// The sender of each stream, in the order of their beginnings.
type Feeds = UnboundedReceiver<UnboundedSender<Result<Bytes, Status>>>;

/// A probe whose streams the test feeds. The sender of a stream that is dropped is closed.
pub(crate) fn fed() -> (Probe, Feeds) {
    fed_through(|answer| answer)
}

/// The same, and each answer goes through `map` on its way out.
pub(crate) fn fed_through(map: fn(Bytes) -> Bytes) -> (Probe, Feeds) {
    let (arrived, streams) = mpsc::unbounded_channel();
    let probe = Probe::echo().streaming(move |_| {
        let (feed, answers) = mpsc::unbounded_channel::<Result<Bytes, Status>>();
        arrived.send(feed).unwrap();
        async move { Ok(UnboundedReceiverStream::new(answers).map(move |answer| answer.map(map)).boxed()) }
    });
    (probe, streams)
}
