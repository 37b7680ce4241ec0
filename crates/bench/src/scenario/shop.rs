//! A shop's traffic: most people look, some of them buy.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{GetProduct, GetUser, ListOrders, PlaceOrder, Scenario, Verdict};
use crate::dice::{Dice, Spread};
use crate::load::{Call, CallError, Calls};
use crate::report::Kind;
use crate::stats::Latencies;

/// Calls of a hundred.
const LOOK: usize = 75;
const WHO_AM_I: usize = 10;
const MY_ORDERS: usize = 5;
// The rest buys.

/// A kind of call.
const KINDS: [&str; 4] = ["get-product", "get-user", "list-orders", "place-order"];

/// See the module.
pub(crate) struct Shop {
    look: GetProduct,
    who_am_i: GetUser,
    my_orders: ListOrders,
    buy: Arc<PlaceOrder>,
    mixture: Dice,
    /// Of each of the [`KINDS`], since it was last asked for.
    latencies: [Mutex<Latencies>; 4],
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
        Self {
            look,
            who_am_i,
            my_orders,
            buy,
            mixture: Dice::new(!seed, Spread::Uniform, 100),
            latencies: Default::default(),
        }
    }
}

impl Shop {
    fn latencies(&self, kind: usize) -> MutexGuard<'_, Latencies> {
        self.latencies[kind].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Calls for Shop {
    async fn call(&self, call: Call) -> Result<(), CallError> {
        let (kind, result) = match self.mixture.throw(call.nth, 0) {
            chance if chance < LOOK => (0, self.look.call(call).await),
            chance if chance < LOOK + WHO_AM_I => (1, self.who_am_i.call(call).await),
            chance if chance < LOOK + WHO_AM_I + MY_ORDERS => (2, self.my_orders.call(call).await),
            _ => (3, self.buy.call(call).await),
        };
        if call.counts && result.is_ok() {
            self.latencies(kind).record(call.due.elapsed());
        }
        result
    }
}

impl Scenario for Shop {
    fn name(&self) -> String {
        let buy = 100 - LOOK - WHO_AM_I - MY_ORDERS;
        format!("shop: {LOOK} % products, {WHO_AM_I} % users, {MY_ORDERS} % lists, {buy} % orders")
    }

    async fn finished(&self) -> anyhow::Result<Option<f64>> {
        self.buy.finished().await
    }

    async fn check(&self) -> anyhow::Result<Verdict> {
        let kind = |(nth, name)| Kind { name, latency: std::mem::take(&mut *self.latencies(nth)).summary() };
        let kinds = KINDS.into_iter().enumerate().map(kind).collect();
        Ok(Verdict { kinds, ..self.buy.check().await? })
    }
}
