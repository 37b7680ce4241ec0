//! GetProduct, by customers whose tokens are known: the shortest way through the whole stack.

use anyhow::Context;
use souk_proto_inventory::v1::GetProductRequest;

use super::Scenario;
use crate::dice::Dice;
use crate::load::{Call, CallError, Calls};
use crate::market::Market;
use crate::souk::{Souk, index};

/// See the module. Each answer is looked at when it comes.
pub(crate) struct GetProduct {
    /// Who is asked, if it is not Souk.
    pub(crate) instead: Option<&'static str>,
    pub(crate) souk: Souk,
    pub(crate) market: Market,
    pub(crate) dice: Dice,
}

impl GetProduct {
    /// Asks for everything once, so that it is remembered.
    pub(crate) async fn warm_up(&self) -> anyhow::Result<()> {
        for (nth, sku) in (0..).zip(&self.market.skus) {
            self.get(nth, sku).await.context("a product cannot be read")?;
        }
        Ok(())
    }

    async fn get(&self, nth: u64, sku: &str) -> Result<(), CallError> {
        let customer = &self.market.customers[index(nth, self.market.customers.len())];
        let request = self.souk.request(Some(&customer.token), GetProductRequest { sku: sku.to_owned() });
        let answer = self.souk.catalog(nth).get_product(request).await?.into_inner();
        match answer.product {
            Some(product) if product.sku == *sku && product.price.is_some() => Ok(()),
            _ => Err(CallError::Wrong("the answer is about something else")),
        }
    }
}

impl Calls for GetProduct {
    async fn call(&self, Call { nth, .. }: Call) -> Result<(), CallError> {
        self.get(nth, &self.market.skus[self.dice.throw(nth, 0)]).await
    }
}

impl Scenario for GetProduct {
    fn name(&self) -> String {
        self.instead.map_or_else(|| "get-product".to_owned(), |other| format!("get-product of {other}"))
    }
}
