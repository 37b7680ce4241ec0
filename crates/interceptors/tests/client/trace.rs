//! The trace goes on from server to server.

use souk_interceptors::context::TraceContext;

use crate::peer::{Peer, call_through};
use crate::probe::{self, READ, message};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test]
async fn a_call_for_a_call_is_of_its_trace_with_a_span_of_its_own() {
    let peer = Peer::start().await;
    let mut request = message();
    request.metadata_mut().insert("traceparent", PARENT.parse().unwrap());
    let between = call_through(peer.client(), request).await.unwrap().into_inner();
    let sent = peer.header("traceparent");
    assert_eq!(sent[..36], PARENT[..36], "the version and the trace");
    assert_ne!(sent[36..52], PARENT[36..52], "the span");
    assert_ne!(sent.as_bytes()[36..52], between[36..52], "the span of the call between");
    assert_eq!(sent[52..], PARENT[52..], "the flags");
}

#[tokio::test]
async fn a_call_for_no_other_begins_a_trace() {
    let peer = Peer::start().await;
    for _ in 0..2 {
        probe::call(peer.client(), READ, message()).await.unwrap();
    }
    let sent = peer.headers("traceparent");
    let traces: Vec<TraceContext> =
        sent.iter().map(|sent| TraceContext::parse(sent.as_ref().unwrap()).unwrap()).collect();
    assert_ne!(traces[0].trace_id().to_string(), traces[1].trace_id().to_string());
}
