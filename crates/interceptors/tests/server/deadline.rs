//! A call has the time that its caller gives it, within bounds, and is dropped when that is over.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::join;
use souk_interceptors::context;
use souk_interceptors::server::StackConfig;
use souk_proto_common::Reason;
use tokio::time::Instant;
use tonic::{Code, Request};

use crate::harness::{Server, assert_refused, fed, held, with_header};
use crate::probe::{Answers, Probe, READ, WATCH, message, soon};

/// Unlike what a machine takes, however busy.
const HOUR: Duration = Duration::from_hours(1);

fn bounds(config: &mut StackConfig) {
    config.default_deadline_ms = 2 * 3_600_000;
    config.deadline_max_ms = 5 * 3_600_000;
}

/// What is left to a handler when it begins.
fn telling() -> (Probe, Arc<Mutex<Vec<Option<Duration>>>>) {
    let seen: Arc<Mutex<Vec<Option<Duration>>>> = Arc::default();
    let (of_calls, of_streams) = (seen.clone(), seen.clone());
    let left = || context::deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let probe = Probe::echo()
        .answering(move |_| {
            of_calls.lock().unwrap().push(left());
            async { Ok(Bytes::new()) }
        })
        .streaming(move |_| {
            of_streams.lock().unwrap().push(left());
            let answers: Answers = futures::stream::empty().boxed();
            async { Ok(answers) }
        });
    (probe, seen)
}

/// Up to `hours`, and not much less.
#[track_caller]
fn assert_hours(left: Option<Duration>, hours: u32) {
    let left = left.unwrap();
    assert!(left <= HOUR * hours && left + HOUR / 2 > HOUR * hours, "{left:?} of {hours} h");
}

#[tokio::test]
async fn a_call_has_the_time_that_it_asks_for_and_no_more_than_the_most() {
    let (probe, seen) = telling();
    let server = Server::with(probe, bounds).await;
    for (asked, granted) in [("1H", 1), ("240M", 4), ("7H", 5), ("99999999H", 5), ("nonsense", 2)] {
        server.call(READ, with_header("grpc-timeout", asked)).await.unwrap();
        assert_hours(seen.lock().unwrap().pop().unwrap(), granted);
    }
    server.call(READ, message()).await.unwrap();
    assert_hours(seen.lock().unwrap().pop().unwrap(), 2);
}

#[tokio::test]
async fn a_call_ends_so_much_earlier_that_its_caller_hears_why() {
    let (probe, seen) = telling();
    let server = Server::with(probe, bounds).await;
    server.call(READ, with_header("grpc-timeout", "10S")).await.unwrap();
    let left = seen.lock().unwrap().pop().unwrap().unwrap();
    assert!(left <= Duration::from_millis(9_990), "{left:?}");
}

#[tokio::test]
async fn a_stream_has_what_it_asks_for_or_all_the_time_there_is() {
    let (probe, seen) = telling();
    let server = Server::with(probe, bounds).await;
    server.watch().await.unwrap();
    assert_eq!(seen.lock().unwrap().pop().unwrap(), None);
    let mut request = message();
    request.set_timeout(HOUR * 9);
    crate::probe::watch(server.channel.clone(), WATCH, request).await.unwrap();
    assert_hours(seen.lock().unwrap().pop().unwrap(), 9);
}

#[tokio::test]
async fn a_call_that_is_late_is_dropped_and_its_caller_told() {
    let (probe, mut calls) = held();
    let (hour, short) = (3_600_000, 50);
    for (default, max, asked) in [(short, hour, None), (hour, short, Some(HOUR))] {
        let bounded = |config: &mut StackConfig| (config.default_deadline_ms, config.deadline_max_ms) = (default, max);
        let server = Server::with(probe.clone(), bounded).await;
        let mut request: Request<Bytes> = message();
        if let Some(asked) = asked {
            request.set_timeout(asked);
        }
        let (result, held) = join(server.call(READ, request), soon(calls.recv())).await;
        assert_refused(result, Code::DeadlineExceeded, Reason::DeadlineExceeded);
        assert!(held.unwrap().is_closed(), "the handler has been dropped before its caller was told");
    }
}

#[tokio::test]
async fn a_stream_that_is_late_is_dropped_and_its_caller_told() {
    let (probe, mut streams) = fed();
    let server = Server::of(probe).await;
    let answer = server.answer_within(WATCH, "300m").await;
    assert!(answer.contains("grpc-status:4\r\n") && answer.contains("the%20deadline%20passed"), "{answer}");
    assert!(streams.recv().await.unwrap().is_closed());
}

#[tokio::test]
async fn however_short_a_deadline_is_its_caller_hears_what_happened() {
    let (probe, _calls) = held();
    let server = Server::of(probe).await;
    for asked in ["0n", "1n", "1u", "100u", "900u", "1m", "2m", "5m", "11m"] {
        for _ in 0..5 {
            let answer = server.answer_within(READ, asked).await;
            let told = answer.contains("grpc-status: 4\r\n") && answer.contains("the%20deadline%20passed");
            assert!(told, "{asked}: {answer}");
        }
    }
}
