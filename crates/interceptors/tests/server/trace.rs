//! Every call, even one that is refused, has an id and a place in a trace.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use souk_interceptors::context::{self, CallContext, Target, TraceContext};
use tonic_types::StatusExt;

use crate::harness::{MINE, Server, UNRULED, fed_through, with_header};
use crate::logs::Logs;
use crate::probe::{Probe, READ, message, soon};

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// What the handlers know of their calls.
fn telling() -> (Probe, Arc<Mutex<Vec<CallContext>>>) {
    let seen: Arc<Mutex<Vec<CallContext>>> = Arc::default();
    let sink = seen.clone();
    let probe = Probe::echo().answering(move |_| {
        sink.lock().unwrap().push(context::current().unwrap());
        async { Ok(Bytes::new()) }
    });
    (probe, seen)
}

#[tokio::test]
async fn the_trace_of_the_caller_goes_on_with_a_new_span() {
    let (probe, seen) = telling();
    let server = Server::of(probe).await;
    server.call(READ, with_header("traceparent", PARENT)).await.unwrap();
    let trace = seen.lock().unwrap().pop().unwrap().trace;
    let (parent, child) = (PARENT.to_owned(), trace.to_string());
    assert_eq!(child[..36], parent[..36], "the version and the trace");
    assert_ne!(child[36..52], parent[36..52], "the span");
    assert_eq!(child[52..], parent[52..], "the flags");
}

#[tokio::test]
async fn a_call_without_a_trace_begins_one_of_its_own() {
    let (probe, seen) = telling();
    let server = Server::of(probe).await;
    for request in [message(), message(), with_header("traceparent", "nonsense")] {
        server.call(READ, request).await.unwrap();
    }
    let traces: HashSet<String> = seen.lock().unwrap().iter().map(|call| call.trace.trace_id().to_string()).collect();
    assert_eq!(traces.len(), 3);
    assert!(seen.lock().unwrap().iter().all(|call| TraceContext::parse(&call.trace.to_string()).is_some()));
}

#[tokio::test]
async fn a_handler_knows_its_call() {
    let (probe, seen) = telling();
    let server = Server::of(probe).await;
    server.call(READ, message()).await.unwrap();
    let call = seen.lock().unwrap().pop().unwrap();
    assert!(matches!(call.target, Target::Known(method) if method.path == READ), "{call:?}");
    assert_eq!(call.peer.unwrap().to_string(), "127.0.0.1");
    assert_eq!(call.call_id.get_version_num(), 7);
}

#[tokio::test]
async fn every_call_has_a_span_with_its_id_and_trace_even_one_that_is_refused() {
    let logs = Logs::record();
    let probe = Probe::echo().answering(|_| async { panic!("planted") });
    let server = Server::with(probe, |config| config.streams_max = 0).await;
    for path in [UNRULED, MINE, READ] {
        server.call(path, with_header("traceparent", PARENT)).await.unwrap_err();
    }
    server.watch().await.unwrap_err();
    let spans = logs.spans();
    let methods: Vec<&str> = spans.iter().map(|span| span["rpc.method"].as_str()).collect();
    assert_eq!(methods, ["", "Mine", "Read", "Watch"]);
    assert!(spans[1..].iter().all(|span| span["rpc.service"] == "probe.v1.Probe"), "{spans:?}");
    let ids: HashSet<&str> = spans.iter().map(|span| span["call_id"].as_str()).collect();
    assert_eq!(ids.len(), 4);
    let refused = logs.lines("call refused");
    let traces: Vec<&str> = refused.iter().map(|line| line.fields["trace_id"].as_str()).collect();
    assert_eq!(traces, [TRACE_ID; 2]);
    let ended = logs.lines("call");
    assert_eq!(ended[0].fields["trace_id"], TRACE_ID);
}

#[tokio::test]
async fn an_internal_error_tells_the_id_that_the_log_has_it_under() {
    let logs = Logs::record();
    let server = Server::of(Probe::echo().answering(|_| async { panic!("planted") })).await;
    let status = server.call(READ, message()).await.unwrap_err();
    let told = status.get_details_request_info().unwrap().request_id;
    assert_eq!(logs.spans()[0]["call_id"], told);
    let [line] = logs.lines("a handler panicked").try_into().unwrap();
    assert_eq!(line.fields["call_id"], told);
}

#[tokio::test]
async fn what_a_handler_or_its_stream_logs_stands_in_the_span_of_the_call() {
    let logs = Logs::record();
    let (probe, mut streams) = fed_through(|answer| {
        tracing::info!("in the stream");
        assert!(context::current().is_some());
        answer
    });
    let server = Server::of(probe.answering(|_| async {
        tokio::task::yield_now().await;
        tracing::info!("in the handler");
        Ok(Bytes::new())
    }))
    .await;
    server.call(READ, message()).await.unwrap();
    let mut answers = server.watch().await.unwrap();
    soon(streams.recv()).await.unwrap().send(Ok(Bytes::new())).unwrap();
    assert!(soon(answers.message()).await.unwrap().is_some());
    let spans: Vec<Option<usize>> =
        ["in the handler", "in the stream"].into_iter().map(|message| logs.lines(message)[0].span).collect();
    assert_eq!(spans, [Some(0), Some(1)]);
}
