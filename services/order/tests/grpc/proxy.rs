//! A proxy before the inventory. It passes calls on, except those that it was told to break.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use prost::Message;
use souk_proto_inventory::v1::BatchChangeReservationsRequest;
use souk_proto_inventory::v1::reservation_change::Change;
use souk_runtime::Kernel;
use souk_runtime::server::{ServerConfig, bind, serve};
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tower::{Service, ServiceExt, service_fn};

/// What is to happen to one call.
#[derive(Clone)]
pub(crate) enum Fault {
    /// It does not get there.
    Refuse,
    /// It is answered as if it had broken the inventory.
    Break,
    /// It gets there; its answer does not come back.
    LoseAnswer,
    /// It goes on when the gate is opened.
    HoldRequest(Gate),
    /// Its answer comes back when the gate is opened.
    HoldAnswer(Gate),
}

/// Stops a call until it is opened.
#[derive(Clone)]
pub(crate) struct Gate(Arc<(Semaphore, Semaphore)>);

impl Gate {
    pub(crate) fn new() -> Self {
        Self(Arc::new((Semaphore::new(0), Semaphore::new(0))))
    }

    /// Waits until a call stands before the gate.
    pub(crate) async fn reached(&self) {
        let reached = tokio::time::timeout(crate::PATIENCE, self.0.0.acquire()).await.expect("a call comes");
        reached.unwrap().forget();
    }

    /// Lets a call pass.
    pub(crate) fn open(&self) {
        self.0.1.add_permits(1);
    }

    async fn pass(&self) {
        self.0.0.add_permits(1);
        self.0.1.acquire().await.unwrap().forget();
    }
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    faults: HashMap<&'static str, VecDeque<Fault>>,
    calls: HashMap<String, usize>,
}

impl Proxy {
    pub(crate) async fn start(kernel: &Kernel, to: SocketAddr) -> Self {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let proxy = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        let channel = Endpoint::from_shared(format!("http://{to}")).unwrap().connect_lazy();
        let passing = proxy.clone();
        let service = service_fn(move |request| {
            let (passing, channel) = (passing.clone(), channel.clone());
            async move { Ok::<_, Infallible>(passing.call(request, channel).await) }
        });
        serve(kernel, "proxy", listener, &ServerConfig::default(), service).unwrap();
        proxy
    }

    /// The next calls of the method each get one of these.
    pub(crate) fn break_next(&self, method: &'static str, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().unwrap().faults.entry(method).or_default().extend(faults);
    }

    /// Calls of the method that came until now.
    pub(crate) fn calls(&self, method: &str) -> usize {
        self.state.lock().unwrap().calls.get(method).copied().unwrap_or(0)
    }

    async fn call(&self, request: Request<Body>, channel: Channel) -> Response<Body> {
        let (method, request) = named(request).await;
        let fault = {
            let mut state = self.state.lock().unwrap();
            *state.calls.entry(method.clone()).or_default() += 1;
            state.faults.get_mut(method.as_str()).and_then(VecDeque::pop_front)
        };
        match fault {
            None => pass_on(request, channel).await,
            Some(Fault::Refuse) => Status::unavailable("planted").into_http(),
            Some(Fault::Break) => Status::internal("planted").into_http(),
            Some(Fault::LoseAnswer) => {
                drop(pass_on(request, channel).await);
                Status::unavailable("planted").into_http()
            }
            Some(Fault::HoldRequest(gate)) => {
                gate.pass().await;
                pass_on(request, channel).await
            }
            Some(Fault::HoldAnswer(gate)) => {
                let response = pass_on(request, channel).await;
                gate.pass().await;
                response
            }
        }
    }
}

/// The method of a call. A batch is named by what its change does, if there is one; if there are more, as it is.
async fn named(request: Request<Body>) -> (String, Request<Body>) {
    let method = request.uri().path().rsplit('/').next().unwrap().to_owned();
    if method != "BatchChangeReservations" {
        return (method, request);
    }
    let (parts, body) = request.into_parts();
    let sent = body.collect().await.unwrap().to_bytes();
    let batch = BatchChangeReservationsRequest::decode(&sent[FRAME_BYTES..]).unwrap();
    let method = match &batch.changes[..] {
        [change] => match change.change.as_ref().unwrap() {
            Change::Reserve(_) => "Reserve",
            Change::Commit(_) => "Commit",
            Change::Release(_) => "Release",
        },
        _ => &method,
    }
    .to_owned();
    let body = Body::new(Full::new(sent).map_err(|impossible| match impossible {}));
    (method, Request::from_parts(parts, body))
}

/// What stands before a message of gRPC.
const FRAME_BYTES: usize = 5;

async fn pass_on(request: Request<Body>, mut channel: Channel) -> Response<Body> {
    channel.ready().await.unwrap().call(request).await.unwrap()
}
