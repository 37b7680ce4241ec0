//! The addresses of a peer: which there are, how each is, and which of them a call may go to.
//!
//! What is found out of an address (by its [health](super::health), by [calls](super::balance), by [names](super::resolve)) is written under
//! a lock, and what calls may go to is published from there; a call only reads. Never: a connection, or a call.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use souk_runtime::{Check, Kernel};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{info, warn};

use super::address::{Address, Maker};
use super::config::ClientConfig;
use super::gauges::{Cause, Gauges};
use super::target::Target;
use super::{balance, health, outcome};

/// A call that finds nobody has them tried once more, and waits for no longer than this.
const MOMENT: Duration = Duration::from_millis(50);
/// An address that keeps failing calls is left alone for at most so many times the configured time.
const OUTLIER_TIMES_MAX: u32 = 10;

/// See the module.
pub(super) struct Pool {
    pub(super) peer: &'static str,
    pub(super) gauges: Gauges,
    /// Names are to be looked up now.
    pub(super) resolve_now: Notify,
    /// Nobody calls any more.
    pub(super) closed: CancellationToken,
    pub(super) limits: Limits,
    kernel: Kernel,
    maker: Maker,
    chosen: watch::Sender<Chosen>,
    state: Mutex<State>,
}

/// The settings that the pool goes by.
pub(super) struct Limits {
    pub(super) connect_timeout: Duration,
    pub(super) ejection: Duration,
    pub(super) ejection_max: Duration,
    pub(super) outlier_failures: u32,
    outlier_ejection: Duration,
    outlier_share_max_percent: u32,
}

/// What calls read.
#[derive(Default)]
struct Chosen {
    addresses: Vec<Arc<Address>>,
    /// If there are none: whether one may come, and by when a call waits for it.
    wait_until: Option<Instant>,
}

struct State {
    members: Vec<Member>,
    next_id: u64,
    /// The names were looked up at least once, whatever came of it.
    is_resolved: bool,
    /// One of them serves.
    is_well: bool,
    /// Calls wait until then for what is being tried.
    patience: Instant,
    /// As published last.
    known: i64,
    healthy: i64,
}

/// How an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// Nobody has asked yet.
    Unknown,
    /// It says that it serves, or has no health to tell and is connected.
    Serving,
    /// It did, until a moment ago, and is being asked again.
    Lost,
    /// It says that it does not.
    NotServing,
    /// It does not answer.
    Down,
}

/// What is being done with an address.
#[derive(Clone, Copy)]
enum Doing {
    /// It is asked how it is.
    Trying,
    /// It tells by itself.
    Watching,
    /// Nothing, until its pause is over or it is woken.
    Resting { since: Instant },
}

struct Member {
    address: Arc<Address>,
    target: Arc<Target>,
    health: Health,
    doing: Doing,
    /// It did, since it was asked.
    has_served: bool,
    /// Calls may wait for what comes of so many tries.
    awaited: u8,
    wake: Arc<Notify>,
    /// Until when it is left alone for failed calls, and the how manieth time in a row.
    outlier_until: Option<Instant>,
    outlier_times: u32,
    /// Cancelled when it is a member no more.
    gone: CancellationToken,
}

impl Pool {
    pub(super) fn new(kernel: &Kernel, peer: &'static str, config: &ClientConfig, maker: Maker) -> Self {
        let connect_timeout = Duration::from_millis(config.connect_timeout_ms);
        let patience = Instant::now() + connect_timeout;
        Self {
            peer,
            gauges: Gauges::new(kernel, peer),
            resolve_now: Notify::new(),
            closed: CancellationToken::new(),
            limits: Limits {
                connect_timeout,
                ejection: Duration::from_millis(config.ejection_ms),
                ejection_max: Duration::from_millis(config.ejection_max_ms),
                outlier_failures: config.outlier_failures,
                outlier_ejection: Duration::from_millis(config.outlier_ejection_ms),
                outlier_share_max_percent: config.outlier_share_max_percent,
            },
            kernel: kernel.clone(),
            maker,
            chosen: watch::Sender::new(Chosen { addresses: Vec::new(), wait_until: Some(patience) }),
            state: Mutex::new(State {
                members: Vec::new(),
                next_id: 0,
                is_resolved: false,
                is_well: false,
                patience,
                known: 0,
                healthy: 0,
            }),
        }
    }

    /// In `0.0..1.0`.
    pub(super) fn random_fraction(&self) -> f64 {
        self.kernel.ids.random_fraction()
    }

    /// An address for a call, if there is another one not one of those `tried`. If there is none at all, the call fails at once, unless the
    /// first answer of one that is being tried may come yet.
    pub(super) async fn pick(&self, tried: &[u64]) -> Result<Arc<Address>, Status> {
        if let Some(address) = balance::pick(&self.chosen.borrow().addresses, tried, &self.kernel.ids) {
            return Ok(address);
        }
        let mut chosen = self.chosen.subscribe();
        self.try_again_now(Instant::now() + MOMENT, self.limits.ejection);
        loop {
            let wait_until = {
                let chosen = chosen.borrow_and_update();
                if let Some(address) = balance::pick(&chosen.addresses, tried, &self.kernel.ids) {
                    return Ok(address);
                }
                chosen.wait_until
            };
            let is_in_time = match wait_until {
                Some(until) => timeout_at(until, chosen.changed()).await.is_ok(),
                None => false,
            };
            if !is_in_time {
                self.gauges.refused.inc();
                return Err(outcome::nobody(self.peer, self.limits.ejection));
            }
        }
    }

    /// What the names stand for now. New ones are watched from now on; those that are gone get no more calls, and end theirs.
    pub(super) fn set_addresses(self: &Arc<Self>, addresses: &[(SocketAddr, Arc<Target>)]) {
        let mut state = self.lock();
        state.is_resolved = true;
        state.members.retain(|member| addresses.iter().any(|(socket, _)| *socket == member.address.socket));
        for (socket, target) in addresses {
            if !state.members.iter().any(|member| member.address.socket == *socket) {
                let id = state.next_id;
                state.next_id += 1;
                let address = Arc::new(self.maker.make(id, *socket, target));
                let member = Member::new(address.clone(), target.clone());
                let watching = health::watch(self.clone(), address, member.wake.clone());
                tokio::spawn(member.gone.clone().run_until_cancelled_owned(watching));
                state.members.push(member);
            }
        }
        self.publish(state);
    }

    /// What an address says of itself, or that it says nothing.
    pub(super) fn is_now(&self, id: u64, health: Health) {
        let mut state = self.lock();
        let Some(member) = state.member(id) else { return };
        let before = std::mem::replace(&mut member.health, health);
        member.has_served |= health == Health::Serving;
        match health {
            Health::Serving | Health::NotServing => (member.doing, member.awaited) = (Doing::Watching, 0),
            Health::Down => member.awaited = member.awaited.saturating_sub(1),
            Health::Unknown | Health::Lost => {}
        }
        if before != health {
            let cause = match health {
                Health::Down => Some(Cause::Unreachable),
                Health::NotServing => Some(Cause::NotServing),
                Health::Unknown | Health::Serving | Health::Lost => None,
            };
            info!(peer = self.peer, address = %member.address.socket, ?before, now = ?health, "an address has changed");
            if let Some(cause) = cause {
                self.gauges.ejected(cause);
                self.resolve_now.notify_one();
            }
        }
        self.publish(state);
    }

    /// An address is not tried until its pause is over or it is woken.
    pub(super) fn rests(&self, id: u64) {
        let mut state = self.lock();
        if let Some(member) = state.member(id) {
            member.doing = Doing::Resting { since: Instant::now() };
        }
    }

    /// An address is tried again.
    pub(super) fn is_tried(&self, id: u64) {
        if let Some(member) = self.lock().member(id) {
            (member.doing, member.has_served) = (Doing::Trying, false);
        }
    }

    /// The connection of an address does not get through: a new one in its place. Calls that are under way end on the old.
    pub(super) fn renew(&self, old: Arc<Address>) -> Arc<Address> {
        let mut state = self.lock();
        let Some(member) = state.member(old.id) else { return old };
        let new = Arc::new(self.maker.make(old.id, old.socket, &member.target));
        member.address = new.clone();
        self.publish(state);
        new
    }

    /// An address fails call after call. It is left alone for a while, if enough others are left.
    pub(super) fn fails_calls(self: &Arc<Self>, id: u64) {
        let now = Instant::now();
        let mut state = self.lock();
        let others = state.members.iter().filter(|member| member.address.id != id && member.is_best(now)).count();
        let out = 1 + state.members.iter().filter(|member| member.is_outlier(now)).count();
        let share = out * 100 <= state.members.len() * self.limits.outlier_share_max_percent as usize;
        let Some(member) = state.member(id) else { return };
        if others == 0 || !share || !member.is_best(now) {
            return;
        }
        member.outlier_times = OUTLIER_TIMES_MAX.min(member.outlier_times + 1);
        let until = now + self.limits.outlier_ejection * member.outlier_times;
        member.outlier_until = Some(until);
        let (pool, gone) = (self.clone(), member.gone.clone());
        info!(peer = self.peer, address = %member.address.socket, times = member.outlier_times, "an address fails calls");
        self.gauges.ejected(Cause::Outlier);
        tokio::spawn(gone.run_until_cancelled_owned(async move {
            tokio::time::sleep_until(until).await;
            pool.publish(pool.lock());
        }));
        self.publish(state);
    }

    /// An address answers calls, after it has failed some.
    pub(super) fn answers_calls(&self, id: u64) {
        let now = Instant::now();
        if let Some(member) = self.lock().member(id)
            && !member.is_outlier(now)
        {
            member.outlier_times = 0;
        }
    }

    /// Wakes those that have rested for at least `rested`; calls may wait for them until `patience`.
    fn try_again_now(&self, patience: Instant, rested: Duration) {
        let mut state = self.lock();
        self.resolve_now.notify_one();
        if state.wake(Instant::now(), rested) {
            state.patience = state.patience.max(patience);
        }
        self.publish(state);
    }

    /// Tells calls and operators how things are.
    fn publish(&self, mut state: MutexGuard<'_, State>) {
        let now = Instant::now();
        let (addresses, is_well) = state.best(now);
        if std::mem::replace(&mut state.is_well, is_well) && !is_well {
            // The last one is gone. Another may be back and just not have been asked.
            state.patience = now + self.limits.connect_timeout;
            state.wake(now, Duration::ZERO);
            self.resolve_now.notify_one();
        }
        match (self.chosen.borrow().addresses.is_empty(), addresses.is_empty()) {
            (false, true) => warn!(peer = self.peer, known = state.members.len(), "no address of a peer answers"),
            (true, false) => info!(peer = self.peer, known = state.members.len(), "a peer answers"),
            (true, true) | (false, false) => {}
        }
        // A server that has just started says no until it has looked around; from one that has served, no is no.
        let may_come =
            |member: &Member| member.awaited > 0 || (!member.has_served && member.health == Health::NotServing);
        let is_open = !state.is_resolved || state.members.iter().any(may_come);
        self.measure(&mut state, addresses.len());
        let check = match addresses.len() {
            0 => Check::NotReady(format!("none of {} addresses answers", state.members.len())),
            _ => Check::Ready,
        };
        self.kernel.readiness.set_optional(format!("peer.{}", self.peer), check);
        let wait_until = (is_open && addresses.is_empty()).then_some(state.patience);
        self.chosen.send_replace(Chosen { addresses, wait_until });
    }

    fn measure(&self, state: &mut State, healthy: usize) {
        let known = i64::try_from(state.members.len()).unwrap_or(i64::MAX);
        let healthy = i64::try_from(healthy).unwrap_or(i64::MAX);
        self.gauges.known.inc_by(known - std::mem::replace(&mut state.known, known));
        self.gauges.healthy.inc_by(healthy - std::mem::replace(&mut state.healthy, healthy));
    }

    /// Nobody will call any more: nothing is watched.
    pub(super) fn close(&self) {
        self.closed.cancel();
        let mut state = self.lock();
        state.members.clear();
        self.measure(&mut state, 0);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.gone.cancel();
    }
}

impl State {
    fn member(&mut self, id: u64) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.address.id == id)
    }

    /// Wakes those that have rested so long. Whether anybody was.
    fn wake(&mut self, now: Instant, rested: Duration) -> bool {
        let mut is_any = false;
        for member in &mut self.members {
            match member.doing {
                Doing::Resting { since } if now.saturating_duration_since(since) >= rested => {
                    (member.doing, member.awaited) = (Doing::Trying, 1);
                }
                // What is under way may have begun too early: it counts, and so does another one that follows at once.
                Doing::Trying if rested.is_zero() => member.awaited = 2,
                Doing::Trying | Doing::Watching | Doing::Resting { .. } => continue,
            }
            member.wake.notify_one();
            is_any = true;
        }
        is_any
    }

    /// Those that serve, and `true`; or else those that might.
    fn best(&self, now: Instant) -> (Vec<Arc<Address>>, bool) {
        let those = |is: &dyn Fn(&&Member) -> bool| -> Vec<Arc<Address>> {
            self.members.iter().filter(is).map(|member| member.address.clone()).collect()
        };
        let best = those(&|member| member.is_best(now));
        if best.is_empty() { (those(&|member| member.is_fair()), false) } else { (best, true) }
    }
}

impl Member {
    fn new(address: Arc<Address>, target: Arc<Target>) -> Self {
        Self {
            address,
            target,
            health: Health::Unknown,
            doing: Doing::Trying,
            has_served: false,
            awaited: 1,
            wake: Arc::default(),
            outlier_until: None,
            outlier_times: 0,
            gone: CancellationToken::new(),
        }
    }

    fn is_outlier(&self, now: Instant) -> bool {
        self.outlier_until.is_some_and(|until| now < until)
    }

    fn is_best(&self, now: Instant) -> bool {
        self.health == Health::Serving && !self.is_outlier(now)
    }

    fn is_fair(&self) -> bool {
        matches!(self.health, Health::Serving | Health::Lost)
    }
}
