//! A server of one test, a user service that does nothing but tell its keys, and clients with tokens.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::DateTime;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePrivateKey;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use souk_db::{Tx, sql};
use souk_events::Bus;
use souk_interceptors::client::ClientConfig;
use souk_interceptors::token::{Claims, TYPE};
use souk_inventory::config::Config;
use souk_inventory::store::invariants;
use souk_inventory::{Deps, start};
use souk_proto_common::failure::reason_of;
use souk_proto_common::v1::{Money, Reason};
use souk_proto_inventory::v1 as pb;
use souk_proto_inventory::v1::catalog_service_client::CatalogServiceClient;
use souk_proto_inventory::v1::stock_service_client::StockServiceClient;
use souk_proto_user::v1 as user;
use souk_proto_user::v1::auth_service_server::{AuthService, AuthServiceServer};
use souk_runtime::server::ServerConfig;
use souk_runtime::{Clock, Kernel};
use souk_testkit::TestDatabase;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

pub(crate) const STAFF: &str = "catalog.write stock.read stock.write stock.reserve";
const KEY: [u8; 32] = [7; 32];
const KID: &str = "test";

pub(crate) struct Server {
    pub(crate) kernel: Kernel,
    database: TestDatabase,
    channel: Channel,
}

pub(crate) type Client = InterceptedService<Channel, Bearer>;

/// Sends a token with every call, or none.
#[derive(Clone)]
pub(crate) struct Bearer(Option<String>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            let value = MetadataValue::try_from(format!("Bearer {token}")).unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let database = souk_testkit::sqlite().await;
        let kernel = Kernel::new(Clock::fake(DateTime::from_timestamp(1_800_000_000, 0).unwrap()));
        let mut config = Config {
            server: ServerConfig::on_port(0),
            database: database.config().clone(),
            user: ClientConfig::to(user_service().await),
            ..Config::default()
        };
        change(&mut config);
        let running = start(kernel.clone(), config, Deps { bus: Bus::memory() }).await.unwrap();
        let channel = Channel::from_shared(format!("http://{}", running.address)).unwrap().connect().await.unwrap();
        Self { kernel, database, channel }
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn catalog(&self, scopes: &str) -> CatalogServiceClient<Client> {
        CatalogServiceClient::with_interceptor(self.channel(), self.bearer("someone", scopes))
            .max_decoding_message_size(64 * 1024 * 1024)
    }

    pub(crate) fn stock(&self, scopes: &str) -> StockServiceClient<Client> {
        StockServiceClient::with_interceptor(self.channel(), self.bearer("service:order", scopes))
    }

    pub(crate) fn anonymous_catalog(&self) -> CatalogServiceClient<Client> {
        CatalogServiceClient::with_interceptor(self.channel(), Bearer(None))
    }

    pub(crate) fn bearer(&self, subject: &str, scopes: &str) -> Bearer {
        let now = self.kernel.clock.now().timestamp();
        let claims = Claims {
            iss: "souk".into(),
            aud: "souk".into(),
            sub: subject.into(),
            sid: None,
            jti: Uuid::from_u128(1),
            iat: now,
            exp: now + 600,
            scope: scopes.into(),
            roles: Vec::new(),
        };
        let header = Header { typ: Some(TYPE.into()), kid: Some(KID.into()), ..Header::new(Algorithm::EdDSA) };
        let der = SigningKey::from_bytes(&KEY).to_pkcs8_der().unwrap();
        Bearer(Some(jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ed_der(der.as_bytes())).unwrap()))
    }

    pub(crate) fn id(&self) -> String {
        self.kernel.ids.new_id().to_string()
    }

    /// A product, with `quantity` units of it.
    pub(crate) async fn with_stock(&self, sku: &str, quantity: i64) {
        let created = pb::CreateProductRequest { request_id: self.id(), product: Some(product(sku)) };
        self.catalog(STAFF).create_product(created).await.unwrap();
        if quantity > 0 {
            self.stock(STAFF).receive(self.receive(sku, quantity)).await.unwrap();
        }
    }

    pub(crate) fn receive(&self, sku: &str, quantity: i64) -> pb::ReceiveRequest {
        pb::ReceiveRequest {
            request_id: self.id(),
            sku: sku.into(),
            quantity,
            reason: pb::MovementReason::Purchase.into(),
            ..Default::default()
        }
    }

    pub(crate) fn reserve(&self, lines: &[(&str, i64)]) -> pb::ReserveRequest {
        pb::ReserveRequest { request_id: self.id(), reservation_id: self.id(), lines: quantities(lines), ttl: None }
    }

    pub(crate) async fn level(&self, sku: &str) -> pb::StockLevel {
        let request = pb::GetStockRequest { sku: sku.into(), location: String::new() };
        self.stock(STAFF).get_stock(request).await.unwrap().into_inner().level.unwrap()
    }

    /// How many rows there are in each table: a call that changes nothing leaves them so. Leases come and go by themselves.
    pub(crate) async fn rows(&self) -> Vec<(String, i64)> {
        let mut tx = self.database.read().await.unwrap();
        let tables: BTreeSet<String> =
            souk_db::schema::columns(&mut tx).await.unwrap().into_iter().map(|column| column.table_name).collect();
        let mut rows = Vec::new();
        for table in tables.into_iter().filter(|table| !["leases", "outbox_position"].contains(&table.as_str())) {
            let (count,): (i64,) = sql(format!("SELECT COUNT(*) FROM {table}")).fetch_one(&mut tx).await.unwrap();
            rows.push((table, count));
        }
        rows
    }

    /// While it lives, nobody else can write.
    pub(crate) async fn locked(&self) -> Tx {
        self.database.write().await.unwrap()
    }

    pub(crate) async fn assert_sound(&self) {
        let mut tx = self.database.read().await.unwrap();
        assert_eq!(invariants::check(&mut tx).await.unwrap(), []);
    }
}

pub(crate) fn product(sku: &str) -> pb::Product {
    pb::Product {
        sku: sku.into(),
        name: format!("The {sku}"),
        price: Some(Money { currency_code: "EUR".into(), amount_minor: 1_999 }),
        tax_basis_points: 1_900,
        attributes: [("colour".to_owned(), "green".to_owned())].into(),
        ..Default::default()
    }
}

pub(crate) fn quantities(lines: &[(&str, i64)]) -> Vec<pb::QuantityLine> {
    let line = |(sku, quantity): &(&str, i64)| pb::QuantityLine {
        sku: (*sku).into(),
        quantity: *quantity,
        location: String::new(),
    };
    lines.iter().map(line).collect()
}

/// Code and reason, as the table of errors has them.
#[track_caller]
pub(crate) fn assert_refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, reason: Reason) -> Status {
    let status = result.expect_err("must be refused");
    assert_eq!((status.code(), reason_of(&status)), (code, Some(reason)), "{status:?}");
    assert_eq!(status.get_details_error_info().unwrap().domain, "souk.dev");
    status
}

pub(crate) fn is_replay<T>(response: &Response<T>) -> bool {
    response.metadata().get("souk-idempotent-replay").is_some_and(|value| value == "true")
}

/// Tells its keys, and nothing else.
struct Keys;

async fn user_service() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder().add_service(AuthServiceServer::new(Keys));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not in this test"))
}

#[tonic::async_trait]
impl AuthService for Keys {
    async fn get_jwks(&self, _: Request<user::GetJwksRequest>) -> Result<Response<user::GetJwksResponse>, Status> {
        let x = URL_SAFE_NO_PAD.encode(SigningKey::from_bytes(&KEY).verifying_key().as_bytes());
        let jwk = |kty: &str, kid: &str| user::Jwk {
            kty: kty.into(),
            crv: "Ed25519".into(),
            x: x.clone(),
            kid: kid.into(),
            alg: "EdDSA".into(),
            r#use: "sig".into(),
        };
        Ok(Response::new(user::GetJwksResponse { keys: vec![jwk("RSA", "other"), jwk("OKP", KID)] }))
    }

    async fn register(&self, _: Request<user::RegisterRequest>) -> Result<Response<user::RegisterResponse>, Status> {
        not_here()
    }

    async fn login(&self, _: Request<user::LoginRequest>) -> Result<Response<user::LoginResponse>, Status> {
        not_here()
    }

    async fn refresh_token(
        &self,
        _: Request<user::RefreshTokenRequest>,
    ) -> Result<Response<user::RefreshTokenResponse>, Status> {
        not_here()
    }

    async fn logout(&self, _: Request<user::LogoutRequest>) -> Result<Response<user::LogoutResponse>, Status> {
        not_here()
    }

    async fn issue_service_token(
        &self,
        _: Request<user::IssueServiceTokenRequest>,
    ) -> Result<Response<user::IssueServiceTokenResponse>, Status> {
        not_here()
    }
}
