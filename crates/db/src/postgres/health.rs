//! Whether the server answers: found out once, for all who would ask it.
//!
//! Nothing is asked while all goes well. What goes wrong with a connection is a suspicion; then one task looks, on a connection of its own.
//! If it gets none and nobody else has had an answer meanwhile, the server is down: whoever waits for it and whoever comes is told at
//! once. The same task looks until the server is back; connections from before are not used again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use souk_runtime::story;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::Server;
use super::look::Unfit;
use crate::config::DbConfig;
use crate::error::Error;

/// See the module.
#[derive(Debug)]
pub(super) struct Health {
    is_down: watch::Sender<bool>,
    is_looking: AtomicBool,
    began: Instant,
    /// When the server has last answered anybody, in microseconds since `began`.
    answered_at: AtomicU64,
    /// When it was last found to be back; older connections are not used.
    back_at: AtomicU64,
    /// From this age on connections are replaced, in microseconds …
    aged: u64,
    /// … one in so long …
    ageing_pause: u64,
    /// … the next then.
    ageing_at: AtomicU64,
}

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(250);
/// Between two looks of the start of a process, at most.
const PAUSE_MAX: Duration = Duration::from_secs(2);

impl Health {
    pub(super) fn new(config: &DbConfig) -> Self {
        let lifetime = micros(Duration::from_millis(config.lifetime_max_ms));
        Self {
            is_down: watch::Sender::new(false),
            is_looking: AtomicBool::new(false),
            began: Instant::now(),
            answered_at: AtomicU64::new(0),
            back_at: AtomicU64::new(0),
            aged: lifetime - lifetime / 10,
            ageing_pause: lifetime / 10 / u64::from(config.connections_max.max(1)),
            ageing_at: AtomicU64::new(0),
        }
    }

    /// `true`: it is down.
    pub(super) fn subscribe(&self) -> watch::Receiver<bool> {
        self.is_down.subscribe()
    }

    pub(super) fn answered(&self) {
        self.answered_at.store(self.now(), Ordering::Relaxed);
    }

    /// Whether a connection of this age may be used: it is not from before the server was down, and it is not its turn to be replaced.
    pub(super) fn may_use(&self, age: Duration) -> bool {
        let (now, age) = (self.now(), micros(age));
        if now.saturating_sub(age) < self.back_at.load(Ordering::Relaxed) {
            return false;
        }
        let next = |due: u64| (now >= due).then_some(now + self.ageing_pause);
        age < self.aged || self.ageing_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_err()
    }

    pub(super) fn has_answered_since(&self, since: Instant) -> bool {
        self.answered_at.load(Ordering::Relaxed) > micros(since.saturating_duration_since(self.began))
    }

    fn now(&self) -> u64 {
        micros(self.began.elapsed())
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Server {
    /// Something that began then has gone wrong: looks whether the server is well, unless it has answered somebody since.
    /// `None`: whatever it has answered.
    pub(super) fn suspect(self: &Arc<Self>, since: Option<Instant>) {
        if since.is_some_and(|since| self.health.has_answered_since(since)) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        if !self.health.is_looking.swap(true, Ordering::AcqRel) {
            drop(runtime.spawn(look_after(Arc::downgrade(self))));
        }
    }

    /// Waits for a server that is fit, as the start of a process does.
    pub(super) async fn wait_until_found(self: &Arc<Self>) -> Result<(), Error> {
        let began = Instant::now();
        let mut pause = PAUSE;
        loop {
            let unfit = match self.find().await {
                Ok(()) => return Ok(()),
                Err(Unfit::Unsafe(error) | Unfit::Skewed(error)) => return Err(error),
                Err(unfit) => unfit,
            };
            let left = Duration::from_millis(self.config.connect_timeout_ms).saturating_sub(began.elapsed());
            let (database, error) = (self.meters.database, story(unfit.error()));
            if left.is_zero() {
                return Err(unfit.into_error());
            }
            warn!(database, error, seconds_left = left.as_secs(), "database cannot be reached yet");
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Finds the host that takes writes, and uses it from now on.
    async fn find(&self) -> Result<(), Unfit> {
        let mut worst: Option<Unfit> = None;
        for host in &self.hosts {
            match self.look_at(host).await {
                Ok(()) => {
                    let before = self.pool.connect_options();
                    if (before.get_host(), before.get_port()) != (host.get_host(), host.get_port()) {
                        info!(
                            database = self.meters.database,
                            host = host.get_host(),
                            port = host.get_port(),
                            "database host"
                        );
                        self.pool.set_connect_options(host.clone());
                    }
                    return Ok(());
                }
                Err(unfit) if worst.as_ref().is_none_or(|worst| worst.rank() <= unfit.rank()) => worst = Some(unfit),
                Err(_) => {}
            }
        }
        Err(worst.unwrap_or_else(|| Unfit::Unreachable(Error::down())))
    }

    /// Whether it stands as it stood.
    fn is_down(&self, unfit: &Unfit, began: Instant) -> bool {
        match unfit {
            // A standby answers, and is of no use; nor is one that loses what it has acknowledged.
            Unfit::ReadOnly(_) | Unfit::Unsafe(_) => true,
            // A clock can be set wrong while all is well: the metric tells, and the start of a process refuses.
            Unfit::Skewed(_) | Unfit::Refused(_) => false,
            Unfit::Unreachable(_) => !self.health.has_answered_since(began),
        }
    }

    fn set_down(&self, down: bool) {
        if !down {
            self.health.back_at.store(self.health.now(), Ordering::Relaxed);
        }
        self.meters.up.set(i64::from(!down));
        self.health.is_down.send_replace(down);
    }
}

/// Looks until the server is well, and tells everybody when that changes.
async fn look_after(server: Weak<Server>) {
    let mut down_since = None;
    loop {
        let began = Instant::now();
        let Some(server) = server.upgrade().filter(|server| !server.pool.is_closed()) else { return };
        let database = server.meters.database;
        match (server.find().await, down_since) {
            (Ok(()) | Err(Unfit::Skewed(_)), Some(since)) => {
                let since: Instant = since;
                server.set_down(false);
                info!(database, seconds = since.elapsed().as_secs_f64(), "database is back");
                down_since = None;
            }
            (Err(unfit), None) if server.is_down(&unfit, began) => {
                server.set_down(true);
                warn!(database, error = story(unfit.error()), "database is down");
                down_since = Some(began);
            }
            (Err(unfit), _) => debug!(database, error = story(unfit.error()), "database is looked at"),
            (Ok(()), None) => {}
        }
        tokio::time::sleep(PAUSE).await;
        if down_since.is_none() {
            server.health.is_looking.store(false, Ordering::Release);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aged_connections_are_replaced_one_after_the_other() {
        let health = Health::new(&DbConfig { lifetime_max_ms: 1_000_000, connections_max: 2, ..DbConfig::default() });
        let (young, aged) = (Duration::from_secs(800), Duration::from_mins(15));
        // As if it were from long before this process: back_at is 0 then as well.
        assert!(health.may_use(young));
        assert!(!health.may_use(aged), "the first is due");
        assert!(health.may_use(aged), "the next waits for its turn");
    }

    #[test]
    fn connections_from_before_an_outage_are_not_used() {
        let health = Health::new(&DbConfig::default());
        std::thread::sleep(Duration::from_millis(2));
        health.back_at.store(health.now(), Ordering::Relaxed);
        assert!(!health.may_use(Duration::from_millis(2)));
        assert!(health.may_use(Duration::ZERO));
    }
}
