//! A peer that remembers how it was called, clients of it, and a server that calls it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use futures::{FutureExt, StreamExt, TryFutureExt};
use souk_interceptors::client::{Channel, ClientConfig, ServiceToken, connect};
use souk_interceptors::server::{StackConfig, stack};
use souk_interceptors::token::Verifier;
use souk_interceptors::{OUTCOME, context};
use souk_proto_common::{Failure, Reason};
use souk_runtime::server::{ServerConfig, bind, serve};
use souk_runtime::{Clock, Kernel};
use tonic::metadata::MetadataMap;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Response, Status};

use crate::probe::{self, METHODS, Probe, READ, WATCH};

/// Answers, by the number of the call from 0.
type Answers = Arc<dyn Fn(usize) -> Result<Bytes, Status> + Send + Sync>;

pub(crate) struct Peer {
    pub(crate) kernel: Kernel,
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request<Bytes>>>>,
}

impl Peer {
    /// A peer that answers well.
    pub(crate) async fn start() -> Self {
        Self::answering(|_| Ok(Bytes::new())).await
    }

    /// A peer that answers so, calls as well as streams.
    pub(crate) async fn answering(answer: impl Fn(usize) -> Result<Bytes, Status> + Send + Sync + 'static) -> Self {
        let kernel = kernel();
        let seen: Arc<Mutex<Vec<Request<Bytes>>>> = Arc::default();
        let answer: Answers = Arc::new(answer);
        let next = |seen: Arc<Mutex<Vec<Request<Bytes>>>>, answer: Answers| {
            move |request| {
                let mut seen = seen.lock().unwrap();
                seen.push(request);
                futures::future::ready(answer(seen.len() - 1))
            }
        };
        let probe = Probe::echo().answering(next(seen.clone(), answer.clone()));
        let stream = next(seen.clone(), answer);
        let probe = probe.streaming(move |request| {
            stream(request).map(|answer| answer.map(|answer| futures::stream::iter([Ok(answer)]).boxed()))
        });
        let address = serving(&kernel, probe).await;
        Self { kernel, address, seen }
    }

    /// How often it was called.
    pub(crate) fn calls(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub(crate) fn messages(&self) -> Vec<Bytes> {
        self.seen.lock().unwrap().iter().map(|request| request.get_ref().clone()).collect()
    }

    /// A header of every call.
    pub(crate) fn headers(&self, name: &str) -> Vec<Option<String>> {
        let text = |metadata: &MetadataMap| metadata.get(name).map(|value| value.to_str().unwrap().to_owned());
        self.seen.lock().unwrap().iter().map(|request| text(request.metadata())).collect()
    }

    /// The header of the only call.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> String {
        let [header] = self.headers(name).try_into().unwrap();
        header.unwrap()
    }

    pub(crate) fn client(&self) -> Channel {
        self.client_with(None, |_| ())
    }

    /// A client that pauses before a try only if it is told to.
    pub(crate) fn client_with(&self, token: Option<ServiceToken>, amend: impl FnOnce(&mut ClientConfig)) -> Channel {
        let mut config = ClientConfig { backoff_ms: 0, ..ClientConfig::to(self.address) };
        amend(&mut config);
        connect(&self.kernel, "peer", &config, &[&METHODS], token).unwrap()
    }
}

pub(crate) fn kernel() -> Kernel {
    Kernel::new(Clock::fake(DateTime::from_timestamp(1_800_000_000, 0).unwrap()))
}

/// Serves `service` on a free port.
pub(crate) async fn serving<S>(kernel: &Kernel, service: S) -> SocketAddr
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
    let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    serve(kernel, "peer", listener, &ServerConfig::default(), service).unwrap();
    address
}

/// Calls a server under our stack which, to answer, calls a peer through `downstream`. The answer is its own position in the trace.
pub(crate) async fn call_through(downstream: Channel, request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
    through(move || probe::call(downstream.clone(), READ, probe::message()).map_ok(drop), request).await
}

/// The same, but that it calls for a stream.
pub(crate) async fn watch_through(downstream: Channel, request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
    through(move || probe::watch(downstream.clone(), WATCH, probe::message()).map_ok(drop), request).await
}

async fn through<Called>(
    call: impl Fn() -> Called + Send + Sync + 'static,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, Status>
where
    Called: Future<Output = Result<(), Status>> + Send + 'static,
{
    let kernel = kernel();
    let front = Probe::echo().answering(move |_| {
        let called = call();
        async {
            called.await?;
            Ok(context::current().unwrap().trace.to_string().into())
        }
    });
    let no_keys = Arc::new(|| futures::future::ready(Ok(Vec::new())).boxed());
    let verifier = Verifier::new(kernel.clock.clone(), "nobody", "nobody", no_keys);
    let config = StackConfig { deadline_max_ms: 24 * 3_600_000, ..StackConfig::default() };
    let address = serving(&kernel, stack(&kernel, &[&METHODS], verifier, &config, front)).await;
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    probe::call(channel, READ, request).await
}

/// A status as a Souk server marks it when nothing has taken effect.
pub(crate) fn definite(code: Code) -> Status {
    let mut status = Status::new(code, "planted");
    status.metadata_mut().insert(OUTCOME, "definite".parse().unwrap());
    status
}

/// The same, asking for some peace.
pub(crate) fn come_again_in(delay: Duration) -> Status {
    let mut status: Status = Failure::unavailable(Reason::LoadShed, "planted", delay).into();
    *status.metadata_mut() = definite(Code::Unavailable).metadata().clone();
    status
}
