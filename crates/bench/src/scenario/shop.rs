//! A shop's traffic: most people look, some of them buy.

use std::sync::Arc;

use super::{GetProduct, GetUser, ListOrders, PlaceOrder, Scenario, Verdict};
use crate::dice::{Dice, Spread};
use crate::load::{CallError, Calls};

/// Calls of a hundred.
const LOOK: usize = 75;
const WHO_AM_I: usize = 10;
const MY_ORDERS: usize = 5;
// The rest buys.

/// See the module.
pub(crate) struct Shop {
    pub(crate) look: GetProduct,
    pub(crate) who_am_i: GetUser,
    pub(crate) my_orders: ListOrders,
    pub(crate) buy: Arc<PlaceOrder>,
    mixture: Dice,
}

impl Shop {
    /// Of calls of these kinds.
    pub(crate) fn new(
        look: GetProduct,
        who_am_i: GetUser,
        my_orders: ListOrders,
        buy: Arc<PlaceOrder>,
        seed: u64,
    ) -> Self {
        Self { look, who_am_i, my_orders, buy, mixture: Dice::new(!seed, Spread::Uniform, 100) }
    }
}

impl Calls for Shop {
    async fn call(&self, nth: u64) -> Result<(), CallError> {
        match self.mixture.throw(nth, 0) {
            chance if chance < LOOK => self.look.call(nth).await,
            chance if chance < LOOK + WHO_AM_I => self.who_am_i.call(nth).await,
            chance if chance < LOOK + WHO_AM_I + MY_ORDERS => self.my_orders.call(nth).await,
            _ => self.buy.call(nth).await,
        }
    }
}

impl Scenario for Shop {
    fn name(&self) -> String {
        let buy = 100 - LOOK - WHO_AM_I - MY_ORDERS;
        format!("shop: {LOOK} % products, {WHO_AM_I} % users, {MY_ORDERS} % lists, {buy} % orders")
    }

    async fn check(&self) -> anyhow::Result<Verdict> {
        self.buy.check().await
    }
}
