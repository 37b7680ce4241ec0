//! PlaceOrder, and the books that are kept of it: what was acknowledged must be there in the end, and nothing else.

use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use souk_db::Db;
use souk_interceptors::client::{Outcome, outcome};
use souk_proto_inventory::v1::StockLevel;
use souk_proto_order::v1::{ListOrdersRequest, ListOrdersResponse, Order, OrderItem, OrderState, PlaceOrderRequest};
use souk_testkit::shop::new_id;

use super::{Scenario, Verdict};
use crate::dice::{Dice, Spread};
use crate::load::{CallError, Calls};
use crate::market::{Customer, Market};
use crate::souk::{Souk, index, patiently};

/// Work that has come no further for so long will not.
const STUCK_AFTER: Duration = Duration::from_secs(20);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Violations that are named.
const NAMED_MAX: usize = 10;
const PAGE: i32 = 1_000;

/// See the module.
pub(crate) struct PlaceOrder {
    pub(super) souk: Souk,
    pub(super) market: Market,
    dice: Dice,
    spread: Spread,
    lines: usize,
    /// The orders of each customer that were acknowledged.
    acknowledged: Vec<Mutex<Vec<String>>>,
    /// Calls that may have taken effect though they failed.
    unknown: AtomicI64,
    /// The inventory's tables, where they can be read.
    tables: Option<Db>,
}

impl PlaceOrder {
    /// Orders of so many lines, of one unit each.
    pub(crate) fn new(souk: Souk, market: Market, seed: u64, spread: Spread, lines: usize) -> Self {
        let dice = Dice::new(seed, spread, market.skus.len());
        let acknowledged = market.customers.iter().map(|_| Mutex::default()).collect();
        // There cannot be more different products in an order than there are.
        let lines = lines.min(market.skus.len());
        Self { souk, market, dice, spread, lines, acknowledged, unknown: AtomicI64::new(0), tables: None }
    }

    /// The same; how many orders are done is read in the inventory's tables.
    pub(crate) fn counted_in(self, tables: Db) -> Self {
        Self { tables: Some(tables), ..self }
    }

    fn units(&self, orders: i64) -> i64 {
        orders * i64::try_from(self.lines).unwrap_or(i64::MAX)
    }

    /// Orders that were acknowledged so far.
    pub(crate) fn count(&self) -> usize {
        let count = |orders: &Mutex<Vec<String>>| orders.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.acknowledged.iter().map(count).sum()
    }

    fn acknowledged(&self) -> i64 {
        i64::try_from(self.count()).unwrap_or(i64::MAX)
    }

    async fn stock(&self) -> anyhow::Result<Stock> {
        Ok(Stock::of(&self.market.levels(&self.souk).await?))
    }

    async fn allocated_in(&self, tables: &Db) -> anyhow::Result<i64> {
        let (Some(first), Some(last)) = (self.market.skus.first(), self.market.skus.last()) else { return Ok(0) };
        let text = "SELECT CAST(COALESCE(SUM(allocated), 0) AS BIGINT) FROM stock WHERE sku BETWEEN $1 AND $2";
        let text = souk_db::sql(text).bind(first.clone()).bind(last.clone());
        let (units,): (i64,) = text.fetch_one(&mut tables.read().await?).await?;
        Ok(units)
    }

    /// Waits until nothing is held, everything allocated and no order pending, or nothing changes any more.
    async fn settled(&self) -> anyhow::Result<(Stock, f64)> {
        let began = Instant::now();
        let (mut last, mut changed_at) = (self.left().await?, Instant::now());
        while !self.is_done(&last) && changed_at.elapsed() < STUCK_AFTER {
            tokio::time::sleep(LOOK).await;
            let now = self.left().await?;
            if now != last {
                (last, changed_at) = (now, Instant::now());
            }
        }
        Ok((last.0, (changed_at - began).as_secs_f64()))
    }

    fn is_done(&self, (stock, pending): &(Stock, usize)) -> bool {
        stock.held == 0 && stock.allocated >= self.units(self.acknowledged()) && *pending == 0
    }

    /// The stock, and how many customers still have an order that is pending.
    async fn left(&self) -> anyhow::Result<(Stock, usize)> {
        let stock = self.stock().await?;
        let mut pending = 0;
        for customer in &self.market.customers {
            let states = vec![OrderState::Pending.into()];
            let request = ListOrdersRequest { page_size: 1, states, ..ListOrdersRequest::default() };
            pending += usize::from(!self.page_of(customer, &request).await?.orders.is_empty());
        }
        Ok((stock, pending))
    }

    /// The stock is what was sold.
    fn wrong_stock(&self, stock: &Stock) -> Vec<String> {
        let (sold, unknown) = (self.units(self.acknowledged()), self.units(self.unknown.load(Ordering::Relaxed)));
        let mut wrong = Vec::new();
        if stock.held > unknown {
            wrong.push(format!("{} units are still held, and only {unknown} are of unknown orders", stock.held));
        }
        if !(sold..=sold + unknown).contains(&stock.allocated) {
            let allocated = stock.allocated;
            wrong.push(format!("{allocated} units are allocated, of {sold} acknowledged and {unknown} unknown"));
        }
        wrong
    }

    /// A customer's orders are those that were acknowledged, and all are confirmed.
    async fn wrong_orders(&self, nth: usize, unknown_left: &mut i64) -> anyhow::Result<Vec<String>> {
        let acknowledged = self.acknowledged[nth].lock().unwrap_or_else(PoisonError::into_inner).clone();
        let orders = self.orders_of(&self.market.customers[nth]).await?;
        let kept: HashSet<&str> = orders.iter().map(|order| order.order_id.as_str()).collect();
        let mut wrong = Vec::new();
        for lost in acknowledged.iter().filter(|order_id| !kept.contains(order_id.as_str())) {
            wrong.push(format!("order {lost} was acknowledged and is not there"));
        }
        let known: HashSet<&str> = acknowledged.iter().map(String::as_str).collect();
        if known.len() < acknowledged.len() {
            wrong.push(format!("{} orders were acknowledged twice", acknowledged.len() - known.len()));
        }
        for order in &orders {
            let order_id = &order.order_id;
            if order.state() != OrderState::Confirmed {
                wrong.push(format!("order {order_id} is {:?}", order.state()));
            }
            if !known.contains(order_id.as_str()) {
                *unknown_left -= 1;
            }
        }
        Ok(wrong)
    }

    async fn orders_of(&self, customer: &Customer) -> anyhow::Result<Vec<Order>> {
        let mut orders = Vec::new();
        let mut request = ListOrdersRequest { page_size: PAGE, ..ListOrdersRequest::default() };
        loop {
            let page = self.page_of(customer, &request).await?;
            orders.extend(page.orders);
            if page.next_page_token.is_empty() {
                return Ok(orders);
            }
            request.page_token = page.next_page_token;
        }
    }

    async fn page_of(&self, customer: &Customer, page: &ListOrdersRequest) -> anyhow::Result<ListOrdersResponse> {
        let list = async || {
            let request = self.souk.request(Some(&customer.token), page.clone());
            self.souk.orders(0).max_decoding_message_size(usize::MAX).list_orders(request).await
        };
        Ok(patiently(list).await.context("orders cannot be listed")?.into_inner())
    }
}

impl Calls for PlaceOrder {
    async fn call(&self, nth: u64) -> Result<(), CallError> {
        let customer = index(nth, self.market.customers.len());
        let skus = self.dice.throw_different(nth, self.lines);
        let item = |sku: usize| OrderItem { sku: self.market.skus[sku].clone(), quantity: 1 };
        let items = skus.into_iter().map(item).collect();
        let order = PlaceOrderRequest { request_id: new_id(), items, expected_total: None };
        let request = self.souk.request(Some(&self.market.customers[customer].token), order);
        match self.souk.orders(nth).place_order(request).await {
            Ok(answer) => {
                let order = answer.into_inner().order.ok_or_else(|| CallError::Wrong("no order in the answer"))?;
                self.acknowledged[customer].lock().unwrap_or_else(PoisonError::into_inner).push(order.order_id);
                Ok(())
            }
            Err(status) => {
                if outcome(&status) == Outcome::Unknown {
                    self.unknown.fetch_add(1, Ordering::Relaxed);
                }
                Err(status.into())
            }
        }
    }
}

impl Scenario for PlaceOrder {
    fn name(&self) -> String {
        let spread = format!("{:?}", self.spread).to_lowercase();
        format!("place-order, {spread}, {} of {} products", self.lines, self.market.skus.len())
    }

    async fn finished(&self) -> anyhow::Result<Option<f64>> {
        let allocated = match &self.tables {
            Some(tables) => self.allocated_in(tables).await?,
            None => self.stock().await?.allocated,
        };
        #[expect(clippy::cast_precision_loss, reason = "nobody sells 2^52 units")]
        let orders = allocated as f64 / self.units(1) as f64;
        Ok(Some(orders))
    }

    async fn check(&self) -> anyhow::Result<Verdict> {
        let (stock, seconds) = self.settled().await?;
        let mut violations = self.wrong_stock(&stock);
        let mut unknown_left = self.unknown.load(Ordering::Relaxed);
        for nth in 0..self.market.customers.len() {
            violations.extend(self.wrong_orders(nth, &mut unknown_left).await?);
        }
        if unknown_left < 0 {
            violations.push(format!("{} orders are there that nobody was told of", -unknown_left));
        }
        let more = violations.len().saturating_sub(NAMED_MAX);
        violations.truncate(NAMED_MAX);
        if more > 0 {
            violations.push(format!("and {more} more"));
        }
        Ok(Verdict { violations, settled_seconds: Some(seconds), news: None })
    }
}

/// Units of all products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stock {
    held: i64,
    allocated: i64,
}

impl Stock {
    fn of(levels: &[StockLevel]) -> Self {
        let sum = |units: fn(&StockLevel) -> i64| levels.iter().map(units).sum();
        Self { held: sum(|level| level.held), allocated: sum(|level| level.allocated) }
    }
}
