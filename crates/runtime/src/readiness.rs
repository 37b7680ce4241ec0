//! Whether the process can serve, and if not, what is missing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::clock::Clock;

/// How one thing is that the process depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// It is well.
    Ready,
    /// It is not, and why: for people, without secrets.
    NotReady(String),
}

/// What the process depends on, by name: `order.database`, `order.bus`, `peer.inventory`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Readiness {
    clock: Clock,
    dependencies: Arc<Mutex<BTreeMap<String, Dependency>>>,
}

/// One thing that the process depends on, as `/readyz` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dependency {
    /// How it is.
    pub state: State,
    /// Without it the process cannot serve.
    pub required: bool,
    /// It has been so since then.
    pub since: DateTime<Utc>,
    /// Why it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The state of a process, or of one thing that it depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// All is well.
    Ready,
    /// It can serve, and something is missing that it can do without for a while.
    Degraded,
    /// It cannot serve.
    NotReady,
}

impl Readiness {
    /// Nothing is known yet; `clock` says since when it is.
    pub fn new(clock: Clock) -> Self {
        Self { clock, dependencies: Arc::default() }
    }

    /// Says how `name` is, without which the process cannot serve.
    pub fn set(&self, name: impl Into<String>, check: Check) {
        self.put(name.into(), check, true);
    }

    /// Says how `name` is, without which the process serves all the same: it is shown, and turns nothing red. So are the bus, as orders
    /// succeed and their events wait, and the peers: taking a replica out of rotation because its peer is down would take out all of them.
    pub fn set_optional(&self, name: impl Into<String>, check: Check) {
        self.put(name.into(), check, false);
    }

    fn put(&self, name: String, check: Check, required: bool) {
        let (state, why) = match check {
            Check::Ready => (State::Ready, None),
            Check::NotReady(why) if required => (State::NotReady, Some(why)),
            Check::NotReady(why) => (State::Degraded, Some(why)),
        };
        let now = self.clock.now();
        let mut dependencies = self.dependencies.lock().unwrap_or_else(PoisonError::into_inner);
        let since = dependencies.get(&name).filter(|before| before.state == state).map_or(now, |before| before.since);
        dependencies.insert(name, Dependency { state, required, since, why });
    }

    /// Everything that the process depends on.
    pub fn dependencies(&self) -> BTreeMap<String, Dependency> {
        self.dependencies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The worst of all. Without a dependency that is required nothing is known yet, and nothing ready.
    pub fn state(&self) -> State {
        let dependencies = self.dependencies.lock().unwrap_or_else(PoisonError::into_inner);
        let is = |state| dependencies.values().any(|dependency| dependency.state == state);
        if is(State::NotReady) || !dependencies.values().any(|dependency| dependency.required) {
            State::NotReady
        } else if is(State::Degraded) {
            State::Degraded
        } else {
            State::Ready
        }
    }

    /// It can serve.
    pub fn is_ready(&self) -> bool {
        self.state() != State::NotReady
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn down() -> Check {
        Check::NotReady("no answer".to_owned())
    }

    #[test]
    fn only_what_is_required_turns_readiness_red() {
        let readiness = Readiness::new(Clock::system());
        assert_eq!(readiness.state(), State::NotReady);
        readiness.set_optional("order.bus", Check::Ready);
        assert_eq!(readiness.state(), State::NotReady, "nothing is known of what is required");
        readiness.set("order.database", Check::Ready);
        assert_eq!(readiness.state(), State::Ready);
        readiness.set_optional("order.bus", down());
        assert_eq!((readiness.state(), readiness.is_ready()), (State::Degraded, true));
        readiness.set("order.database", down());
        assert_eq!((readiness.state(), readiness.is_ready()), (State::NotReady, false));
        readiness.set("order.database", Check::Ready);
        readiness.set_optional("order.bus", Check::Ready);
        assert_eq!(readiness.state(), State::Ready);
    }

    #[test]
    fn a_state_has_a_beginning() {
        let clock = Clock::fake(DateTime::from_timestamp_micros(0).unwrap());
        let readiness = Readiness::new(clock.clone());
        let since = || readiness.dependencies()["database"].since.timestamp();
        for (check, expected) in [(Check::Ready, 0), (Check::Ready, 0), (down(), 2), (down(), 2), (Check::Ready, 4)] {
            readiness.set("database", check);
            assert_eq!(since(), expected);
            clock.advance(Duration::from_secs(1));
        }
    }
}
