//! GetProduct, by customers whose tokens are known: the shortest way through the whole stack.

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

impl Calls for GetProduct {
    async fn call(&self, Call { nth, .. }: Call) -> Result<(), CallError> {
        let sku = &self.market.skus[self.dice.throw(nth, 0)];
        let customer = &self.market.customers[index(nth, self.market.customers.len())];
        let request = self.souk.request(Some(&customer.token), GetProductRequest { sku: sku.clone() });
        let answer = self.souk.catalog(nth).get_product(request).await?.into_inner();
        match answer.product {
            Some(product) if product.sku == *sku && product.price.is_some() => Ok(()),
            _ => Err(CallError::Wrong("the answer is about something else")),
        }
    }
}

impl Scenario for GetProduct {
    fn name(&self) -> String {
        self.instead.map_or_else(|| "get-product".to_owned(), |other| format!("get-product of {other}"))
    }
}
