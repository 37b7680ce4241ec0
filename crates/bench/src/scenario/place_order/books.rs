//! What orders must have left behind, product by product and order by order. It asks nobody.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use souk_proto_inventory::v1::StockLevel;
use souk_proto_order::v1::{Order, OrderState};

use crate::load::CallError;

/// See the module.
#[derive(Debug)]
pub(super) struct Books {
    products: HashMap<String, Units>,
    /// The orders of each customer that were acknowledged.
    acknowledged: Vec<Mutex<Vec<String>>>,
    /// Orders that may be there though their calls have failed.
    unknown: AtomicI64,
}

/// Of one product.
#[derive(Debug, Default)]
struct Units {
    /// By the lines of acknowledged orders.
    sold: AtomicI64,
    /// By what calls have asked for whose outcome is unknown.
    unknown: AtomicI64,
}

impl Books {
    pub(super) fn new(skus: &[String], customers: usize) -> Self {
        let products = skus.iter().map(|sku| (sku.clone(), Units::default())).collect();
        Self { products, acknowledged: (0..customers).map(|_| Mutex::default()).collect(), unknown: AtomicI64::new(0) }
    }

    /// An order of one unit of each of these was acknowledged.
    pub(super) fn acknowledge(&self, customer: usize, asked: &[&String], order: Order) -> Result<(), CallError> {
        for line in &order.lines {
            if let Some(units) = self.products.get(&line.sku) {
                units.sold.fetch_add(line.quantity, Ordering::Relaxed);
            }
        }
        self.orders(customer).push(order.order_id);
        let is_in = |sku: &&String| order.lines.iter().any(|line| line.sku == **sku && line.quantity == 1);
        if order.lines.len() == asked.len() && asked.iter().all(is_in) {
            Ok(())
        } else {
            Err(CallError::Wrong("the order is for something else"))
        }
    }

    /// Nobody knows whether there is an order of one unit of each of these.
    pub(super) fn doubt(&self, asked: &[&String]) {
        self.unknown.fetch_add(1, Ordering::Relaxed);
        for units in asked.iter().filter_map(|sku| self.products.get(*sku)) {
            units.unknown.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Orders that were acknowledged so far.
    pub(super) fn count(&self) -> usize {
        (0..self.acknowledged.len()).map(|customer| self.orders(customer).len()).sum()
    }

    /// Orders that may be there though nobody was told of them.
    pub(super) fn unknown(&self) -> i64 {
        self.unknown.load(Ordering::Relaxed)
    }

    /// Whether all that was sold is allocated, and nothing is held.
    pub(super) fn are_settled(&self, stock: &[StockLevel]) -> bool {
        stock.iter().all(|level| level.held == 0 && level.allocated >= self.units(level).0)
    }

    /// What is allocated of each product is what was sold of it, and what is held is nobody's.
    pub(super) fn wrong_stock(&self, stock: &[StockLevel]) -> Vec<String> {
        let mut wrong = Vec::new();
        for level in stock {
            let (sold, unknown) = self.units(level);
            let StockLevel { sku, held, allocated, .. } = level;
            if *held > unknown {
                wrong.push(format!("{held} units of {sku} are still held, and only {unknown} are of unknown orders"));
            }
            if !(sold..=sold + unknown).contains(allocated) {
                wrong.push(format!("{allocated} units of {sku} are allocated, of {sold} sold and {unknown} unknown"));
            }
        }
        wrong
    }

    /// The orders of a customer are those that were acknowledged, each once, and all are confirmed. And how many there are besides.
    pub(super) fn wrong_orders(&self, customer: usize, orders: &[Order]) -> (Vec<String>, i64) {
        let acknowledged = self.orders(customer);
        let known: HashSet<&str> = acknowledged.iter().map(String::as_str).collect();
        let kept: HashSet<&str> = orders.iter().map(|order| order.order_id.as_str()).collect();
        let mut wrong = Vec::new();
        for lost in known.difference(&kept) {
            wrong.push(format!("order {lost} was acknowledged and is not there"));
        }
        if known.len() < acknowledged.len() {
            wrong.push(format!("{} orders were acknowledged twice", acknowledged.len() - known.len()));
        }
        if kept.len() < orders.len() {
            wrong.push(format!("{} orders are listed twice", orders.len() - kept.len()));
        }
        for order in orders.iter().filter(|order| order.state() != OrderState::Confirmed) {
            wrong.push(format!("order {} is {:?}", order.order_id, order.state()));
        }
        (wrong, i64::try_from(kept.difference(&known).count()).unwrap_or(i64::MAX))
    }

    /// Units of a product that were sold, and that may have been.
    fn units(&self, level: &StockLevel) -> (i64, i64) {
        let units = self.products.get(&level.sku);
        units.map_or((0, 0), |of| (of.sold.load(Ordering::Relaxed), of.unknown.load(Ordering::Relaxed)))
    }

    fn orders(&self, customer: usize) -> MutexGuard<'_, Vec<String>> {
        self.acknowledged[customer].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use souk_proto_order::v1::OrderLine;

    use super::*;

    fn skus() -> [String; 2] {
        ["CUP", "JUG"].map(str::to_owned)
    }

    fn order(order_id: &str, skus: &[&str]) -> Order {
        let line = |sku: &&str| OrderLine { sku: (*sku).to_owned(), quantity: 1, ..OrderLine::default() };
        let lines = skus.iter().map(line).collect();
        Order { order_id: order_id.to_owned(), state: OrderState::Confirmed.into(), lines, ..Order::default() }
    }

    fn level(sku: &str, held: i64, allocated: i64) -> StockLevel {
        StockLevel { sku: sku.to_owned(), held, allocated, ..StockLevel::default() }
    }

    /// Two orders for the cup, of which one is for the jug as well; and one that nobody knows of, for the jug.
    fn books() -> Books {
        let [cup, jug] = &skus();
        let books = Books::new(&skus(), 1);
        books.acknowledge(0, &[cup], order("one", &["CUP"])).unwrap();
        books.acknowledge(0, &[cup, jug], order("two", &["JUG", "CUP"])).unwrap();
        books.doubt(&[jug]);
        books
    }

    #[test]
    fn stock_that_is_not_what_was_sold_is_wrong_product_by_product() {
        let books = books();
        let wrong = |cup: (i64, i64), jug: (i64, i64)| {
            books.wrong_stock(&[level("CUP", cup.0, cup.1), level("JUG", jug.0, jug.1)]).len()
        };
        assert_eq!((wrong((0, 2), (0, 1)), wrong((0, 2), (0, 2)), wrong((0, 2), (1, 1))), (0, 0, 0));
        assert_eq!(wrong((0, 1), (0, 2)), 1, "the sum is right, and one cup is sold and not allocated");
        assert_eq!(wrong((0, 3), (0, 1)), 1, "one cup more than anybody can have ordered");
        assert_eq!(wrong((0, 2), (0, 3)), 1, "one jug more than anybody can have ordered");
        assert_eq!((wrong((1, 2), (0, 1)), wrong((0, 2), (2, 1))), (1, 1), "units are held for nobody");
    }

    #[test]
    fn it_is_waited_for_what_is_held_or_not_allocated_yet() {
        let books = books();
        let settled = |cup: i64, held: i64| books.are_settled(&[level("CUP", held, cup), level("JUG", 0, 1)]);
        assert!(settled(2, 0) && !settled(1, 0) && !settled(2, 1));
    }

    #[test]
    fn orders_that_are_lost_or_doubled_or_not_confirmed_are_wrong() {
        let books = books();
        let (one, two) = (order("one", &["CUP"]), order("two", &["CUP", "JUG"]));
        let wrong = |orders: &[Order]| {
            let (wrong, strangers) = books.wrong_orders(0, orders);
            (wrong.len(), strangers)
        };
        assert_eq!(wrong(&[one.clone(), two.clone()]), (0, 0));
        assert_eq!(wrong(std::slice::from_ref(&one)), (1, 0), "one was acknowledged and is not there");
        assert_eq!(wrong(&[one.clone(), two.clone(), two.clone()]), (1, 0), "one is listed twice");
        assert_eq!(wrong(&[one.clone(), two.clone(), order("three", &["JUG"])]), (0, 1), "nobody was told of one");
        let pending = Order { state: OrderState::Pending.into(), ..two };
        assert_eq!(wrong(&[one.clone(), pending]), (1, 0));
        books.acknowledge(0, &[&skus()[0]], one.clone()).unwrap();
        assert_eq!(wrong(&[one, order("two", &["CUP", "JUG"])]), (1, 0), "one was acknowledged twice");
    }

    #[test]
    fn an_answer_about_another_order_is_wrong() {
        let [cup, jug] = &skus();
        let books = Books::new(&skus(), 1);
        for (asked, lines) in [(&[cup][..], &["JUG"][..]), (&[cup, jug], &["CUP"]), (&[cup], &["CUP", "JUG"])] {
            let answer = books.acknowledge(0, asked, order("one", lines));
            assert!(matches!(answer, Err(CallError::Wrong(_))), "{asked:?} {lines:?}");
        }
    }
}
