//! ListOrders: everybody looks at their newest orders.

use std::sync::Arc;

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use souk_proto_order::v1::ListOrdersRequest;

use super::{PlaceOrder, Scenario, Verdict};
use crate::load::{Call, CallError, Calls};
use crate::progress::Progress;
use crate::souk::index;

/// Orders of a page, and so many each customer has at least.
const PAGE: usize = 20;
/// Orders that are placed at a time.
const AT_A_TIME: usize = 32;

/// See the module. Each answer is looked at when it comes.
pub(crate) struct ListOrders {
    orders: Arc<PlaceOrder>,
}

impl ListOrders {
    /// Gives each customer a page of orders.
    pub(crate) async fn prepare(orders: Arc<PlaceOrder>, progress: &Progress) -> anyhow::Result<Self> {
        let many = orders.market.customers.len() * PAGE;
        progress.phase("placing the orders that will be listed", many);
        let place = async |nth| {
            progress.step();
            orders.call(Call::uncounted(nth)).await
        };
        let placed = stream::iter(0..u64::try_from(many)?).map(place).buffer_unordered(AT_A_TIME);
        placed.try_collect::<()>().await.context("an order cannot be placed")?;
        Ok(Self { orders })
    }
}

impl Calls for ListOrders {
    async fn call(&self, Call { nth, .. }: Call) -> Result<(), CallError> {
        let (souk, customers) = (&self.orders.souk, &self.orders.market.customers);
        let customer = &customers[index(nth, customers.len())];
        let page_size = i32::try_from(PAGE).unwrap_or(i32::MAX);
        let request = ListOrdersRequest { page_size, ..ListOrdersRequest::default() };
        let answer = souk.orders(nth).list_orders(souk.request(Some(&customer.token), request)).await?;
        let orders = answer.into_inner().orders;
        if orders.len() == PAGE && orders.iter().all(|order| order.owner_id == customer.user_id) {
            Ok(())
        } else {
            Err(CallError::Wrong("the page is not full, or has somebody else's orders"))
        }
    }
}

impl Scenario for ListOrders {
    fn name(&self) -> String {
        format!("list-orders, {PAGE} a page")
    }

    async fn check(&self) -> anyhow::Result<Verdict> {
        self.orders.check().await
    }
}
