//! What a run stands on: products with stock, and customers, made for it by the RPCs that anyone would use. They stay; their names tell
//! one run from another.

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use souk_proto_common::v1::Money;
use souk_proto_inventory::v1::{BatchGetStockRequest, GetProductRequest};
use souk_proto_inventory::v1::{
    CreateProductRequest, GetProductResponse, MovementReason, Product, ReceiveRequest, StockLevel,
};
use souk_proto_user::v1::RegisterRequest;
use souk_testkit::shop::new_id;

use crate::progress::Progress;
use crate::souk::{Souk, Token, patiently};

/// How much is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) products: usize,
    pub(crate) customers: usize,
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Market {
    pub(crate) skus: Vec<String>,
    pub(crate) customers: Vec<Customer>,
    /// That of all customers, made up for this run.
    pub(crate) password: String,
}

/// Somebody who buys.
#[derive(Clone)]
pub(crate) struct Customer {
    pub(crate) user_id: String,
    pub(crate) email: String,
    pub(crate) token: Token,
}

/// Nobody buys so much.
pub(crate) const UNITS: i64 = 1_000_000_000;
/// Calls that prepare, at a time.
const AT_A_TIME: usize = 32;
/// As many as BatchGetStock takes.
const BATCH: usize = 100;

impl Market {
    /// Makes it.
    pub(crate) async fn prepare(souk: &Souk, size: Size, progress: &Progress) -> anyhow::Result<Self> {
        let (tag, password) = (new_id()[..8].to_uppercase(), new_id());
        progress.phase("preparing products and customers", size.products + size.customers);
        let product = async |nth: usize| {
            let sku = format!("BENCH-{tag}-{nth:06}");
            stock_up(souk, product(&sku)).await.with_context(|| format!("product {sku} cannot be made"))?;
            progress.step();
            anyhow::Ok(sku)
        };
        let skus = stream::iter(0..size.products).map(product).buffered(AT_A_TIME).try_collect().await?;
        let customer = async |nth: usize| {
            let customer = register(souk, &format!("bench-{}-{nth}", tag.to_lowercase()), &password).await?;
            progress.step();
            anyhow::Ok(customer)
        };
        let customers = stream::iter(0..size.customers).map(customer).buffered(AT_A_TIME).try_collect().await?;
        Ok(Self { skus, customers, password })
    }

    /// The stock of all products.
    pub(crate) async fn levels(&self, souk: &Souk) -> anyhow::Result<Vec<StockLevel>> {
        let mut levels = Vec::with_capacity(self.skus.len());
        for skus in self.skus.chunks(BATCH) {
            let request = BatchGetStockRequest { skus: skus.to_vec(), location: String::new() };
            let admin = Some(souk.admin()?);
            let answer =
                patiently(async || souk.stock(0).batch_get_stock(souk.request(admin, request.clone())).await).await;
            levels.extend(answer.context("the stock cannot be read")?.into_inner().levels);
        }
        anyhow::ensure!(levels.len() == self.skus.len(), "{} products of {}", levels.len(), self.skus.len());
        Ok(levels)
    }

    /// What the server answers when it is asked for the first product.
    pub(crate) async fn sample(&self, souk: &Souk) -> anyhow::Result<GetProductResponse> {
        let request = GetProductRequest { sku: self.skus[0].clone() };
        Ok(souk.catalog(0).get_product(souk.request(None, request)).await?.into_inner())
    }
}

/// A product as shops have them: some hundred bytes.
fn product(sku: &str) -> Product {
    let attributes = [("brand", "Souk"), ("colour", "copper"), ("weight_g", "450")];
    Product {
        sku: sku.to_owned(),
        name: format!("Copper cup, hammered, {sku}"),
        description: "Made by hand in the old town, of one piece of copper, tinned inside. Holds a quarter of a litre."
            .to_owned(),
        price: Some(Money { currency_code: "EUR".to_owned(), amount_minor: 2_450 }),
        tax_basis_points: 1_900,
        attributes: attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..Product::default()
    }
}

async fn stock_up(souk: &Souk, product: Product) -> anyhow::Result<()> {
    let admin = Some(souk.admin()?);
    let receive = ReceiveRequest {
        request_id: new_id(),
        sku: product.sku.clone(),
        quantity: UNITS,
        reason: MovementReason::Purchase.into(),
        ..ReceiveRequest::default()
    };
    let create = CreateProductRequest { request_id: new_id(), product: Some(product) };
    patiently(async || souk.catalog(0).create_product(souk.request(admin, create.clone())).await).await?;
    patiently(async || souk.stock(0).receive(souk.request(admin, receive.clone())).await).await?;
    Ok(())
}

async fn register(souk: &Souk, name: &str, password: &str) -> anyhow::Result<Customer> {
    let email = format!("{name}@example.com");
    let request = RegisterRequest {
        request_id: new_id(),
        email: email.clone(),
        password: password.to_owned(),
        display_name: name.to_owned(),
    };
    patiently(async || souk.auth(0).register(souk.request(None, request.clone())).await)
        .await
        .with_context(|| format!("{email} cannot register"))?;
    let (user_id, token) = souk.log_in(&email, password).await?;
    Ok(Customer { user_id, email, token })
}
