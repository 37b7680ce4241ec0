//! Buyers who never give up: each order is sent under its key until somebody acknowledges it. What they were told on the way is kept, and
//! compared with the tables at the end.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use souk_db::Db;
use souk_proto_common::failure::reason_of;
use souk_proto_common::v1::Reason;
use souk_proto_order::v1::OrderState;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::cluster::Cluster;
use crate::process::owed;
use crate::shop::{Person, Shop, one};
use crate::{eventually, within};

/// What everybody buys.
pub const SKU: &str = "TEA";
const STOCK: i64 = 1_000_000;
/// The deadline of every call.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// Timers are late on a busy machine.
const LATE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);
/// An answer that is no order should not take longer.
const FAST: Duration = Duration::from_millis(500);

/// How long the ordinary run makes things hard, and the campaign.
pub fn by_campaign<T>(ordinary: T, campaign: T) -> T {
    if std::env::var_os("CAMPAIGN").is_some() { campaign } else { ordinary }
}

/// One answer that was no order.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// How long it took.
    pub took: Duration,
    /// Its code.
    pub code: Code,
    /// Its reason, if Souk has said one.
    pub reason: Option<Reason>,
    /// Its message.
    pub message: String,
    /// It says when to come again.
    pub tells_when: bool,
}

/// Who buys, until told to stop.
pub struct Load {
    buyers: JoinSet<(Person, BTreeSet<String>)>,
    acknowledged: Arc<AtomicU64>,
    refusals: Arc<Mutex<Vec<Refusal>>>,
    enough: CancellationToken,
}

/// What came of it.
pub struct Bought {
    /// Of each buyer, the orders that were acknowledged.
    pub orders: Vec<(Person, BTreeSet<String>)>,
    /// Every answer that was no order.
    pub refusals: Vec<Refusal>,
}

impl Load {
    /// So many buyers begin.
    pub async fn start(shop: &Shop, buyers: usize) -> Self {
        shop.product(SKU, 690, STOCK).await;
        let mut load = Self {
            buyers: JoinSet::new(),
            acknowledged: Arc::default(),
            refusals: Arc::default(),
            enough: CancellationToken::new(),
        };
        for number in 0..buyers {
            let person = shop.customer(&format!("buyer-{number}")).await;
            let buyer = Buyer {
                shop: shop.clone(),
                person,
                acknowledged: load.acknowledged.clone(),
                refusals: load.refusals.clone(),
                enough: load.enough.clone(),
            };
            load.buyers.spawn(buyer.buy());
        }
        load
    }

    /// Orders that were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Answers so far that were no orders.
    pub fn refused(&self) -> usize {
        self.refusals.lock().expect("nobody has panicked").len()
    }

    /// Waits for so many more orders.
    pub async fn goes_on(&self, limit: Duration, more: u64) {
        let before = self.acknowledged();
        within(limit, &format!("{more} more orders"), async || self.acknowledged() >= before + more).await;
    }

    /// Nobody begins another order; those that were begun are finished.
    pub async fn stop(self) -> Bought {
        self.enough.cancel();
        let orders = self.buyers.join_all().await;
        let refusals = self.refusals.lock().expect("nobody has panicked").clone();
        Bought { orders, refusals }
    }
}

struct Buyer {
    shop: Shop,
    person: Person,
    acknowledged: Arc<AtomicU64>,
    refusals: Arc<Mutex<Vec<Refusal>>>,
    enough: CancellationToken,
}

impl Buyer {
    async fn buy(self) -> (Person, BTreeSet<String>) {
        let mut orders = BTreeSet::new();
        while !self.enough.is_cancelled() {
            let order_id = self.insist().await;
            assert!(orders.insert(order_id), "two keys have one order");
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
        (self.person, orders)
    }

    /// One order, under one key, however often it must be sent.
    async fn insist(&self) -> String {
        let order = one(SKU, 1);
        loop {
            let mut request = Request::new(order.clone());
            request.set_timeout(DEADLINE);
            let began = Instant::now();
            match self.shop.orders(Some(&self.person)).place_order(request).await {
                Ok(placed) => return placed.into_inner().order.expect("an order").order_id,
                Err(status) => self.note(began, &status),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn note(&self, began: Instant, status: &Status) {
        let refusal = Refusal {
            took: began.elapsed(),
            code: status.code(),
            reason: reason_of(status),
            message: status.message().to_owned(),
            tells_when: status.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some()),
        };
        self.refusals.lock().expect("nobody has panicked").push(refusal);
    }
}

impl Bought {
    /// Every answer that was no order came within the deadline, and says that the call may be sent again, and when; half of them at once.
    /// Nobody but those who were at it when one of so many outages began waited to the end of their time.
    pub fn assert_honest(&self, outages: usize) {
        let mut told: BTreeMap<String, (usize, Duration)> = BTreeMap::new();
        for refusal in &self.refusals {
            let (count, longest) = told.entry(format!("{:?} {:?}", refusal.code, refusal.reason)).or_default();
            *count += 1;
            *longest = refusal.took.max(*longest);
        }
        println!("{} orders; refused: {told:?}", self.orders.iter().map(|(_, orders)| orders.len()).sum::<usize>());
        for refusal in &self.refusals {
            assert!(refusal.took < DEADLINE + LATE, "late: {refusal:?}");
            let honest = match refusal.code {
                Code::Unavailable => refusal.reason.is_some() && refusal.tells_when,
                Code::DeadlineExceeded | Code::Cancelled => refusal.took + LATE >= DEADLINE,
                Code::Aborted => refusal.reason == Some(Reason::RequestInProgress),
                _ => false,
            };
            assert!(honest, "{refusal:?}");
        }
        let mut took: Vec<Duration> = self.refusals.iter().map(|refusal| refusal.took).collect();
        took.sort_unstable();
        assert!(
            took.get(took.len() / 2).is_none_or(|median| *median < FAST),
            "half of them took {:?} or more",
            took[took.len() / 2]
        );
        let waited = self.refusals.iter().filter(|refusal| refusal.code != Code::Unavailable).count();
        assert!(waited <= self.orders.len() * outages, "{waited} waited in vain");
    }

    /// The orders of each buyer are those that were acknowledged, all come to their end, and nothing is left over.
    pub async fn assert_kept(&self, cluster: &Cluster) {
        let (order, inventory) = (cluster.order.database().await, cluster.inventory.database().await);
        eventually("nothing is owed and nothing held", async || {
            owed(&order).await == 0 && number(&inventory, "SELECT CAST(SUM(held) AS BIGINT) FROM stock").await == 0
        })
        .await;
        let mut all = 0;
        for (person, acknowledged) in &self.orders {
            // Who was long at it logs in again.
            let kept = cluster.own_orders(person).await;
            let ids: BTreeSet<String> = kept.iter().map(|order| order.order_id.clone()).collect();
            assert_eq!(ids, *acknowledged, "orders that were kept, and orders that were acknowledged");
            assert!(kept.iter().all(|order| order.state() == OrderState::Confirmed));
            all += i64::try_from(kept.len()).expect("a number");
        }
        assert_eq!(number(&inventory, "SELECT CAST(SUM(allocated) AS BIGINT) FROM stock").await, all);
        assert_eq!(number(&order, "SELECT COUNT(*) FROM outbox").await, 2 * all, "two events of each order");
        cluster.assert_invariants().await;
    }
}

/// The one number that a query asks for.
pub async fn number(db: &Db, text: impl Into<Cow<'static, str>>) -> i64 {
    let mut tx = db.read().await.expect("a transaction");
    let (number,): (i64,) = souk_db::sql(text).fetch_one(&mut tx).await.expect("a number");
    number
}
