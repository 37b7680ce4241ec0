//! A layer of tower as one async function: the boilerplate, once.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::body::Body;
use tower::util::ServiceExt;
use tower::{Layer, Service};

/// The rest of the stack.
pub(crate) trait Next:
    Service<Request<Body>, Response = Response<Body>, Future: Send, Error: Send> + Clone + Send + Sync + 'static
{
}

impl<S> Next for S where
    S: Service<Request<Body>, Response = Response<Body>, Future: Send, Error: Send> + Clone + Send + Sync + 'static
{
}

/// What a layer does with a call.
pub(crate) trait Middleware<S: Next>: Clone + Send + Sync + 'static {
    /// Handles the call, with the rest of the stack at hand.
    fn call(&self, request: Request<Body>, next: S) -> impl Future<Output = Result<Response<Body>, S::Error>> + Send;
}

/// Passes the call on.
pub(crate) async fn pass<S: Next>(next: S, request: Request<Body>) -> Result<Response<Body>, S::Error> {
    next.oneshot(request).await
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

#[derive(Clone)]
pub(crate) struct Stacked<M, S> {
    middleware: M,
    next: S,
}

impl<M: Middleware<S>, S: Next> Service<Request<Body>> for Stacked<M, S> {
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(())) // `pass` waits for the next
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { middleware, next } = self.clone();
        Box::pin(async move { middleware.call(request, next).await })
    }
}
