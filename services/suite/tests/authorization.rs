//! P11: who may call what, for every RPC that the contracts have, over real sockets.
//!
//! The table stands here, written by hand: the one that the servers obey is made from the contracts, and may be wrong with them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use prost::Message as _;
use prost_types::FileDescriptorSet;
use souk::Config;
use souk_proto_common::Reason;
use souk_proto_common::failure::reason_of;
use souk_proto_user::v1::{IssueServiceTokenRequest, Role, SetRolesRequest};
use souk_runtime::{Clock, Secret};
use souk_testkit::raw::RawCodec;
use souk_testkit::suite::{Client, PASSWORD, Person, Suite, config, new_id};
use souk_user::config::ServiceAccount;
use tonic::client::Grpc;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

/// Who is let in.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    Public,
    SignedIn,
    Scope(&'static str),
}

use Rule::{Public, Scope, SignedIn};

const RULES: &[(&str, Rule)] = &[
    ("/souk.user.v1.AuthService/Register", Public),
    ("/souk.user.v1.AuthService/Login", Public),
    ("/souk.user.v1.AuthService/RefreshToken", Public),
    ("/souk.user.v1.AuthService/Logout", Public),
    ("/souk.user.v1.AuthService/IssueServiceToken", Public),
    ("/souk.user.v1.AuthService/GetJwks", Public),
    ("/souk.user.v1.UserService/GetMe", SignedIn),
    ("/souk.user.v1.UserService/GetUser", SignedIn),
    ("/souk.user.v1.UserService/UpdateUser", SignedIn),
    ("/souk.user.v1.UserService/ListUsers", Scope("users.read")),
    ("/souk.user.v1.UserService/StreamUsers", Scope("users.read")),
    ("/souk.user.v1.UserService/SetRoles", Scope("roles.write")),
    ("/souk.order.v1.OrderService/PlaceOrder", Scope("orders.place")),
    ("/souk.order.v1.OrderService/PlaceOrders", Scope("orders.place")),
    ("/souk.order.v1.OrderService/GetOrder", Scope("orders.read")),
    ("/souk.order.v1.OrderService/ListOrders", Scope("orders.read")),
    ("/souk.order.v1.OrderService/WatchOrder", Scope("orders.read")),
    ("/souk.order.v1.OrderService/CancelOrder", Scope("orders.cancel")),
    ("/souk.event.v1.DeadLetterService/ListDeadLetters", Scope("events.read")),
    ("/souk.event.v1.DeadLetterService/GetDeadLetter", Scope("events.read")),
    ("/souk.event.v1.DeadLetterService/ReplayDeadLetter", Scope("events.admin")),
    ("/souk.inventory.v1.CatalogService/GetProduct", Public),
    ("/souk.inventory.v1.CatalogService/BatchGetProducts", Public),
    ("/souk.inventory.v1.CatalogService/ListProducts", Public),
    ("/souk.inventory.v1.CatalogService/CreateProduct", Scope("catalog.write")),
    ("/souk.inventory.v1.CatalogService/UpdateProduct", Scope("catalog.write")),
    ("/souk.inventory.v1.CatalogService/ImportProducts", Scope("catalog.write")),
    ("/souk.inventory.v1.StockService/GetStock", Scope("stock.read")),
    ("/souk.inventory.v1.StockService/BatchGetStock", Scope("stock.read")),
    ("/souk.inventory.v1.StockService/ListMovements", Scope("stock.read")),
    ("/souk.inventory.v1.StockService/WatchStock", Scope("stock.read")),
    ("/souk.inventory.v1.StockService/Receive", Scope("stock.write")),
    ("/souk.inventory.v1.StockService/Adjust", Scope("stock.write")),
    ("/souk.inventory.v1.StockService/SyncMovements", Scope("stock.write")),
    ("/souk.inventory.v1.StockService/Reserve", Scope("stock.reserve")),
    ("/souk.inventory.v1.StockService/Commit", Scope("stock.reserve")),
    ("/souk.inventory.v1.StockService/Release", Scope("stock.reserve")),
    ("/souk.inventory.v1.StockService/BatchChangeReservations", Scope("stock.reserve")),
];

/// Those of [`RULES`] that each caller has.
const CUSTOMER: &[&str] = &["orders.place", "orders.read", "orders.cancel"];
const STAFF: &[&str] =
    &["orders.place", "orders.read", "orders.cancel", "catalog.write", "stock.read", "stock.write", "users.read"];
const ADMINISTRATOR: &[&str] = &[
    "orders.place",
    "orders.read",
    "orders.cancel",
    "catalog.write",
    "stock.read",
    "stock.write",
    "users.read",
    "roles.write",
    "events.read",
    "events.admin",
];
/// Of the order service.
const SERVICE: &[&str] = &["stock.reserve"];

/// The paths of all RPCs of Souk, from the descriptors that the servers tell to whoever asks.
fn paths() -> BTreeSet<String> {
    let descriptors = [
        souk_proto_user::DESCRIPTORS,
        souk_proto_order::DESCRIPTORS,
        souk_proto_event::DESCRIPTORS,
        souk_proto_inventory::DESCRIPTORS,
    ];
    let mut paths = BTreeSet::new();
    for bytes in descriptors {
        for file in FileDescriptorSet::decode(bytes).unwrap().file {
            for service in &file.service {
                let path = |rpc: &str| format!("/{}.{}/{rpc}", file.package(), service.name());
                paths.extend(service.method.iter().map(|rpc| path(rpc.name())));
            }
        }
    }
    paths
}

#[test]
fn the_table_has_every_rpc_and_no_other() {
    let rows: BTreeSet<String> = RULES.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(rows.len(), RULES.len(), "an RPC has two rows");
    assert_eq!(rows, paths());
}

/// The server of an RPC, as [`Suite::client`] counts them.
fn server_of(path: &str) -> usize {
    if path.starts_with("/souk.event.") {
        return 1; // that of the order service, which has consumers
    }
    let packages = ["/souk.user.", "/souk.order.", "/souk.inventory."];
    packages.iter().position(|package| path.starts_with(package)).unwrap()
}

/// Calls with an empty message, which is one of every type, and waits for the first that comes: an answer, or the refusal of an
/// interceptor or of the RPC itself.
async fn call(client: Client, path: &'static str) -> Result<(), Status> {
    let mut grpc = Grpc::new(client);
    grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let mut request = Request::new(futures::stream::iter([Vec::new()]));
    request.set_timeout(Duration::from_secs(5));
    let mut answers = grpc.streaming(request, path.parse().unwrap(), RawCodec).await?.into_inner();
    answers.message().await.map(drop)
}

/// Why the caller was not let in; whatever else comes is the RPC's own business.
fn kept_out(result: &Result<(), Status>) -> Option<Reason> {
    let outside =
        [Reason::TokenMissing, Reason::TokenInvalid, Reason::TokenExpired, Reason::ScopeMissing, Reason::UnknownMethod];
    reason_of(result.as_ref().err()?).filter(|reason| outside.contains(reason))
}

/// Somebody with the role of staff.
async fn staff(suite: &Suite) -> Person {
    let person = suite.customer("sam").await;
    let request = SetRolesRequest {
        request_id: new_id(),
        user_id: person.user_id,
        roles: vec![Role::Staff.into()],
        etag: String::new(),
    };
    suite.users(Some(suite.admin())).set_roles(request).await.unwrap();
    suite.log_in("sam@example.com", PASSWORD).await
}

const SERVICE_NAME: &str = "another-order-service";
const SERVICE_SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A service that may what the order service may.
async fn service(suite: &Suite) -> Person {
    let request =
        IssueServiceTokenRequest { service: SERVICE_NAME.to_owned(), client_secret: SERVICE_SECRET.to_owned() };
    let token = suite.auth().issue_service_token(request).await.unwrap().into_inner().access_token;
    Person { user_id: String::new(), token, refresh_token: String::new() }
}

fn with_service(folder: &Path) -> Config {
    let mut config = config(folder);
    let scopes = souk::ORDER_SCOPES.iter().map(|scope| (*scope).to_owned()).collect();
    let account = ServiceAccount { secret: Secret::new(SERVICE_SECRET.to_owned()), scopes };
    config.user.service_accounts.insert(SERVICE_NAME.to_owned(), account);
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_lets_in_who_its_rule_names_and_nobody_else() {
    let folder = tempfile::TempDir::with_prefix("souk-").unwrap();
    let suite = Suite::start_with(with_service(folder.path()), Clock::system()).await;
    let alice = suite.customer("alice").await;
    let (staff, service) = (staff(&suite).await, service(&suite).await);
    let callers = [
        ("a customer", &alice, CUSTOMER),
        ("staff", &staff, STAFF),
        ("the administrator", suite.admin(), ADMINISTRATOR),
        ("the order service", &service, SERVICE),
    ];
    let forger = Person { token: format!("{}x", alice.token), ..alice.clone() };
    for (path, rule) in RULES {
        let server = server_of(path);
        for (person, reason) in [(None, Reason::TokenMissing), (Some(&forger), Reason::TokenInvalid)] {
            let result = call(suite.client(server, person), path).await;
            let expected = (*rule != Public).then_some(reason);
            assert_eq!(kept_out(&result), expected, "{path}, without a good token: {result:?}");
        }
        for (who, person, scopes) in &callers {
            let result = call(suite.client(server, Some(person)), path).await;
            match rule {
                Scope(scope) if !scopes.contains(scope) => {
                    let status = result.unwrap_err();
                    assert_eq!(status.code(), Code::PermissionDenied, "{path}, {who}: {status:?}");
                    assert_eq!(reason_of(&status), Some(Reason::ScopeMissing), "{path}, {who}: {status:?}");
                    assert_eq!(status.get_details_error_info().unwrap().metadata["scope"], *scope, "{path}, {who}");
                }
                Public | SignedIn | Scope(_) => assert_eq!(kept_out(&result), None, "{path}, {who}: {result:?}"),
            }
        }
    }
    suite.stop().await;
}
