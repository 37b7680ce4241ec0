//! A panic is the end of one call.

use bytes::Bytes;
use souk_proto_common::Reason;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::harness::{Server, assert_refused, fed, fed_through, with_header};
use crate::probe::{Probe, READ, message, soon};

fn plant() -> ! {
    panic!("planted: no such text may reach a caller");
}

/// It carries what the log has it under, and nothing of the panic.
#[track_caller]
fn assert_internal<T: std::fmt::Debug>(result: Result<T, Status>) {
    let status = assert_refused(result, Code::Internal, Reason::Internal);
    assert_eq!(status.message(), "internal error");
    let call_id = status.get_details_request_info().unwrap().request_id;
    assert!(uuid::Uuid::try_parse(&call_id).is_ok_and(|id| !id.is_nil()), "{call_id}");
}

/// It panics where the request says.
fn panicking(probe: Probe) -> Probe {
    probe.answering(|request: Request<Bytes>| {
        assert!(request.metadata().get("panic").is_none_or(|place| place != "at once"), "planted");
        async move {
            tokio::task::yield_now().await;
            if request.metadata().get("panic").is_some() { plant() } else { Ok(Bytes::new()) }
        }
    })
}

#[tokio::test]
async fn a_panic_of_a_handler_is_internal_and_the_connection_lives() {
    let (probe, mut streams) = fed();
    let server = Server::of(panicking(probe)).await;
    // On the same connection, all along.
    let mut answers = server.watch().await.unwrap();
    let feed = soon(streams.recv()).await.unwrap();
    for (panics, place) in [(1, "at once"), (2, "later")] {
        assert_internal(server.call(READ, with_header("panic", place)).await);
        assert_eq!(server.count("grpc_server_panics_total"), panics);
        feed.send(Ok(Bytes::new())).unwrap();
        assert!(soon(answers.message()).await.unwrap().is_some());
        server.call(READ, message()).await.unwrap();
    }
}

#[tokio::test]
async fn a_panic_in_a_stream_is_internal_and_the_connection_lives() {
    let (probe, mut streams) = fed_through(|answer| if answer == "panic" { plant() } else { answer });
    let server = Server::of(probe).await;
    let (mut answers, mut others) = (server.watch().await.unwrap(), server.watch().await.unwrap());
    let (feed, others_feed) = (soon(streams.recv()).await.unwrap(), soon(streams.recv()).await.unwrap());
    feed.send(Ok(Bytes::new())).unwrap();
    assert!(soon(answers.message()).await.unwrap().is_some());
    feed.send(Ok("panic".into())).unwrap();
    assert_internal(soon(answers.message()).await);
    assert_eq!(server.count("grpc_server_panics_total"), 1);
    let codes = r#"{grpc_service="probe.v1.Probe",grpc_method="Watch",grpc_code="INTERNAL"}"#;
    assert_eq!(server.count(&format!("grpc_server_handled_total{codes}")), 1);
    soon(feed.closed()).await;
    // The other stream was open on the same connection.
    others_feed.send(Ok(Bytes::new())).unwrap();
    assert!(soon(others.message()).await.unwrap().is_some());
    server.call(READ, message()).await.unwrap();
}

#[tokio::test]
async fn a_panic_before_a_stream_begins_is_internal() {
    let server = Server::of(Probe::echo().streaming(|_| async { plant() })).await;
    assert_internal(server.watch().await.map(|_| ()));
    assert_eq!(server.count("grpc_server_panics_total"), 1);
}

#[tokio::test]
async fn the_place_of_a_call_that_panicked_is_free() {
    let one = |config: &mut souk_interceptors::server::StackConfig| config.calls_max = 1;
    let server = Server::with(panicking(Probe::echo()), one).await;
    for _ in 0..3 {
        assert_internal(server.call(READ, with_header("panic", "later")).await);
    }
    server.call(READ, message()).await.unwrap();
}
