//! The order service over the wire, between a real user service and a real inventory, with a proxy before the inventory that can break
//! any call on its way there or back.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod bad_input;
mod cancelling;
mod dead_letters;
mod failing;
mod owners;
mod placing;
mod proxy;
mod streaming;

use std::time::Duration;

use souk_db::DbConfig;
use souk_interceptors::client::ClientConfig;
use souk_interceptors::server::RateLimit;
use souk_order::{Config, Deps, Running};
use souk_proto_common::failure::reason_of;
use souk_proto_common::v1::Reason;
use souk_proto_inventory::v1 as inventory;
use souk_proto_inventory::v1::watch_stock_response::Update;
use souk_proto_order::v1::order_service_client::OrderServiceClient;
use souk_proto_order::v1::{
    CancelOrderRequest, Order, OrderItem, OrderState, PlaceOrderRequest, WatchOrderRequest, WatchOrderResponse,
};
use souk_runtime::{Clock, Kernel, Secret};
use souk_testkit::suite::{Person, Suite, config, new_id};
use souk_user::config::ServiceAccount;
use tempfile::TempDir;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use self::proxy::Proxy;

const SECRET: &str = "a secret of the tests, long enough";
/// For so long stock is held: less than a token is good for.
const HOLD_TTL: Duration = Duration::from_mins(2);
/// Nothing here takes so long unless it never happens.
const PATIENCE: Duration = Duration::from_secs(20);

/// An order service of its own process, as far as it knows.
struct Shop {
    suite: Suite,
    proxy: Proxy,
    clock: Clock,
    folder: TempDir,
    replicas: Vec<Replica>,
}

struct Replica {
    kernel: Kernel,
    running: Running,
    channel: Channel,
    bus: souk_events::Bus,
}

type Bearer = Box<dyn FnMut(Request<()>) -> Result<Request<()>, Status> + Send + Sync>;
type Orders = OrderServiceClient<InterceptedService<Channel, Bearer>>;

impl Shop {
    /// One order service on SQLite, one customer-to-be, no products.
    async fn open() -> Self {
        let mut shop = Self::closed().await;
        let database = shop.sqlite();
        shop.start(database, |_| ()).await;
        shop
    }

    /// Everything but an order service.
    async fn closed() -> Self {
        let folder = TempDir::with_prefix("souk-order-").unwrap();
        let clock = Clock::fake(chrono::DateTime::from_timestamp(1_790_000_000, 0).unwrap());
        let mut config = config(folder.path());
        let account = |scopes: &[&str]| ServiceAccount {
            secret: Secret::new(SECRET),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        };
        config.user.service_accounts.insert("order-tested".into(), account(&["stock.reserve"]));
        config.user.service_accounts.insert("robot".into(), account(&["orders.place", "orders.read"]));
        let suite = Box::pin(Suite::start_with(config, clock.clone())).await;
        let proxy = Proxy::start(&suite.kernel, suite.running.inventory.address).await;
        Self { suite, proxy, clock, folder, replicas: Vec::new() }
    }

    fn sqlite(&self) -> DbConfig {
        DbConfig::at(format!("sqlite://{}", self.folder.path().join("orders.sqlite").display()))
    }

    /// Starts an order service on `database`, configured by `amend`.
    async fn start(&mut self, database: DbConfig, amend: impl FnOnce(&mut Config)) {
        let mut config = Config { database, ..Config::default() };
        config.server.listen = ([127, 0, 0, 1], 0).into();
        config.stack.writes = RateLimit { per_second: 0, burst: 0 };
        config.user = ClientConfig::to(self.suite.running.user.address);
        // Each try is one call, so that a test can count and stop them one by one.
        config.lane.batch_max = 1;
        config.lane.calls_max = 100;
        config.inventory = ClientConfig { tries_max: 1, ..ClientConfig::to(self.proxy.address) };
        config.token.service_name = "order-tested".into();
        config.token.client_secret = Secret::new(SECRET);
        config.limits.hold_ttl_ms = u64::try_from(HOLD_TTL.as_millis()).unwrap();
        amend(&mut config);
        let kernel = Kernel::new(self.clock.clone());
        let bus = souk_events::Bus::memory();
        let running = Box::pin(souk_order::start(kernel.clone(), config, Deps { bus: bus.clone() })).await.unwrap();
        let channel = Endpoint::from_shared(format!("http://{}", running.address)).unwrap().connect_lazy();
        self.replicas.push(Replica { kernel, running, channel, bus });
    }

    fn orders(&self, person: &Person) -> Orders {
        self.orders_at(0, person)
    }

    fn orders_at(&self, replica: usize, person: &Person) -> Orders {
        self.orders_with_token(replica, &person.token)
    }

    fn orders_with_token(&self, replica: usize, token: &str) -> Orders {
        let value: tonic::metadata::MetadataValue<_> = format!("Bearer {token}").parse().unwrap();
        let bearer: Bearer = Box::new(move |mut request: Request<()>| {
            request.metadata_mut().insert("authorization", value.clone());
            Ok(request)
        });
        OrderServiceClient::with_interceptor(self.replicas[replica].channel.clone(), bearer)
    }

    async fn place(&self, person: &Person, request: PlaceOrderRequest) -> Result<Order, Status> {
        Ok(self.orders(person).place_order(request).await?.into_inner().order.unwrap())
    }

    async fn cancel(&self, person: &Person, order: &Order) -> Result<Order, Status> {
        let request =
            CancelOrderRequest { request_id: new_id(), order_id: order.order_id.clone(), etag: String::new() };
        Ok(self.orders(person).cancel_order(request).await?.into_inner().order.unwrap())
    }

    async fn watch(&self, person: &Person, order: &Order, after_version: i64) -> Streaming<WatchOrderResponse> {
        let request = WatchOrderRequest { order_id: order.order_id.clone(), after_version };
        self.orders(person).watch_order(request).await.unwrap().into_inner()
    }

    /// The order once it has left PENDING.
    async fn settled(&self, person: &Person, order: &Order) -> Order {
        next(&mut self.watch(person, order, 1).await).await.unwrap()
    }

    /// Waits until the stock of a product is so.
    async fn stock_becomes(&self, sku: &str, wanted: impl Fn(&inventory::StockLevel) -> bool) {
        let request = inventory::WatchStockRequest { skus: vec![sku.into()], ..Default::default() };
        let mut levels = self.suite.stock(Some(self.suite.admin())).watch_stock(request).await.unwrap().into_inner();
        let becoming = async {
            loop {
                if let Some(Update::Level(level)) = levels.message().await.unwrap().unwrap().update
                    && wanted(&level)
                {
                    return;
                }
            }
        };
        let became = tokio::time::timeout(PATIENCE, becoming).await;
        assert!(became.is_ok(), "{:?}", self.suite.level(sku).await);
    }

    /// Held and allocated units of a product.
    async fn promised(&self, sku: &str) -> (i64, i64) {
        let level = self.suite.level(sku).await;
        (level.held, level.allocated)
    }

    /// Steps that are not over, of every order.
    async fn steps_due(&self) -> i64 {
        let mut tx = self.replicas[0].running.app.db.read().await.unwrap();
        souk_order::store::backlog(&mut tx, self.clock.now(), 1_000).await.unwrap().due
    }

    /// Waits until no order owes anything, and checks the inventory's equations.
    async fn at_rest(&self) {
        eventually("no step is due", async || self.steps_due().await == 0).await;
        let mut tx = self.suite.running.inventory.app.db.read().await.unwrap();
        let violations = souk_inventory::store::invariants::check(&mut tx).await.unwrap();
        assert!(violations.is_empty(), "{violations:?}");
    }

    /// Rows of every table that a refused request must leave alone.
    async fn rows(&self) -> Vec<i64> {
        let mut tx = self.replicas[0].running.app.db.read().await.unwrap();
        let mut counts = Vec::new();
        for table in ["orders", "order_lines", "order_versions", "saga_steps", "outbox", "idempotency_keys"] {
            let count: (i64,) = souk_db::sql(format!("SELECT COUNT(*) FROM {table}")).fetch_one(&mut tx).await.unwrap();
            counts.push(count.0);
        }
        counts
    }

    /// A metric of the first replica.
    fn metric(&self, line: &str) -> Option<f64> {
        let text = self.replicas[0].kernel.metrics.encode();
        text.lines().find_map(|found| found.strip_prefix(line)).map(|value| value.trim().parse().unwrap())
    }
}

/// The order of the next message; `None`: the stream has ended well.
async fn next(versions: &mut Streaming<WatchOrderResponse>) -> Option<Order> {
    let message = tokio::time::timeout(PATIENCE, versions.message()).await.expect("a version comes");
    message.unwrap().map(|message| message.order.unwrap())
}

/// Looks again and again until it is so.
async fn eventually(what: &str, is_so: impl AsyncFnMut() -> bool) {
    souk_testkit::within(PATIENCE, what, is_so).await;
}

fn items(items: &[(&str, i64)]) -> PlaceOrderRequest {
    let items = items.iter().map(|(sku, quantity)| OrderItem { sku: (*sku).into(), quantity: *quantity }).collect();
    PlaceOrderRequest { request_id: new_id(), items, expected_total: None }
}

/// Says so much time is left for the call.
fn within<T>(message: T, left: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(left);
    request
}

fn why(status: &Status) -> (Code, Option<Reason>) {
    (status.code(), reason_of(status))
}

fn state(order: &Order) -> OrderState {
    order.state()
}
