//! P11: who may call what, for every RPC that the descriptors have, over real sockets.
//!
//! The rows are made from the contracts. An RPC without a rule does not build at all (see `build.rs`); one that is served without being
//! in the tables is not found by anyone.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use souk_proto_common::failure::reason_of;
use souk_proto_common::{Access, Method, Reason};
use souk_testkit::suite::{Client, Suite};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Status};

/// Sends and takes bytes: an empty message is a message of every type.
#[derive(Clone, Copy, Default)]
struct Bytes;

impl Codec for Bytes {
    type Encode = ();
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = ();
    type Error = Status;

    fn encode(&mut self, (): (), _: &mut EncodeBuf<'_>) -> Result<(), Status> {
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        use bytes::Buf;
        buffer.advance(buffer.remaining());
        Ok(Some(()))
    }
}

/// Calls `method` with an empty message; a stream with none. What comes is an answer, or the refusal of an interceptor or of the RPC itself.
async fn call(client: Client, method: &'static Method) -> Result<(), Status> {
    let mut grpc = Grpc::new(client);
    grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let path = method.path.parse().unwrap();
    let request = Request::new(futures::stream::iter([()]));
    let mut request = request;
    request.set_timeout(std::time::Duration::from_secs(5));
    let mut answers = grpc.streaming(request, path, Bytes).await?.into_inner();
    answers.message().await.map(drop)
}

/// Whether the caller was let in: whatever comes then is the RPC's own business.
fn let_in(result: &Result<(), Status>) -> bool {
    let outside =
        [Reason::TokenMissing, Reason::TokenInvalid, Reason::TokenExpired, Reason::ScopeMissing, Reason::UnknownMethod];
    match result {
        Ok(()) => true,
        Err(status) => !reason_of(status).is_some_and(|reason| outside.contains(&reason)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_lets_in_who_its_rule_names_and_nobody_else() {
    let suite = Suite::start().await;
    let customer = suite.customer("alice").await;
    let customer_scopes = ["orders.place", "orders.read", "orders.cancel"];
    let service_only = ["stock.reserve"];
    let tables = [(0, souk_proto_user::METHODS), (1, souk_proto_order::METHODS), (2, souk_proto_inventory::METHODS)];
    let mut rows = 0;
    for (service, methods) in tables {
        for method in methods {
            rows += 1;
            let anonymous = call(suite.client(service, None), method).await;
            let of_customer = call(suite.client(service, Some(&customer)), method).await;
            let of_admin = call(suite.client(service, Some(suite.admin())), method).await;
            let mut forged = customer.clone();
            forged.token.push('x');
            let of_forger = call(suite.client(service, Some(&forged)), method).await;
            let (path, public) = (method.path, method.access == Access::Public);
            assert_eq!(let_in(&anonymous), public, "{path}, anonymous: {anonymous:?}");
            assert_eq!(let_in(&of_forger), public, "{path}, forger: {of_forger:?}");
            if !public {
                assert_eq!(reason_of(&anonymous.unwrap_err()), Some(Reason::TokenMissing), "{path}");
                assert_eq!(reason_of(&of_forger.unwrap_err()), Some(Reason::TokenInvalid), "{path}");
            }
            let (customer_may, admin_may) = match method.access {
                Access::Public | Access::SignedIn => (true, true),
                Access::Scope(scope) => (customer_scopes.contains(&scope), !service_only.contains(&scope)),
            };
            assert_eq!(let_in(&of_customer), customer_may, "{path}, customer: {of_customer:?}");
            assert_eq!(let_in(&of_admin), admin_may, "{path}, administrator: {of_admin:?}");
        }
    }
    assert!(rows > 30, "only {rows} RPCs were tried");
    suite.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_no_table_is_not_there_even_if_it_is_served() {
    static UNLISTED: Method = Method {
        path: "/souk.order.v1.OrderService/DropEverything",
        access: Access::Public,
        shape: souk_proto_common::Shape::Unary,
        read_only: false,
        keyed: false,
    };
    let suite = Suite::start().await;
    let status = call(suite.client(1, Some(suite.admin())), &UNLISTED).await.unwrap_err();
    assert_eq!((status.code(), reason_of(&status)), (Code::Unimplemented, Some(Reason::UnknownMethod)));
    suite.stop().await;
}
