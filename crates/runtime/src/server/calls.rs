//! The calls of one connection: what is open, what is not read, and whether anything goes on at all.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::{HttpService, service_fn};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Notify;
use tonic::Status;
use tonic::body::Body;
use tower::{Service, ServiceExt};

use super::config::ServerConfig;
use super::peer::Peer;

/// The calls of one connection.
#[derive(Debug)]
pub(super) struct Calls {
    peer: Peer,
    /// Calls whose answer is not complete.
    open: AtomicUsize,
    /// Calls begun and frames of answers made so far.
    progress: AtomicU64,
    unread: AtomicUsize,
    /// Of all connections.
    unread_total: Gauge,
    unread_max: usize,
    unread_total_max: i64,
    /// It has too much that it does not read.
    too_much: AtomicBool,
    cut: Notify,
    /// It said too much that serves no call.
    flooded: AtomicBool,
}

/// A connection with no more than this is not the one that makes a server's memory run short.
const UNREAD_FREE: usize = 64 * 1_024;
/// What an answer of which nothing has been read keeps in memory beside its bytes, about: the stream and its headers.
const ANSWER_BYTES: usize = 8 * 1_024;

impl Calls {
    pub(super) fn new(peer: Peer, config: &ServerConfig, unread_total: Gauge) -> Self {
        Self {
            peer,
            open: AtomicUsize::new(0),
            progress: AtomicU64::new(0),
            unread: AtomicUsize::new(0),
            unread_total,
            unread_max: config.unread_bytes_max,
            unread_total_max: i64::try_from(config.unread_bytes_total_max).unwrap_or(i64::MAX),
            too_much: AtomicBool::new(false),
            cut: Notify::new(),
            flooded: AtomicBool::new(false),
        }
    }

    /// What has gone on so far; it only grows.
    pub(super) fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// No call is open, and all answers have gone to the socket.
    pub(super) fn is_at_rest(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 0 && self.unread.load(Ordering::Relaxed) == 0
    }

    /// Until more of its answers wait to be read than may.
    pub(super) async fn too_much_unread(&self) {
        while !self.too_much.load(Ordering::Relaxed) {
            self.cut.notified().await;
        }
    }

    /// The connection is being ended for what it said beside its calls.
    pub(super) fn flooded(&self) {
        self.flooded.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_flooded(&self) -> bool {
        self.flooded.load(Ordering::Relaxed)
    }

    /// A piece of an answer, which costs so much `beside` its bytes, until it is in the socket.
    fn hold(self: &Arc<Self>, bytes: Bytes, beside: usize) -> Chunk {
        self.progress.fetch_add(1, Ordering::Relaxed);
        let length = bytes.len() + beside;
        let unread = self.unread.fetch_add(length, Ordering::Relaxed) + length;
        let total = self.unread_total.inc_by(signed(length)) + signed(length);
        if unread > self.unread_max || (unread > UNREAD_FREE && total > self.unread_total_max) {
            self.too_much.store(true, Ordering::Relaxed);
            self.cut.notify_one();
        }
        Chunk { bytes, length, calls: self.clone() }
    }
}

/// Bytes in memory are never so many.
fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// `service` as hyper calls it, for one connection.
pub(super) fn service<S>(
    service: S,
    calls: Arc<Calls>,
) -> impl HttpService<Incoming, ResBody = Answer, Error = Infallible, Future: Send + 'static> + Send
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    service_fn(move |request: Request<Incoming>| {
        let call = Open::new(&calls);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(calls.peer);
        let answer = service.clone().oneshot(request);
        async move { answer.await.map(|answer| answer.map(|body| Answer { body, call, beside: ANSWER_BYTES })) }
    })
}

/// An open call.
struct Open(Arc<Calls>);

impl Open {
    fn new(calls: &Arc<Calls>) -> Self {
        calls.open.fetch_add(1, Ordering::Relaxed);
        calls.progress.fetch_add(1, Ordering::Relaxed);
        Self(calls.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The answer to a call; what of it waits to be read is counted.
pub(super) struct Answer {
    body: Body,
    call: Open,
    /// What the next piece costs beside its bytes.
    beside: usize,
}

impl http_body::Body for Answer {
    type Data = Chunk;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Chunk>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let hold = |bytes| {
            let beside = std::mem::take(&mut self.beside);
            self.call.0.hold(bytes, beside)
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(hold))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A piece of an answer, until it is in the socket.
pub(super) struct Chunk {
    bytes: Bytes,
    length: usize,
    calls: Arc<Calls>,
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.calls.unread.fetch_sub(self.length, Ordering::Relaxed);
        self.calls.unread_total.dec_by(signed(self.length));
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.bytes.copy_to_bytes(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Calls {
        pub(in crate::server) fn idle() -> Self {
            Self::of(&ServerConfig::default())
        }

        fn of(config: &ServerConfig) -> Self {
            Self::new(peer(), config, Gauge::default())
        }

        pub(in crate::server) fn step(&self) {
            self.progress.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn peer() -> Peer {
        Peer { address: ([127, 0, 0, 1], 1).into() }
    }

    #[test]
    fn what_waits_to_be_read_is_counted_until_it_is_written_and_too_much_is_too_much() {
        let calls = Arc::new(Calls::of(&ServerConfig { unread_bytes_max: 100_000, ..ServerConfig::default() }));
        let (first, second) = (calls.hold(vec![0; 60_000].into(), 0), calls.hold(vec![0; 40_000].into(), 0));
        assert!(!calls.is_at_rest() && !calls.too_much.load(Ordering::Relaxed));
        assert_eq!(calls.unread_total.get(), 100_000);
        drop(first);
        let third = calls.hold(vec![0; 60_000].into(), 0);
        assert!(!calls.too_much.load(Ordering::Relaxed));
        let fourth = calls.hold(vec![0; 1].into(), 0);
        assert!(calls.too_much.load(Ordering::Relaxed));
        drop((second, third, fourth));
        assert!(calls.is_at_rest());
        assert_eq!(calls.unread_total.get(), 0);
    }

    #[test]
    fn where_all_have_too_much_those_end_that_have_much() {
        let config = ServerConfig { unread_bytes_total_max: 200_000, ..ServerConfig::default() };
        let total = Gauge::default();
        let of = || Arc::new(Calls::new(peer(), &config, total.clone()));
        let (big, small) = (of(), of());
        let _held = (big.hold(vec![0; 200_000].into(), 0), small.hold(vec![0; UNREAD_FREE].into(), 0));
        assert!(!big.too_much.load(Ordering::Relaxed) && !small.too_much.load(Ordering::Relaxed));
        let _more = big.hold(vec![0; 1].into(), 0);
        assert!(big.too_much.load(Ordering::Relaxed));
    }
}
