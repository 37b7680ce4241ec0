//! A service of bytes: what it answers, the test says. And the calls to it.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryFutureExt, TryStreamExt};
use http::uri::PathAndQuery;
use souk_proto_common::{Access, Method, Shape};
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::StdError;
use tonic::server::{ClientStreamingService, ServerStreamingService, StreamingService, UnaryService};
use tonic::{Request, Response, Status, Streaming};

/// Larger requests are refused by tonic.
pub(crate) const REQUEST_BYTES_MAX: usize = 1_024;

/// Nothing here takes so long unless it never happens.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const READ: &str = "/probe.v1.Probe/Read";
pub(crate) const PUT: &str = "/probe.v1.Probe/Put";
pub(crate) const ADD: &str = "/probe.v1.Probe/Add";
pub(crate) const WATCH: &str = "/probe.v1.Probe/Watch";

/// The methods that both sides of a call are tested with, open to anyone.
pub(crate) static METHODS: [Method; 4] = [
    method(READ, Shape::Unary, true, false),
    method(PUT, Shape::Unary, false, true),
    method(ADD, Shape::Unary, false, false),
    method(WATCH, Shape::ServerStream, true, false),
];

const fn method(path: &'static str, shape: Shape, read_only: bool, keyed: bool) -> Method {
    Method { path, access: Access::Public, shape, read_only, keyed }
}

pub(crate) type Answers = BoxStream<'static, Result<Bytes, Status>>;
type Handler<T> = Arc<dyn Fn(Request<Bytes>) -> BoxFuture<'static, Result<Response<T>, Status>> + Send + Sync>;

/// The service under test's stack. Its methods are told by their names: `Watch` streams to the caller, `Upload` from it and says how many
/// bytes there were, `Chat` answers each message with itself, and any other is a call.
#[derive(Clone)]
pub(crate) struct Probe {
    unary: Handler<Bytes>,
    stream: Handler<Answers>,
}

impl Probe {
    /// Answers what it is asked.
    pub(crate) fn echo() -> Self {
        let unary = |request: Request<Bytes>| async { Ok(Response::new(request.into_inner())) }.boxed();
        let stream = |request: Request<Bytes>| {
            let answers = futures::stream::iter([Ok(request.into_inner())]);
            async { Ok(Response::new(answers.boxed())) }.boxed()
        };
        Self { unary: Arc::new(unary), stream: Arc::new(stream) }
    }

    /// Answers a call so.
    pub(crate) fn answering<F>(mut self, handle: impl Fn(Request<Bytes>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Bytes, Status>> + Send + 'static,
    {
        self.unary = Arc::new(move |request| handle(request).map(|answer| answer.map(Response::new)).boxed());
        self
    }

    /// Answers a stream so.
    pub(crate) fn streaming<F>(mut self, handle: impl Fn(Request<Bytes>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Answers, Status>> + Send + 'static,
    {
        self.stream = Arc::new(move |request| handle(request).map(|answers| answers.map(Response::new)).boxed());
        self
    }
}

impl UnaryService<Bytes> for Probe {
    type Response = Bytes;
    type Future = BoxFuture<'static, Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let unary = self.unary.clone();
        // As tonic's generated code has it: whatever the handler does, it does when it is polled.
        async move { unary(request).await }.boxed()
    }
}

impl ServerStreamingService<Bytes> for Probe {
    type Response = Bytes;
    type ResponseStream = Answers;
    type Future = BoxFuture<'static, Result<Response<Answers>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let stream = self.stream.clone();
        async move { stream(request).await }.boxed()
    }
}

impl ClientStreamingService<Bytes> for Probe {
    type Response = Bytes;
    type Future = BoxFuture<'static, Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let messages = request.into_inner();
        let bytes = messages.try_fold(0, |bytes, message| async move { Ok(bytes + message.len()) });
        bytes.map_ok(|bytes| Response::new(bytes.to_string().into())).boxed()
    }
}

impl StreamingService<Bytes> for Probe {
    type Response = Bytes;
    type ResponseStream = Answers;
    type Future = BoxFuture<'static, Result<Response<Answers>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        futures::future::ready(Ok(Response::new(request.into_inner().boxed()))).boxed()
    }
}

impl tower::Service<http::Request<Body>> for Probe {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let probe = self.clone();
        let mut grpc = tonic::server::Grpc::new(Raw).max_decoding_message_size(REQUEST_BYTES_MAX);
        async move {
            // It has no health to tell: it is well as long as it is connected.
            if request.uri().path().starts_with("/grpc.health.v1.") {
                return Ok(Status::unimplemented("no health").into_http());
            }
            Ok(match request.uri().path().rsplit('/').next() {
                Some("Watch") => grpc.server_streaming(probe, request).await,
                Some("Upload") => grpc.client_streaming(probe, request).await,
                Some("Chat") => grpc.streaming(probe, request).await,
                _ => grpc.unary(probe, request).await,
            })
        }
        .boxed()
    }
}

/// Sends one message, for one.
pub(crate) async fn call<C>(channel: C, path: &'static str, request: Request<Bytes>) -> Result<Response<Bytes>, Status>
where
    C: GrpcService<Body>,
    C::ResponseBody: http_body::Body<Data = Bytes, Error: Into<StdError>> + Send + 'static,
{
    soon(client(channel).await?.unary(request, PathAndQuery::from_static(path), Raw)).await
}

/// Sends one message, for many.
pub(crate) async fn watch<C>(
    channel: C,
    path: &'static str,
    request: Request<Bytes>,
) -> Result<Streaming<Bytes>, Status>
where
    C: GrpcService<Body>,
    C::ResponseBody: http_body::Body<Data = Bytes, Error: Into<StdError>> + Send + 'static,
{
    let mut client = client(channel).await?;
    soon(client.server_streaming(request, PathAndQuery::from_static(path), Raw)).await.map(Response::into_inner)
}

async fn client<C: GrpcService<Body>>(channel: C) -> Result<tonic::client::Grpc<C>, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unknown(error.into().to_string()))?;
    Ok(client)
}

/// Waits for what comes soon or never.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it never happens")
}

/// A message that means nothing.
pub(crate) fn message() -> Request<Bytes> {
    Request::new(Bytes::from_static(b"tea"))
}

/// Messages as they are.
#[derive(Clone, Copy)]
pub(crate) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
