//! A layer of either stack as one async function: the boilerplate, once.
//!
//! A call borrows the layers and its request, and its way through all of them is one future. Services of tower own what they call: each
//! layer was copied for each call with all that is below it, and had a future in a box. Borrowed, the server's stack costs half as much
//! (driven alone, with no network); if each layer's future had the request within itself, as much as before, since it would be moved from
//! one into the other.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::body::Body;
use tower::util::ServiceExt;
use tower::{Layer, Service};

/// The rest of the stack.
pub(crate) trait Next: Send + Sync + 'static {
    type Error: Send + 'static;

    /// Handles the call.
    fn call(&self, request: &mut Request<Body>) -> impl Future<Output = Result<Response<Body>, Self::Error>> + Send;
}

/// What a layer does with a call.
pub(crate) trait Middleware<S: Next>: Send + Sync + 'static {
    /// Handles the call, with the rest of the stack at hand.
    fn call(
        &self,
        request: &mut Request<Body>,
        next: &S,
    ) -> impl Future<Output = Result<Response<Body>, S::Error>> + Send;
}

/// A middleware as a layer of tower.
#[derive(Clone)]
pub(crate) struct Around<M>(pub(crate) M);

impl<M: Clone, S> Layer<S> for Around<M> {
    type Service = Stacked<M, S>;

    fn layer(&self, next: S) -> Stacked<M, S> {
        Stacked { middleware: self.0.clone(), next }
    }
}

pub(crate) struct Stacked<M, S> {
    middleware: M,
    next: S,
}

impl<M: Middleware<S>, S: Next> Next for Stacked<M, S> {
    type Error = S::Error;

    fn call(&self, request: &mut Request<Body>) -> impl Future<Output = Result<Response<Body>, S::Error>> + Send {
        self.middleware.call(request, &self.next)
    }
}

/// What stands under a stack: a service of tower, cloned for each call.
pub(crate) struct Innermost<S>(pub(crate) S);

impl<S> Next for Innermost<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Future: Send, Error: Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static,
{
    type Error = S::Error;

    async fn call(&self, request: &mut Request<Body>) -> Result<Response<Body>, S::Error> {
        self.0.clone().oneshot(std::mem::take(request)).await
    }
}

type Answer<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

/// A stack as a service of tower. Cheap to clone.
pub struct Whole<E>(Arc<dyn Fn(Request<Body>) -> Answer<E> + Send + Sync>);

impl<E: 'static> Whole<E> {
    /// `error` is what becomes of an error that comes out of the stack.
    pub(crate) fn new<S: Next>(stack: S, error: fn(S::Error) -> E) -> Self {
        let stack = Arc::new(stack);
        Self(Arc::new(move |mut request| {
            let stack = stack.clone();
            Box::pin(async move { stack.call(&mut request).await.map_err(error) })
        }))
    }
}

impl<E> Clone for Whole<E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<E> Service<Request<Body>> for Whole<E> {
    type Response = Response<Body>;
    type Error = E;
    type Future = Answer<E>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(())) // what stands under it is waited for by each call
    }

    fn call(&mut self, request: Request<Body>) -> Answer<E> {
        (self.0)(request)
    }
}
