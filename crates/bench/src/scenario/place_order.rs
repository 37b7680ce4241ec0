//! PlaceOrder, and the books that are kept of it: what was acknowledged must be there in the end, and nothing else.

mod books;

use anyhow::Context;
use souk_db::Db;
use souk_interceptors::client::{Outcome, outcome};
use souk_proto_inventory::v1::StockLevel;
use souk_proto_order::v1::{ListOrdersRequest, ListOrdersResponse, Order, OrderItem, OrderState, PlaceOrderRequest};
use souk_testkit::shop::new_id;

use self::books::Books;
use super::{Scenario, Verdict};
use crate::dice::{Dice, Spread};
use crate::load::{Call, CallError, Calls};
use crate::market::{Customer, Market};
use crate::souk::{Souk, index, patiently, settled};
use crate::stats::as_f64;

/// Violations that are named.
const NAMED_MAX: usize = 10;
const PAGE: i32 = 1_000;
/// As many as PlaceOrder takes.
const LINES_MAX: usize = 100;
/// A page of orders of a hundred lines each is shorter.
const ANSWER_BYTES_MAX: usize = 64 * 1_024 * 1_024;

/// See the module.
pub(crate) struct PlaceOrder {
    pub(super) souk: Souk,
    pub(super) market: Market,
    dice: Dice,
    spread: Spread,
    lines: usize,
    books: Books,
    /// The inventory's tables, where they can be read.
    tables: Option<Db>,
}

impl PlaceOrder {
    /// Orders of so many lines, of one unit each.
    pub(crate) fn new(souk: Souk, market: Market, seed: u64, spread: Spread, lines: usize) -> Self {
        let dice = Dice::new(seed, spread, market.skus.len());
        let books = Books::new(&market.skus, market.customers.len());
        Self { souk, market, dice, spread, lines, books, tables: None }
    }

    /// The same; how many orders are done is read in the inventory's tables.
    pub(crate) fn counted_in(self, tables: Db) -> Self {
        Self { tables: Some(tables), ..self }
    }

    /// Orders that were acknowledged so far.
    pub(crate) fn count(&self) -> usize {
        self.books.count()
    }

    /// Has everything ordered once, so that no price is unknown.
    pub(crate) async fn warm_up(&self) -> anyhow::Result<()> {
        for (nth, skus) in (0..).zip(self.market.skus.chunks(LINES_MAX)) {
            self.place(nth, skus.iter().collect()).await.context("an order cannot be placed")?;
        }
        Ok(())
    }

    /// Has a customer order one of each.
    async fn place(&self, nth: u64, skus: Vec<&String>) -> Result<(), CallError> {
        let customer = index(nth, self.market.customers.len());
        let items = skus.iter().map(|sku| OrderItem { sku: (*sku).clone(), quantity: 1 }).collect();
        let order = PlaceOrderRequest { request_id: new_id(), items, expected_total: None };
        let request = self.souk.request(Some(&self.market.customers[customer].token), order);
        match self.souk.orders(nth).place_order(request).await {
            Ok(answer) => {
                let order = answer.into_inner().order.ok_or(CallError::Wrong("no order in the answer"))?;
                self.books.acknowledge(customer, &skus, order)
            }
            Err(status) => {
                if outcome(&status) == Outcome::Unknown {
                    self.books.doubt(&skus);
                }
                Err(status.into())
            }
        }
    }

    async fn allocated_in(&self, tables: &Db) -> anyhow::Result<i64> {
        let (Some(first), Some(last)) = (self.market.skus.first(), self.market.skus.last()) else { return Ok(0) };
        let text = "SELECT CAST(COALESCE(SUM(allocated), 0) AS BIGINT) FROM stock WHERE sku BETWEEN $1 AND $2";
        let text = souk_db::sql(text).bind(first.clone()).bind(last.clone());
        let (units,): (i64,) = text.fetch_one(&mut tables.read().await?).await?;
        Ok(units)
    }

    /// Waits until nothing is held, everything allocated and no order pending, or nothing changes any more.
    async fn settled(&self) -> anyhow::Result<(Vec<StockLevel>, f64)> {
        let ((stock, _), seconds) = settled(async || self.left().await, |left| self.is_done(left)).await?;
        Ok((stock, seconds))
    }

    fn is_done(&self, (stock, pending): &(Vec<StockLevel>, usize)) -> bool {
        *pending == 0 && self.books.are_settled(stock)
    }

    /// The stock, and how many customers still have an order that is pending.
    async fn left(&self) -> anyhow::Result<(Vec<StockLevel>, usize)> {
        let stock = self.market.levels(&self.souk).await?;
        let mut pending = 0;
        for customer in &self.market.customers {
            let states = vec![OrderState::Pending.into()];
            let request = ListOrdersRequest { page_size: 1, states, ..ListOrdersRequest::default() };
            pending += usize::from(!self.page_of(customer, &request).await?.orders.is_empty());
        }
        Ok((stock, pending))
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
            self.souk.orders(0).max_decoding_message_size(ANSWER_BYTES_MAX).list_orders(request).await
        };
        Ok(patiently(list).await.context("orders cannot be listed")?.into_inner())
    }
}

impl Calls for PlaceOrder {
    async fn call(&self, Call { nth, .. }: Call) -> Result<(), CallError> {
        let skus = self.dice.throw_different(nth, self.lines);
        self.place(nth, skus.into_iter().map(|sku| &self.market.skus[sku]).collect()).await
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
            None => self.market.levels(&self.souk).await?.iter().map(|level| level.allocated).sum(),
        };
        Ok(Some(as_f64(allocated) / as_f64(self.lines)))
    }

    async fn check(&self) -> anyhow::Result<Verdict> {
        let (stock, seconds) = self.settled().await?;
        let mut violations = self.books.wrong_stock(&stock);
        let mut strangers = -self.books.unknown();
        for (nth, customer) in self.market.customers.iter().enumerate() {
            let (wrong, more) = self.books.wrong_orders(nth, &self.orders_of(customer).await?);
            violations.extend(wrong);
            strangers += more;
        }
        if strangers > 0 {
            violations.push(format!("{strangers} orders are there that nobody was told of"));
        }
        let more = violations.len().saturating_sub(NAMED_MAX);
        violations.truncate(NAMED_MAX);
        if more > 0 {
            violations.push(format!("and {more} more"));
        }
        Ok(Verdict { violations, settled_seconds: Some(seconds), ..Verdict::default() })
    }
}
