//! Requests that are not whole yet: so many for each peer, and each for so long. A unary call has its place while its request comes in;
//! without this, whoever sends nothing but beginnings would soon have all places. Requests that come whole cost nothing here.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::{Body as _, Frame, SizeHint};
use souk_proto_common::{Failure, Reason};
use souk_runtime::server::{Place, Places};
use tokio::time::{Sleep, sleep};
use tonic::body::Body;
use tonic::{Code, Status};

use super::StackConfig;
use super::shed::busy;

#[derive(Clone)]
pub(super) struct Arrivals {
    places: Arc<Places>,
    timeout: Duration,
}

impl Arrivals {
    pub(super) fn new(config: &StackConfig) -> Self {
        let timeout = Duration::from_millis(config.arrival_timeout_ms);
        Self { places: Places::new(config.arriving_per_peer_max), timeout }
    }

    /// From now on the request's body fails if it is one too many or comes too slowly.
    pub(super) fn watch(&self, request: &mut Request<Body>, peer: IpAddr) {
        if !request.body().is_end_stream() {
            let body = std::mem::take(request.body_mut());
            *request.body_mut() = Body::new(Arriving { body, peer, arrivals: self.clone(), waiting: None });
        }
    }
}

/// The body of such a request.
struct Arriving {
    body: Body,
    peer: IpAddr,
    arrivals: Arrivals,
    /// From the first time that there was nothing to read.
    waiting: Option<(Place, Pin<Box<Sleep>>)>,
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let me = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut me.body).poll_frame(cx) {
            if me.body.is_end_stream() {
                me.waiting = None;
            }
            return Poll::Ready(frame);
        }
        if me.waiting.is_none() {
            let Some(place) = me.arrivals.places.take(me.peer) else { return Poll::Ready(Some(Err(busy().into()))) };
            me.waiting = Some((place, Box::pin(sleep(me.arrivals.timeout))));
        }
        if let Some((_, timeout)) = &mut me.waiting {
            ready!(timeout.as_mut().poll(cx));
        }
        Poll::Ready(Some(Err(late().into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn late() -> Failure {
    Failure::new(Code::DeadlineExceeded, Reason::DeadlineExceeded, "the request did not come in time; nothing was done")
}
