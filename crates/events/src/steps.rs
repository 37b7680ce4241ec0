//! The steps between which a crash must lose and double nothing: each is a failpoint of the process, and in this crate's own tests a place
//! at which the work can be stopped for good.

/// Where the relay and the consumer tell how far they are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steps {
    #[cfg(test)]
    pub(crate) plan: Option<std::sync::Arc<crate::tests::plan::Plan>>,
}

/// The relay has read rows and published none of them.
pub(crate) const RELAY_READ: &str = "relay.read";
/// The bus has acknowledged; nothing is marked.
pub(crate) const RELAY_ACKNOWLEDGED: &str = "relay.acknowledged";
/// The rows are marked published.
pub(crate) const RELAY_MARKED: &str = "relay.marked";
/// The row of the inbox is written, not committed.
pub(crate) const CONSUMER_CLAIMED: &str = "consumer.claimed";
/// The handler has run; nothing is committed.
pub(crate) const CONSUMER_HANDLED: &str = "consumer.handled";
/// The effect is committed; the bus does not know.
pub(crate) const CONSUMER_COMMITTED: &str = "consumer.committed";
/// The dead letter is committed; the bus does not know.
pub(crate) const CONSUMER_PARKED: &str = "consumer.parked";

impl Steps {
    #[cfg_attr(not(test), expect(clippy::unused_async, reason = "only a test waits here"))]
    pub(crate) async fn reach(&self, step: &'static str) {
        souk_runtime::failpoint(step);
        #[cfg(test)]
        if let Some(plan) = &self.plan {
            plan.reach(step).await;
        }
    }
}
