//! A server of one test, on a clock that stands still, and clients with and without tokens.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::DateTime;
use souk_db::sql;
use souk_events::Bus;
use souk_proto_common::failure::reason_of;
use souk_proto_common::v1::Reason;
use souk_proto_user::v1 as pb;
use souk_proto_user::v1::auth_service_client::AuthServiceClient;
use souk_proto_user::v1::user_service_client::UserServiceClient;
use souk_runtime::server::ServerConfig;
use souk_runtime::{Clock, Kernel, Secret};
use souk_testkit::TestDatabase;
use souk_user::config::{Config, PasswordsConfig, ServiceAccount};
use souk_user::{Deps, Running, start};
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

pub(crate) const PASSWORD: &str = "correct horse battery staple";
pub(crate) const SERVICE_SECRET: &str = "0123456789abcdef0123456789abcdef";

pub(crate) struct Server {
    pub(crate) kernel: Kernel,
    pub(crate) running: Running,
    pub(crate) database: TestDatabase,
    pub(crate) config: Config,
    channel: Channel,
}

pub(crate) type Users = UserServiceClient<InterceptedService<Channel, Bearer>>;

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
        Self::start_on(souk_testkit::sqlite().await).await
    }

    pub(crate) async fn start_on(database: TestDatabase) -> Self {
        let kernel = Kernel::new(Clock::fake(DateTime::from_timestamp(1_800_000_000, 0).unwrap()));
        let account = ServiceAccount { secret: Secret::new(SERVICE_SECRET), scopes: vec!["stock.reserve".into()] };
        let config = Config {
            server: ServerConfig::on_port(0),
            database: database.config().clone(),
            // As cheap as Argon2 allows: it is not the cost that is tested here.
            passwords: PasswordsConfig { memory_kib: 64, passes: 1, ..PasswordsConfig::default() },
            service_accounts: [("order".to_owned(), account)].into(),
            ..Config::default()
        };
        let running = start(kernel.clone(), config.clone(), Deps::new(Bus::memory())).await.unwrap();
        let channel = Channel::from_shared(format!("http://{}", running.address)).unwrap().connect().await.unwrap();
        Self { kernel, running, database, config, channel }
    }

    /// The same database again, as another replica has it or the same one after a restart.
    pub(crate) async fn start_again(&self, change: impl FnOnce(&mut Config)) -> Running {
        let mut config = self.config.clone();
        change(&mut config);
        start(Kernel::new(self.kernel.clock.clone()), config, Deps::new(Bus::memory())).await.unwrap()
    }

    /// A client of its own connection.
    pub(crate) async fn users_of(running: &Running, access_token: &str) -> Users {
        let channel = Channel::from_shared(format!("http://{}", running.address)).unwrap().connect().await.unwrap();
        UserServiceClient::with_interceptor(channel, Bearer(Some(access_token.to_owned())))
    }

    pub(crate) fn auth(&self) -> AuthServiceClient<Channel> {
        AuthServiceClient::new(self.channel.clone())
    }

    pub(crate) fn users(&self, access_token: &str) -> Users {
        UserServiceClient::with_interceptor(self.channel.clone(), Bearer(Some(access_token.to_owned())))
    }

    /// A client that sends what no generated client can.
    pub(crate) fn raw(&self, access_token: &str) -> Grpc<InterceptedService<Channel, Bearer>> {
        Grpc::new(InterceptedService::new(self.channel.clone(), Bearer(Some(access_token.to_owned()))))
    }

    pub(crate) fn anonymous(&self) -> Users {
        UserServiceClient::with_interceptor(self.channel.clone(), Bearer(None))
    }

    pub(crate) fn id(&self) -> String {
        self.kernel.ids.new_id().to_string()
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.kernel.clock.advance(Duration::from_secs(seconds));
    }

    pub(crate) fn register_request(&self, email: &str) -> pb::RegisterRequest {
        pb::RegisterRequest {
            request_id: self.id(),
            email: email.into(),
            password: PASSWORD.into(),
            display_name: "Ada".into(),
        }
    }

    pub(crate) async fn register(&self, email: &str) -> pb::User {
        let registered = self.auth().register(self.register_request(email)).await.unwrap();
        registered.into_inner().user.unwrap()
    }

    pub(crate) async fn try_login(&self, email: &str, password: &str) -> Result<pb::TokenPair, Status> {
        let request = pb::LoginRequest { email: email.into(), password: password.into() };
        Ok(self.auth().login(request).await?.into_inner().tokens.unwrap())
    }

    pub(crate) async fn login(&self, email: &str) -> pb::TokenPair {
        self.try_login(email, PASSWORD).await.unwrap()
    }

    /// A customer with a token.
    pub(crate) async fn customer(&self, email: &str) -> (pb::User, Users) {
        let user = self.register(email).await;
        (user, self.users(&self.login(email).await.access_token))
    }

    /// The first administrator, with a token.
    pub(crate) async fn admin(&self) -> (pb::User, Users) {
        let first = self.running.first_administrator.clone().unwrap();
        let tokens = self.try_login(&first.email, first.password.expose()).await.unwrap();
        let mut users = self.users(&tokens.access_token);
        (users.get_me(pb::GetMeRequest {}).await.unwrap().into_inner().user.unwrap(), users)
    }

    pub(crate) async fn refresh(&self, refresh_token: &str) -> Result<pb::TokenPair, Status> {
        let request = pb::RefreshTokenRequest { refresh_token: refresh_token.into() };
        Ok(self.auth().refresh_token(request).await?.into_inner().tokens.unwrap())
    }

    /// How many rows each table has: no call that is refused changes it.
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

    /// What happened to the subject, in the order of the alphabet: the clock stands still.
    pub(crate) async fn audit(&self, subject: &str) -> Vec<String> {
        let mut tx = self.database.read().await.unwrap();
        let select = sql("SELECT action FROM audit_events WHERE subject = $1 ORDER BY action").bind(subject);
        select.fetch_all::<(String,)>(&mut tx).await.unwrap().into_iter().map(|(action,)| action).collect()
    }
}

pub(crate) async fn auth_of(running: &Running) -> AuthServiceClient<Channel> {
    let channel = Channel::from_shared(format!("http://{}", running.address)).unwrap();
    AuthServiceClient::new(channel.connect().await.unwrap())
}

pub(crate) fn get(user_id: &str) -> pb::GetUserRequest {
    pb::GetUserRequest { user_id: user_id.into() }
}

#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, reason: Reason) -> Status {
    let status = result.unwrap_err();
    assert_eq!((status.code(), reason_of(&status)), (code, Some(reason)), "{status:?}");
    status
}

/// The bad fields of an INVALID_ARGUMENT, with their reasons.
#[track_caller]
pub(crate) fn violations<T: std::fmt::Debug>(result: Result<T, Status>) -> Vec<(String, String)> {
    let status = refused(result, Code::InvalidArgument, Reason::InvalidRequest);
    let named = status.get_details_bad_request().unwrap().field_violations;
    named.into_iter().map(|violation| (violation.field, violation.reason)).collect()
}
