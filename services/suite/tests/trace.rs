//! One trace from a customer's call to whatever was done for it, as a collector gets it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use souk_proto_order::v1::CancelOrderRequest;
use souk_runtime::telemetry::{ExportConfig, Telemetry};
use souk_runtime::{Clock, Kernel, TelemetryConfig};
use souk_testkit::eventually;
use souk_testkit::shop::{PASSWORD, Person, new_id, one};
use souk_testkit::suite::{Suite, config};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENTS_SPAN: &str = "b7ad6b7169203331";

/// Keeps what it is sent.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    services: Arc<Mutex<BTreeSet<String>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_resource in request.into_inner().resource_spans {
            let attributes = of_resource.resource.map(|resource| format!("{:?}", resource.attributes));
            self.services.lock().unwrap().extend(attributes);
            self.spans().extend(of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn start() -> (Self, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let collector = Self::default();
        let serving = Server::builder()
            .add_service(TraceServiceServer::new(collector.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(async move { serving.await.unwrap() });
        (collector, address)
    }

    fn spans(&self) -> MutexGuard<'_, Vec<Span>> {
        self.spans.lock().unwrap()
    }

    fn has(&self, kind: SpanKind, name: &str) -> bool {
        self.spans().iter().any(|span| span.kind() == kind && span.name == name)
    }
}

/// The spans of a trace.
struct Trace(Vec<Span>);

impl Trace {
    /// The one span of that kind and name within the one above, which is the client's own if there is none.
    #[track_caller]
    fn child(&self, above: Option<&Span>, kind: SpanKind, name: &str) -> &Span {
        let parent = above.map_or_else(|| bytes(CLIENTS_SPAN), |above| above.span_id.clone());
        let found: Vec<&Span> =
            self.children(&parent).filter(|span| span.kind() == kind && span.name == name).collect();
        let [span] = found[..] else { panic!("{} spans {kind:?} {name} in\n{}", found.len(), self.tree()) };
        span
    }

    fn children(&self, parent: &[u8]) -> impl Iterator<Item = &Span> {
        self.0.iter().filter(move |span| span.parent_span_id == parent)
    }

    /// For people: each span below its parent, with its kind and its time.
    fn tree(&self) -> String {
        let mut text = String::new();
        self.branch(&bytes(CLIENTS_SPAN), 0, &mut text);
        text
    }

    fn branch(&self, parent: &[u8], depth: usize, text: &mut String) {
        let mut children: Vec<&Span> = self.children(parent).collect();
        children.sort_by_key(|span| span.start_time_unix_nano);
        for span in children {
            let micros = (span.end_time_unix_nano - span.start_time_unix_nano) / 1_000;
            let links = if span.links.is_empty() { String::new() } else { format!(" ({} links)", span.links.len()) };
            let kind = span.kind().as_str_name().trim_start_matches("SPAN_KIND_");
            let (indent, name) = ("  ".repeat(depth), &span.name);
            writeln!(text, "{indent}{name}  [{kind}, {micros} us]{links}").unwrap();
            self.branch(&span.span_id, depth + 1, text);
        }
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// A request of a client that traces it.
fn traced<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("traceparent", format!("00-{TRACE_ID}-{CLIENTS_SPAN}-01").parse().unwrap());
    request
}

async fn place_and_cancel(suite: &Suite, alice: &Person) {
    let placed = suite.orders(Some(alice)).place_order(traced(one("TEA", 3))).await.unwrap();
    let order = placed.into_inner().order.unwrap();
    let settled = suite.settled(alice, &order.order_id).await;
    let cancel =
        CancelOrderRequest { request_id: new_id(), order_id: settled.order_id, ..CancelOrderRequest::default() };
    suite.orders(Some(alice)).cancel_order(traced(cancel)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_for_a_call_is_one_trace() {
    let (collector, otlp_endpoint) = Collector::start().await;
    let mut kernel = Kernel::new(Clock::system());
    // Nothing is recorded but what the client asks for.
    let export = ExportConfig { delay_ms: 10, ..ExportConfig::default() };
    let log = "warn".to_owned();
    let settings = TelemetryConfig { otlp_endpoint, log, sample_permille: 0, export, ..TelemetryConfig::default() };
    let telemetry = Telemetry::start(&settings, "souk", &kernel).unwrap();
    kernel.tracer = telemetry.tracer.clone();
    let folder = tempfile::tempdir().unwrap();
    let suite = Suite::start_on(kernel, config(folder.path())).await;
    suite.product("TEA", 690, 10).await;
    let alice = suite.customer("alice").await;
    place_and_cancel(&suite, &alice).await;
    eventually("the last event of the release is published", async || {
        collector.has(SpanKind::Producer, "publish souk.inventory.reservation.released")
            && collector.has(SpanKind::Producer, "publish souk.order.order.cancelled")
            && collector.has(SpanKind::Internal, "step RELEASE_STOCK")
            && collector.has(SpanKind::Consumer, "process souk.inventory.reservation.released")
    })
    .await;
    suite.stop().await;
    telemetry.close().await;

    let trace = Trace(collector.spans().clone());
    println!("{}", trace.tree());
    let ours = bytes(TRACE_ID);
    assert!(trace.0.iter().all(|span| span.trace_id == ours), "{:?}", trace.0);

    // The call, and the stock that it holds.
    let place = trace.child(None, SpanKind::Server, "souk.order.v1.OrderService/PlaceOrder");
    let reserve = call(&trace, place, CHANGE);
    let batch = batch(&trace, reserve);
    let transaction = trace.child(Some(batch), SpanKind::Client, "write transaction");
    for statement in ["INSERT reservations", "INSERT outbox", "COMMIT"] {
        trace.child(Some(transaction), SpanKind::Client, statement);
    }
    // The call may carry the changes of many; what each does belongs to whatever it is made for.
    publish(&trace, place, "souk.inventory.reservation.held");
    trace.child(Some(place), SpanKind::Internal, "group commit");
    publish(&trace, place, "souk.order.order.placed");
    // What is done later.
    let step = trace.child(Some(place), SpanKind::Internal, "step COMMIT_STOCK");
    call(&trace, step, CHANGE);
    publish(&trace, step, "souk.inventory.reservation.committed");
    publish(&trace, step, "souk.order.order.confirmed");
    // And what undoes it.
    let cancel = trace.child(None, SpanKind::Server, "souk.order.v1.OrderService/CancelOrder");
    publish(&trace, cancel, "souk.order.order.cancelled");
    let step = trace.child(Some(cancel), SpanKind::Internal, "step RELEASE_STOCK");
    call(&trace, step, CHANGE);
    publish(&trace, step, "souk.inventory.reservation.released");
    // The news of it, where it is heard.
    let heard = trace.child(Some(step), SpanKind::Consumer, "process souk.inventory.reservation.released");
    assert!(format!("{heard:?}").contains("order.reservations"), "{heard:?}");

    assert!(batch.attributes.iter().any(|attribute| attribute.key == "commands"), "{batch:?}");
    let told = format!("{place:?}");
    for attribute in ["rpc.system.name", "rpc.service", "rpc.method", "rpc.grpc.status_code", "call_id"] {
        assert!(told.contains(attribute), "{attribute} in {told}");
    }
    let services = collector.services.lock().unwrap().clone();
    assert_eq!(services.len(), 1, "{services:?}");
    assert!(
        ["service.name", "service.version", "service.instance.id"]
            .iter()
            .all(|name| services.first().unwrap().contains(name))
    );
    let everything = format!("{:?}", trace.0);
    for secret in [alice.token.as_str(), PASSWORD, "alice@example.com"] {
        assert!(!everything.contains(secret), "{secret}");
    }
}

/// How the order service has stock held, committed and given back.
const CHANGE: &str = "souk.inventory.v1.StockService/BatchChangeReservations";

/// A call from within a span to another service: the span of its server.
#[track_caller]
fn call<'t>(trace: &'t Trace, from: &Span, name: &str) -> &'t Span {
    trace.child(Some(trace.child(Some(from), SpanKind::Client, name)), SpanKind::Server, name)
}

/// The transaction in which a call was done with others.
#[track_caller]
fn batch<'t>(trace: &'t Trace, of: &Span) -> &'t Span {
    trace.child(Some(trace.child(Some(of), SpanKind::Internal, "group commit")), SpanKind::Internal, "batch")
}

#[track_caller]
fn publish<'t>(trace: &'t Trace, from: &Span, subject: &str) -> &'t Span {
    trace.child(Some(from), SpanKind::Producer, &format!("publish {subject}"))
}
