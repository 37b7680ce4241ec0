//! Waiting until a step was reached, and stopping everything for good there, as a crash does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::steps::Steps;

/// What happens at the steps.
#[derive(Debug)]
pub(crate) struct Plan {
    crash: Option<(&'static str, u32)>,
    seen: watch::Sender<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    hits: HashMap<&'static str, u32>,
    crashed: bool,
}

impl Plan {
    /// Nothing is stopped.
    pub(crate) fn watching() -> Arc<Self> {
        Arc::new(Self { crash: None, seen: watch::Sender::default() })
    }

    /// Who reaches `step` for the `hit`th time stops there, and then everybody at their next step.
    pub(crate) fn crashing(step: &'static str, hit: u32) -> Arc<Self> {
        Arc::new(Self { crash: Some((step, hit)), seen: watch::Sender::default() })
    }

    pub(crate) fn steps(self: &Arc<Self>) -> Steps {
        Steps { plan: Some(self.clone()) }
    }

    pub(crate) async fn reach(&self, step: &'static str) {
        self.seen.send_modify(|seen| {
            if !seen.crashed {
                let hits = seen.hits.entry(step).or_default();
                *hits += 1;
                seen.crashed = self.crash == Some((step, *hits));
            }
        });
        if self.seen.borrow().crashed {
            std::future::pending::<()>().await;
        }
    }

    pub(crate) async fn reached(&self, step: &'static str, hits: u32) {
        self.wait(|seen| seen.hits.get(step).is_some_and(|hit| *hit >= hits)).await;
    }

    pub(crate) async fn crashed(&self) {
        self.wait(|seen| seen.crashed).await;
    }

    async fn wait(&self, condition: impl FnMut(&Seen) -> bool) {
        let mut seen = self.seen.subscribe();
        let waited = tokio::time::timeout(Duration::from_mins(1), seen.wait_for(condition)).await;
        assert!(waited.is_ok(), "never came: {:?}", self.seen.borrow());
    }
}
