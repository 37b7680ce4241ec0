//! The hands of this process: so many steps it does at a time. Who places an order has one ready before, and leaves the order's first step to it;
//! what other processes left behind waits in the table for hands that are free.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use crate::ops::drive_saga::Claimed;

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hands(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Whom the table names for steps that this process has taken up.
    holder: Uuid,
    free: Arc<Semaphore>,
    most: usize,
    given: Mutex<Vec<(Claimed, Hand)>>,
    /// There may be something in the table.
    look: AtomicBool,
    wake: Notify,
}

/// A hand that is kept for a step. Dropped, it is free.
#[derive(Debug)]
pub struct Hand(#[expect(dead_code, reason = "it is given back when it is dropped")] OwnedSemaphorePermit);

impl Hands {
    /// So many hands, under this name.
    pub fn new(holder: Uuid, most: usize) -> Self {
        let free = Arc::new(Semaphore::new(most));
        let (given, look) = (Mutex::default(), AtomicBool::new(false));
        Self(Arc::new(Shared { holder, free, most, given, look, wake: Notify::new() }))
    }

    /// Whom the table names for steps that this process has taken up.
    pub fn holder(&self) -> Uuid {
        self.0.holder
    }

    /// Waits for a hand. Orders that are placed faster than they are brought to their end wait here, before anything is done for them.
    pub async fn one(&self) -> Hand {
        let permit = self.0.free.clone().acquire_owned().await;
        Hand(permit.expect("it is never closed"))
    }

    /// Half of those that are free, if they are worth a look at the table, which costs a transaction; the others are for new orders.
    pub fn spare(&self) -> Vec<Hand> {
        let free = self.0.free.available_permits();
        if free < self.0.most.div_ceil(4) {
            return Vec::new();
        }
        let spare = || self.0.free.clone().try_acquire_owned().ok().map(Hand);
        (0..free.div_ceil(2)).map_while(|_| spare()).collect()
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

    /// Waits until every hand is free: nothing is being done, and nobody is placing an order.
    pub async fn all_free(&self) {
        let most = u32::try_from(self.0.most).unwrap_or(u32::MAX);
        drop(self.0.free.acquire_many(most).await);
    }

    fn given(&self) -> std::sync::MutexGuard<'_, Vec<(Claimed, Hand)>> {
        self.0.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::{OrderId, Step, StepKind};

    fn claimed() -> Claimed {
        let (order_id, deadline_at) = (OrderId(Uuid::nil()), chrono::DateTime::UNIX_EPOCH);
        let step = Step { order_id, kind: StepKind::CommitStock, epoch: 1, attempts: 1, deadline_at };
        Claimed { step, reservation_id: Uuid::nil(), position: None }
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_waits_for_a_hand_and_the_table_gets_what_is_spare() {
        let hands = Hands::new(Uuid::nil(), 4);
        assert_eq!(hands.spare().len(), 2, "they are free again");
        let spare = hands.spare();
        let (first, _second) = (hands.one().await, hands.one().await);
        assert!(hands.spare().is_empty());
        assert!(tokio::time::timeout(Duration::from_mins(1), hands.one()).await.is_err());
        drop(first);
        let third = hands.one().await;
        drop(spare);
        assert_eq!(hands.spare().len(), 1);
        drop(third);
    }

    #[tokio::test]
    async fn what_is_given_needs_no_look_at_the_table() {
        let hands = Hands::new(Uuid::nil(), 4);
        hands.give(claimed(), hands.one().await);
        assert!(!hands.woken().await);
        assert_eq!(hands.take().len(), 1);
        assert!(hands.take().is_empty());
        hands.wake();
        hands.give(claimed(), hands.one().await);
        assert!(hands.woken().await);
    }
}
