//! What a test does with a running Souk, whatever its form: people, products, orders, by the generated clients over real sockets.

use souk_interceptors::client;
use souk_proto_common::v1::Money;
use souk_proto_inventory::v1 as inventory;
use souk_proto_inventory::v1::catalog_service_client::CatalogServiceClient;
use souk_proto_inventory::v1::stock_service_client::StockServiceClient;
use souk_proto_order::v1 as order;
use souk_proto_order::v1::order_service_client::OrderServiceClient;
use souk_proto_user::v1 as user;
use souk_proto_user::v1::auth_service_client::AuthServiceClient;
use souk_proto_user::v1::user_service_client::UserServiceClient;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tower::ServiceExt;
use uuid::Uuid;

/// A channel that sends a token, if it has one.
pub type Client = InterceptedService<client::Channel, Bearer>;

/// Sends a token with every call.
#[derive(Clone, Debug)]
pub struct Bearer(Option<String>);

impl Bearer {
    /// Sends the token of `person`, if there is one.
    pub fn of(person: Option<&Person>) -> Self {
        Self(person.map(|person| person.token.clone()))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            let value = format!("Bearer {token}").parse().map_err(|_| Status::internal("a token is a header value"))?;
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

/// Somebody who is logged in.
#[derive(Clone, Debug)]
pub struct Person {
    /// Who.
    pub user_id: String,
    /// Their access token.
    pub token: String,
    /// Their refresh token.
    pub refresh_token: String,
}

/// Everybody's password.
pub const PASSWORD: &str = "correct horse battery staple";

/// A fresh UUID, for a `request_id` that nobody has used.
#[expect(clippy::disallowed_methods, reason = "a test's own ids need no seed")]
pub fn new_id() -> String {
    Uuid::new_v4().to_string()
}

/// An order of one line, under a key of its own.
pub fn one(sku: &str, quantity: i64) -> order::PlaceOrderRequest {
    let items = vec![order::OrderItem { sku: sku.to_owned(), quantity }];
    order::PlaceOrderRequest { request_id: new_id(), items, expected_total: None }
}

/// A Souk, as its callers see it: the channels to its services, and somebody who may do everything.
#[derive(Clone)]
pub struct Shop {
    channels: [client::Channel; 3],
    admin: Option<Person>,
}

/// A channel over all of the `addresses`, connected when it is first used, without any of our own layers.
pub fn plain_channel(addresses: &[impl std::fmt::Display]) -> client::Channel {
    let endpoint = |address| Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let channel = match addresses {
        [address] => endpoint(address).connect_lazy(),
        addresses => Channel::balance_list(addresses.iter().map(endpoint)),
    };
    client::Channel::new(channel.map_err(|error| Status::from_error(error.into())))
}

impl Shop {
    /// A Souk behind the channels to its user, order and inventory service.
    pub fn new(channels: [client::Channel; 3]) -> Self {
        Self { channels, admin: None }
    }

    /// Logs the administrator in.
    pub async fn log_in_admin(&mut self, email: &str, password: &str) {
        self.admin = Some(self.log_in(email, password).await);
    }

    /// The same Souk, by other channels.
    #[must_use]
    pub fn by(&self, channels: [client::Channel; 3]) -> Self {
        Self { channels, admin: self.admin.clone() }
    }

    /// The administrator that the first start made.
    pub fn admin(&self) -> &Person {
        self.admin.as_ref().expect("the administrator has logged in")
    }

    /// Registers somebody and logs them in.
    pub async fn customer(&self, name: &str) -> Person {
        let email = format!("{name}@example.com");
        let request = user::RegisterRequest {
            request_id: new_id(),
            email: email.clone(),
            password: PASSWORD.to_owned(),
            display_name: name.to_owned(),
        };
        self.auth().register(request).await.expect("a customer registers");
        self.log_in(&email, PASSWORD).await
    }

    /// Logs somebody in.
    pub async fn log_in(&self, email: &str, password: &str) -> Person {
        let request = user::LoginRequest { email: email.to_owned(), password: password.to_owned() };
        let answer = self.auth().login(request).await.expect("the login succeeds").into_inner();
        let tokens = answer.tokens.expect("tokens");
        Person {
            user_id: answer.user.expect("a user").user_id,
            token: tokens.access_token,
            refresh_token: tokens.refresh_token,
        }
    }

    /// Adds a product at this price in cents, without tax, with so many units.
    pub async fn product(&self, sku: &str, price_minor: i64, units: i64) {
        let admin = self.admin();
        let price = Some(Money { currency_code: "EUR".to_owned(), amount_minor: price_minor });
        let product =
            inventory::Product { sku: sku.to_owned(), name: sku.to_owned(), price, ..inventory::Product::default() };
        let create = inventory::CreateProductRequest { request_id: new_id(), product: Some(product) };
        self.catalog(Some(admin)).create_product(create).await.expect("a product is created");
        if units > 0 {
            let receive = inventory::ReceiveRequest {
                request_id: new_id(),
                sku: sku.to_owned(),
                quantity: units,
                reason: inventory::MovementReason::Purchase.into(),
                ..inventory::ReceiveRequest::default()
            };
            self.stock(Some(admin)).receive(receive).await.expect("stock is received");
        }
    }

    /// The stock of a product.
    pub async fn level(&self, sku: &str) -> inventory::StockLevel {
        let request = inventory::GetStockRequest { sku: sku.to_owned(), ..inventory::GetStockRequest::default() };
        let response = self.stock(Some(self.admin())).get_stock(request).await.expect("stock is read");
        response.into_inner().level.expect("a level")
    }

    /// Places an order.
    ///
    /// # Errors
    ///
    /// As PlaceOrder has them.
    pub async fn place(&self, person: &Person, request: order::PlaceOrderRequest) -> Result<order::Order, Status> {
        Ok(self.orders(Some(person)).place_order(request).await?.into_inner().order.expect("an order"))
    }

    /// All orders of somebody, newest first.
    pub async fn own_orders(&self, person: &Person) -> Vec<order::Order> {
        let mut orders = Vec::new();
        let mut request = order::ListOrdersRequest { page_size: 1_000, ..order::ListOrdersRequest::default() };
        loop {
            let page = self.orders(Some(person)).list_orders(request.clone()).await.expect("a page").into_inner();
            orders.extend(page.orders);
            if page.next_page_token.is_empty() {
                return orders;
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Waits until the order has left PENDING, by watching it.
    pub async fn settled(&self, person: &Person, order_id: &str) -> order::Order {
        let request = order::WatchOrderRequest { order_id: order_id.to_owned(), after_version: 1 };
        let mut versions = self.orders(Some(person)).watch_order(request).await.expect("the watch begins").into_inner();
        let version = versions.message().await.expect("the watch goes on").expect("a second version");
        version.order.expect("an order")
    }

    /// AuthService, without a token.
    pub fn auth(&self) -> AuthServiceClient<Client> {
        AuthServiceClient::new(self.client(0, None))
    }

    /// UserService.
    pub fn users(&self, person: Option<&Person>) -> UserServiceClient<Client> {
        UserServiceClient::new(self.client(0, person))
    }

    /// OrderService.
    pub fn orders(&self, person: Option<&Person>) -> OrderServiceClient<Client> {
        OrderServiceClient::new(self.client(1, person))
    }

    /// CatalogService.
    pub fn catalog(&self, person: Option<&Person>) -> CatalogServiceClient<Client> {
        CatalogServiceClient::new(self.client(2, person))
    }

    /// StockService.
    pub fn stock(&self, person: Option<&Person>) -> StockServiceClient<Client> {
        StockServiceClient::new(self.client(2, person))
    }

    /// A channel to the user (0), order (1) or inventory (2) service.
    pub fn client(&self, service: usize, person: Option<&Person>) -> Client {
        InterceptedService::new(self.channels[service].clone(), Bearer::of(person))
    }
}
