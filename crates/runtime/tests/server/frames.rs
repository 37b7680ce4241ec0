//! What comes in many small frames.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use souk_runtime::server::{ServerConfig, bind, serve};
use souk_runtime::{Clock, Kernel};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::body::Body;

/// A client may send each small message of a long stream in a frame of its own, faster than we read them.
#[tokio::test]
async fn a_flood_of_small_frames_waits_until_it_is_read() {
    const FRAMES: usize = 20_000;
    let kernel = Kernel::new(Clock::system());
    let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let may_read = Arc::new(Semaphore::new(0));
    let waiting = may_read.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let waiting = waiting.clone();
        async move {
            waiting.acquire().await.unwrap().forget();
            let bytes = request.into_body().collect().await.unwrap().to_bytes().len();
            Ok::<_, Infallible>(Status::not_found(bytes.to_string()).into_http())
        }
    });
    serve(&kernel, "test", listener, &ServerConfig::default(), service).unwrap();
    let (mut client, connection) = h2::client::handshake(TcpStream::connect(address).await.unwrap()).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("http://souk/any").header("content-type", "application/grpc").body(()).unwrap();
    let (response, mut stream) = client.send_request(request, false).unwrap();
    let frame = Bytes::from_static(&[7; 30]);
    for sent in 0..FRAMES {
        stream.reserve_capacity(frame.len());
        while stream.capacity() < frame.len() {
            may_read.add_permits(1); // what we send now is more than is kept for the service
            poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
        }
        stream.send_data(frame.clone(), sent + 1 == FRAMES).unwrap();
    }
    let answer = response.await.unwrap();
    assert_eq!(answer.headers()["grpc-message"], (FRAMES * frame.len()).to_string());
}
