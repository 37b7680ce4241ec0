//! The demonstration: a small catalogue with stock, and two customers, so that a newcomer can order at once. `souk --demo` loads it into the
//! suite, and the binary `souk-demo` into services that run as processes of their own.
//!
//! It goes in by the RPCs that anyone would use. It may be loaded again: what is there already stays as it is.

use anyhow::Context;
use souk_interceptors::client::{self, Channel, ClientConfig, IssuedToken, ServiceToken};
use souk_proto_common::time;
use souk_proto_common::v1::Money;
use souk_proto_inventory::v1;
use souk_proto_inventory::v1::catalog_service_client::CatalogServiceClient;
use souk_proto_inventory::v1::stock_service_client::StockServiceClient;
use souk_proto_user::v1::auth_service_client::AuthServiceClient;
use souk_proto_user::v1::{IssueServiceTokenRequest, RegisterRequest};
use souk_runtime::{Kernel, Secret};
use tonic::{Code, Status};

use crate::Running;

/// What the user service knows the one who loads it as.
pub const ACCOUNT: &str = "demo";
/// What its tokens allow.
pub const SCOPES: [&str; 3] = ["catalog.write", "stock.read", "stock.write"];
/// Sku, name, price in cents, units.
pub const PRODUCTS: [(&str, &str, i64, i64); 6] = [
    ("COFFEE-ARABICA-1KG", "Arabica coffee, 1 kg", 1_890, 120),
    ("CUP-COPPER", "Copper cup, hammered", 2_450, 40),
    ("DATES-MEDJOOL-500G", "Medjool dates, 500 g", 1_290, 200),
    ("LAMP-BRASS", "Brass lamp", 14_900, 5),
    ("RUG-KILIM-2M", "Kilim rug, 2 m", 38_900, 1),
    ("TEA-GREEN-100G", "Green tea, 100 g", 690, 500),
];
/// 19 %.
const TAX_BASIS_POINTS: i32 = 1_900;

/// Name, address, password.
pub const CUSTOMERS: [(&str, &str, &str); 2] =
    [("Alice", "alice@example.com", "alice-in-the-souk"), ("Bob", "bob@example.com", "bob-in-the-souk")];

/// Loads the demonstration into the suite.
pub async fn load(kernel: &Kernel, running: &Running) -> anyhow::Result<()> {
    let (user, inventory) = (ClientConfig::to(running.user.address), ClientConfig::to(running.inventory.address));
    load_into(kernel, &user, &inventory, running.demo_secret.clone()).await
}

/// Loads the demonstration into the services that are reached so. The user service knows `secret` as that of [`ACCOUNT`], whose tokens
/// allow [`SCOPES`].
pub async fn load_into(
    kernel: &Kernel,
    user: &ClientConfig,
    inventory: &ClientConfig,
    secret: Secret,
) -> anyhow::Result<()> {
    let users = client::connect(kernel, "user", user, &[souk_proto_user::METHODS], None)?;
    register(kernel, users.clone()).await.context("the customers cannot be registered")?;
    let token = ServiceToken::new(kernel.clock.clone(), token_source(users, secret));
    let channel = client::connect(kernel, "inventory", inventory, &[souk_proto_inventory::METHODS], Some(token))?;
    for product in PRODUCTS {
        stock_up(kernel, &channel, product).await.with_context(|| format!("{} cannot be loaded", product.0))?;
    }
    Ok(())
}

async fn register(kernel: &Kernel, users: Channel) -> Result<(), Status> {
    let mut auth = AuthServiceClient::new(users);
    for (name, email, password) in CUSTOMERS {
        let request = RegisterRequest {
            request_id: kernel.ids.new_id().to_string(),
            email: email.to_owned(),
            password: password.to_owned(),
            display_name: name.to_owned(),
        };
        unless_there(auth.register(request).await)?;
    }
    Ok(())
}

async fn stock_up(
    kernel: &Kernel,
    channel: &Channel,
    (sku, name, price_minor, units): (&str, &str, i64, i64),
) -> Result<(), Status> {
    let product = v1::Product {
        sku: sku.to_owned(),
        name: name.to_owned(),
        price: Some(Money { currency_code: "EUR".to_owned(), amount_minor: price_minor }),
        tax_basis_points: TAX_BASIS_POINTS,
        ..v1::Product::default()
    };
    let create = v1::CreateProductRequest { request_id: kernel.ids.new_id().to_string(), product: Some(product) };
    unless_there(CatalogServiceClient::new(channel.clone()).create_product(create).await)?;
    let mut stock = StockServiceClient::new(channel.clone());
    let level = stock.get_stock(v1::GetStockRequest { sku: sku.to_owned(), location: String::new() }).await?;
    if level.into_inner().level.is_some_and(|level| level.version > 0) {
        return Ok(()); // it has had its stock, and may have been sold since
    }
    let receive = v1::ReceiveRequest {
        request_id: kernel.ids.new_id().to_string(),
        sku: sku.to_owned(),
        quantity: units,
        reason: v1::MovementReason::Purchase.into(),
        reference: "demo".to_owned(),
        location: String::new(),
    };
    stock.receive(receive).await?;
    Ok(())
}

fn unless_there<T>(result: Result<T, Status>) -> Result<(), Status> {
    match result {
        Err(status) if status.code() != Code::AlreadyExists => Err(status),
        _ => Ok(()),
    }
}

fn token_source(users: Channel, secret: Secret) -> client::TokenSource {
    std::sync::Arc::new(move || {
        let mut auth = AuthServiceClient::new(users.clone());
        let request =
            IssueServiceTokenRequest { service: ACCOUNT.to_owned(), client_secret: secret.expose().to_owned() };
        Box::pin(async move {
            let issued = auth.issue_service_token(request).await?.into_inner();
            let expires_at = issued.access_token_expire_time.and_then(|at| time::parse(&at).ok());
            let expires_at = expires_at.ok_or_else(|| Status::internal("a service token has no end"))?;
            Ok(IssuedToken { token: Secret::new(issued.access_token), expires_at })
        })
    })
}
