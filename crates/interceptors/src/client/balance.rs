//! A call goes to one of the addresses, and is counted there until its last byte.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use souk_runtime::Ids;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::ServiceExt;

use super::address::Address;
use super::deadline::AnswerBy;
use super::outcome;
use super::pool::Pool;

/// Where earlier tries of a call have failed: a request extension.
#[derive(Clone, Default)]
pub(super) struct Tried(Arc<Mutex<Vec<u64>>>);

impl Tried {
    fn addresses(&self) -> Vec<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, id: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(id);
    }
}

/// See the module. The pool ends with the last of the clones.
#[derive(Clone)]
pub(super) struct Balance(Arc<Alive>);

struct Alive(Arc<Pool>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Balance {
    pub(super) fn new(pool: Arc<Pool>) -> Self {
        Self(Arc::new(Alive(pool)))
    }

    pub(super) async fn call(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let pool = &self.0.0;
        let tried = request.extensions().get::<Tried>().cloned();
        let by = request.extensions().get::<AnswerBy>().map(|by| by.0);
        let before = tried.as_ref().map(Tried::addresses).unwrap_or_default();
        let address = pool.pick(&before).await?;
        let mut call = Call::begin(pool.clone(), address, by);
        let result = call.address.channel.clone().oneshot(request).await.map_err(outcome::of_transport);
        let failed = match &result {
            Ok(response) => outcome::failed(response).is_some_and(|status| status.code() == Code::Unavailable),
            Err(_) => true,
        };
        if let Some(tried) = tried
            && failed
        {
            tried.note(call.address.id);
        }
        match &result {
            Err(status) if status.code() == Code::DeadlineExceeded && !call.had_time() => call.is_judged = true,
            _ => call.judge(failed),
        }
        result.map(|response| call.until_the_end_of(response))
    }
}

/// One of the addresses for a call; one that is not of those `tried`, if there is one.
pub(super) fn pick(addresses: &[Arc<Address>], tried: &[u64], ids: &Ids) -> Option<Arc<Address>> {
    if !tried.is_empty() {
        let others: Vec<_> = addresses.iter().filter(|address| !tried.contains(&address.id)).cloned().collect();
        if !others.is_empty() {
            return of_two(&others, ids);
        }
    }
    of_two(addresses, ids)
}

/// Of two at random, the one with less to do: nearly as even as looking at all, and nobody is everybody's favourite.
fn of_two(addresses: &[Arc<Address>], ids: &Ids) -> Option<Arc<Address>> {
    let (first, second) = match addresses {
        [] => return None,
        [only] => return Some(only.clone()),
        _ => {
            let random = u64::from_le_bytes(ids.random_bytes());
            let below =
                |random: u64, count: usize| usize::try_from(random % count as u64).expect("it is below a usize");
            let one = below(random, addresses.len());
            // Any but the first, each as likely as the others.
            (one, (one + 1 + below(random >> 32, addresses.len() - 1)) % addresses.len())
        }
    };
    let (first, second) = (&addresses[first], &addresses[second]);
    let load = |address: &Address| address.in_flight.load(Ordering::Relaxed);
    Some(if load(second) < load(first) { second.clone() } else { first.clone() })
}

/// No answer for so long says something of the address, a shorter time only of the caller.
const PATIENCE: Duration = Duration::from_millis(250);

/// A call that has not ended.
struct Call {
    pool: Arc<Pool>,
    address: Arc<Address>,
    by: Option<Instant>,
    began: Instant,
    is_judged: bool,
}

impl Call {
    fn begin(pool: Arc<Pool>, address: Arc<Address>, by: Option<Instant>) -> Self {
        address.in_flight.fetch_add(1, Ordering::Relaxed);
        pool.gauges.in_flight.inc();
        Self { pool, address, by, began: Instant::now(), is_judged: false }
    }

    fn judge(&mut self, failed: bool) {
        self.is_judged = true;
        let limit = self.pool.limits.outlier_failures;
        match self.address.ended(failed) {
            (_, in_a_row) if failed && in_a_row.is_multiple_of(limit) => self.pool.fails_calls(self.address.id),
            (before, 0) if before > 0 => self.pool.answers_calls(self.address.id),
            _ => {}
        }
    }

    /// Whether an address that is well would have answered. Else whoever calls with hopeless deadlines could have any address left alone.
    fn had_time(&self) -> bool {
        self.began.elapsed() >= PATIENCE
    }

    /// Streams count as long as they last.
    fn until_the_end_of(self, response: Response<Body>) -> Response<Body> {
        if response.body().is_end_stream() {
            return response;
        }
        response.map(|body| Body::new(Counted { body, call: Some(self) }))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.address.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.pool.gauges.in_flight.dec();
        // Given up because it was late, and not because nobody wanted it any more: that tells something of the address, if it had time.
        if !self.is_judged && self.by.is_some_and(|by| by <= Instant::now()) && self.had_time() {
            self.judge(true);
        }
    }
}

struct Counted {
    body: Body,
    call: Option<Call>,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let is_more = matches!(&frame, Some(Ok(frame)) if !frame.is_trailers());
        if !is_more {
            self.call = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
