//! A running Souk as the benchmark calls it: plain connections, without any layer of ours, since what they cost would be measured too.

use std::time::{Duration, Instant};

use anyhow::Context;
use souk_proto_inventory::v1::catalog_service_client::CatalogServiceClient;
use souk_proto_inventory::v1::stock_service_client::StockServiceClient;
use souk_proto_order::v1::order_service_client::OrderServiceClient;
use souk_proto_user::v1::LoginRequest;
use souk_proto_user::v1::auth_service_client::AuthServiceClient;
use souk_proto_user::v1::user_service_client::UserServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

/// Where the services are: one address of each, or several, with commas between them. `https://` before one is by TLS.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    pub(crate) user: String,
    pub(crate) order: String,
    pub(crate) inventory: String,
    /// The certificates that vouch for them, where they are spoken to by TLS.
    pub(crate) authority: Option<Certificate>,
}

impl Addresses {
    /// Of the user, order and inventory service.
    fn lists(&self) -> [Vec<&str>; 3] {
        [&self.user, &self.order, &self.inventory].map(|list| list.split(',').map(str::trim).collect())
    }

    fn endpoint(&self, address: &str) -> anyhow::Result<Endpoint> {
        let url = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let endpoint = Endpoint::from_shared(url).with_context(|| format!("{address:?} is no address"))?;
        let Some(authority) = &self.authority else { return Ok(endpoint) };
        let tls = ClientTlsConfig::new().ca_certificate(authority.clone());
        endpoint.tls_config(tls).with_context(|| format!("{address:?} cannot be spoken to by TLS"))
    }
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Souk {
    addresses: Addresses,
    connections: Vec<[Channel; 3]>,
    timeout: Duration,
    admin: Option<Token>,
}

/// Somebody's access token, as a call carries it.
#[derive(Clone)]
pub(crate) struct Token(MetadataValue<Ascii>);

impl Token {
    /// Of the access token that a login has brought.
    pub(crate) fn new(access_token: &str) -> anyhow::Result<Self> {
        Ok(Self(format!("Bearer {access_token}").parse().context("a token is no header value")?))
    }
}

impl Souk {
    /// So many connections to each service, made when they are first used; several addresses take turns. `timeout` is the deadline of
    /// every call.
    pub(crate) fn new(addresses: &Addresses, connections: usize, timeout: Duration) -> anyhow::Result<Self> {
        let souk = Self { addresses: addresses.clone(), connections: Vec::new(), timeout, admin: None };
        souk.by(connections, None)
    }

    /// The same Souk, by connections of their own. With `window_bytes`, a stream takes no more before it is read.
    pub(crate) fn by(&self, connections: usize, window_bytes: Option<u32>) -> anyhow::Result<Self> {
        let channel = |list: &[&str], nth: usize| {
            let endpoint = self.addresses.endpoint(list[nth % list.len()])?;
            anyhow::Ok(endpoint.initial_stream_window_size(window_bytes).connect_lazy())
        };
        let [user, order, inventory] = self.addresses.lists();
        let all = |nth| Ok([channel(&user, nth)?, channel(&order, nth)?, channel(&inventory, nth)?]);
        let connections = (0..connections.max(1)).map(all).collect::<anyhow::Result<_>>()?;
        Ok(Self { connections, ..self.clone() })
    }

    /// Fails where a service does not let itself be connected to.
    pub(crate) async fn must_answer(&self) -> anyhow::Result<()> {
        for (service, list) in ["user", "order", "inventory"].into_iter().zip(self.addresses.lists()) {
            for address in list {
                let answer = self.addresses.endpoint(address)?.connect_timeout(CONNECT).connect().await;
                answer.with_context(|| format!("the {service} service does not answer at {address}"))?;
            }
        }
        Ok(())
    }

    /// The same, with somebody who may do everything.
    pub(crate) fn with_admin(self, admin: Token) -> Self {
        Self { admin: Some(admin), ..self }
    }

    /// The administrator's token.
    pub(crate) fn admin(&self) -> anyhow::Result<&Token> {
        self.admin.as_ref().context("this needs an administrator, and nobody has logged in as one")
    }

    /// Logs somebody in, however many logins are let in a second.
    pub(crate) async fn log_in(&self, email: &str, password: &str) -> anyhow::Result<(String, Token)> {
        let request = LoginRequest { email: email.to_owned(), password: password.to_owned() };
        let answer = patiently(async || self.auth(0).login(self.request(None, request.clone())).await).await;
        let answer = answer.with_context(|| format!("{email} cannot log in"))?.into_inner();
        let token = answer.tokens.context("a login without tokens")?.access_token;
        Ok((answer.user.context("a login without a user")?.user_id, Token::new(&token)?))
    }

    /// A call with its deadline, and whose it is.
    pub(crate) fn request<T>(&self, token: Option<&Token>, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(Token(value)) = token {
            request.metadata_mut().insert("authorization", value.clone());
        }
        request.set_timeout(self.timeout);
        request
    }

    /// A call without a deadline: a stream that goes on.
    pub(crate) fn endless<T>(Token(value): &Token, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", value.clone());
        request
    }

    /// AuthService, by the connection whose turn it is.
    pub(crate) fn auth(&self, nth: u64) -> AuthServiceClient<Channel> {
        AuthServiceClient::new(self.channel(0, nth))
    }

    /// UserService.
    pub(crate) fn users(&self, nth: u64) -> UserServiceClient<Channel> {
        UserServiceClient::new(self.channel(0, nth))
    }

    /// OrderService.
    pub(crate) fn orders(&self, nth: u64) -> OrderServiceClient<Channel> {
        OrderServiceClient::new(self.channel(1, nth))
    }

    /// CatalogService.
    pub(crate) fn catalog(&self, nth: u64) -> CatalogServiceClient<Channel> {
        CatalogServiceClient::new(self.channel(2, nth))
    }

    /// StockService.
    pub(crate) fn stock(&self, nth: u64) -> StockServiceClient<Channel> {
        StockServiceClient::new(self.channel(2, nth))
    }

    fn channel(&self, service: usize, nth: u64) -> Channel {
        self.connections[index(nth, self.connections.len())][service].clone()
    }
}

/// Whose turn it is among so many.
pub(crate) fn index(nth: u64, many: usize) -> usize {
    let many = u64::try_from(many.max(1)).unwrap_or(u64::MAX);
    usize::try_from(nth % many).unwrap_or_default()
}

/// Preparing and checking are not measured: what is refused for now is tried again.
pub(crate) async fn patiently<T>(mut call: impl AsyncFnMut() -> Result<T, Status>) -> Result<T, Status> {
    let began = Instant::now();
    loop {
        match call().await {
            Err(status) if is_for_now(&status) && began.elapsed() < PATIENCE => tokio::time::sleep(PAUSE).await,
            result => return result,
        }
    }
}

/// Looks until all is done, or nothing changes any more; what was seen last, and how many seconds it took until then.
pub(crate) async fn settled<T: PartialEq>(
    look: impl AsyncFn() -> anyhow::Result<T>,
    is_done: impl Fn(&T) -> bool,
) -> anyhow::Result<(T, f64)> {
    let began = Instant::now();
    let (mut last, mut changed_at) = (look().await?, Instant::now());
    while !is_done(&last) && changed_at.elapsed() < STUCK_AFTER {
        tokio::time::sleep(LOOK).await;
        let now = look().await?;
        if now != last {
            (last, changed_at) = (now, Instant::now());
        }
    }
    Ok((last, (changed_at - began).as_secs_f64()))
}

/// What has come no further for so long will not.
const STUCK_AFTER: Duration = Duration::from_secs(20);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(50);

fn is_for_now(status: &Status) -> bool {
    let for_now = [Code::ResourceExhausted, Code::Unavailable, Code::Aborted, Code::DeadlineExceeded];
    for_now.contains(&status.code())
}

/// So long a service may take to be connected to.
const CONNECT: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(100);
