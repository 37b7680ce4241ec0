//! The hands of this process: so many steps it does at a time. Who places an order has one ready before, and leaves the order's first step to it;
//! what waits in the table, put off or left behind by other processes, has a share of its own, however many orders are placed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use souk_runtime::TraceContext;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use crate::domain::Step;

/// One hand of so many is for the table.
const TABLE_SHARE: usize = 8;

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hands(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Whom the table names for steps that this process has taken up.
    holder: Uuid,
    for_orders: Share,
    for_table: Share,
    given: Mutex<Vec<(Claimed, Hand)>>,
    /// There may be something in the table.
    look: AtomicBool,
    wake: Notify,
}

/// Hands for one purpose.
#[derive(Debug)]
struct Share {
    free: Arc<Semaphore>,
    most: usize,
}

/// A hand that is kept for a step. Dropped, it is free.
#[derive(Debug)]
pub struct Hand(#[expect(dead_code, reason = "it is given back when it is dropped")] OwnedSemaphorePermit);

/// A step that this process has taken up, and the stock that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The step.
    pub step: Step,
    /// The inventory's name for the order's stock.
    pub reservation_id: Uuid,
    /// Where it was left in a trace.
    pub position: Option<TraceContext>,
}

impl Hands {
    /// So many hands, two at least, under this name.
    pub fn new(holder: Uuid, most: usize) -> Self {
        let table = most.div_ceil(TABLE_SHARE);
        let (for_orders, for_table) = (Share::of(most.saturating_sub(table).max(1)), Share::of(table));
        let (given, look) = (Mutex::default(), AtomicBool::new(false));
        Self(Arc::new(Shared { holder, for_orders, for_table, given, look, wake: Notify::new() }))
    }

    /// Whom the table names for steps that this process has taken up.
    pub fn holder(&self) -> Uuid {
        self.0.holder
    }

    /// Waits for a hand. Orders that are placed faster than they are brought to their end wait here, before anything is done for them. `None`:
    /// the hands are [closed](Self::close), and the step is left in the table.
    pub async fn one(&self) -> Option<Hand> {
        self.0.for_orders.free.clone().acquire_owned().await.ok().map(Hand)
    }

    /// Those that are free for the table, if they are worth a look at it, which costs a transaction: at least half of its share, and half of
    /// what new orders have left free.
    pub fn spare(&self) -> Vec<Hand> {
        let Shared { for_orders, for_table, .. } = &*self.0;
        let of_table = for_table.free.available_permits();
        if of_table < for_table.most.div_ceil(2) {
            return Vec::new();
        }
        let of_orders = for_orders.free.available_permits() / 2;
        for_table.take(of_table).chain(for_orders.take(of_orders)).collect()
    }

    /// Leaves a step to a hand. The caller has stored that it is taken up.
    pub fn give(&self, claimed: Claimed, hand: Hand) {
        self.given().push((claimed, hand));
        self.0.wake.notify_one();
    }

    /// What was given since the last time.
    pub fn take(&self) -> Vec<(Claimed, Hand)> {
        std::mem::take(&mut self.given())
    }

    /// There is something in the table.
    pub fn wake(&self) {
        self.0.look.store(true, Ordering::Release);
        self.0.wake.notify_one();
    }

    /// Waits until there may be something to do; whether it may be in the table.
    pub async fn woken(&self) -> bool {
        self.0.wake.notified().await;
        self.0.look.swap(false, Ordering::AcqRel)
    }

    /// Waits until every hand is free, which is when nothing is being done and nobody is placing an order. From then on nobody gets one.
    pub async fn close(&self) {
        let Shared { for_orders, for_table, .. } = &*self.0;
        let _all = tokio::join!(for_orders.all(), for_table.all());
        for_orders.free.close();
        for_table.free.close();
    }

    fn given(&self) -> std::sync::MutexGuard<'_, Vec<(Claimed, Hand)>> {
        self.0.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    fn of(most: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(most)), most }
    }

    /// Up to `count`.
    fn take(&self, count: usize) -> impl Iterator<Item = Hand> {
        (0..count).map_while(|_| self.free.clone().try_acquire_owned().ok().map(Hand))
    }

    async fn all(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        self.free.acquire_many(u32::try_from(self.most).unwrap_or(u32::MAX)).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::{OrderId, StepKind};

    fn claimed() -> Claimed {
        let (order_id, deadline_at) = (OrderId(Uuid::nil()), chrono::DateTime::UNIX_EPOCH);
        let step = Step { order_id, kind: StepKind::CommitStock, epoch: 1, attempts: 1, deadline_at };
        Claimed { step, reservation_id: Uuid::nil(), position: None }
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_waits_for_a_hand_and_the_table_has_its_share_however_many_wait() {
        let hands = Hands::new(Uuid::nil(), 16);
        let mut taken = Vec::new();
        for _ in 0..14 {
            taken.push(hands.one().await.unwrap());
        }
        assert!(tokio::time::timeout(Duration::from_mins(1), hands.one()).await.is_err());
        let mut spare = hands.spare();
        assert_eq!(spare.len(), 2, "its share");
        assert!(hands.spare().is_empty());
        spare.pop();
        assert_eq!(hands.spare().len(), 1, "half of it is worth a look");
        drop(spare);
        taken.truncate(6);
        assert_eq!(hands.spare().len(), 2 + 4, "and half of what is left by orders");
        assert!(hands.one().await.is_some());
    }

    #[tokio::test]
    async fn one_hand_is_enough_for_orders_and_for_the_table() {
        let hands = Hands::new(Uuid::nil(), 1);
        let _one = hands.one().await.unwrap();
        assert_eq!(hands.spare().len(), 1);
    }

    #[tokio::test]
    async fn hands_are_closed_when_all_are_free_and_nobody_gets_one_afterwards() {
        let hands = Hands::new(Uuid::nil(), 4);
        let hand = hands.one().await.unwrap();
        let closing = tokio::spawn({
            let hands = hands.clone();
            async move { hands.close().await }
        });
        tokio::task::yield_now().await;
        let late = tokio::spawn({
            let hands = hands.clone();
            async move { hands.one().await.is_none() }
        });
        tokio::task::yield_now().await;
        assert!(!closing.is_finished() && !late.is_finished());
        drop(hand);
        closing.await.unwrap();
        assert!(late.await.unwrap());
        assert!(hands.spare().is_empty());
    }

    #[tokio::test]
    async fn what_is_given_needs_no_look_at_the_table() {
        let hands = Hands::new(Uuid::nil(), 4);
        hands.give(claimed(), hands.one().await.unwrap());
        assert!(!hands.woken().await);
        assert_eq!(hands.take().len(), 1);
        assert!(hands.take().is_empty());
        hands.wake();
        hands.give(claimed(), hands.one().await.unwrap());
        assert!(hands.woken().await);
    }
}
