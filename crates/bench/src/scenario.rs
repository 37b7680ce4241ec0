//! What is measured: one kind of call, or a mixture, and how its answers are checked.

mod get_product;
mod get_user;
mod list_orders;
mod login;
mod place_order;
mod shop;
mod watch;

use crate::load::Calls;
use crate::report::Kind;

pub(crate) use get_product::GetProduct;
pub(crate) use get_user::GetUser;
pub(crate) use list_orders::ListOrders;
pub(crate) use login::Login;
pub(crate) use place_order::PlaceOrder;
pub(crate) use shop::Shop;
pub(crate) use watch::{Audience, IdleStreams, News, Watch};

/// A scenario. It may be run several times: what it knows of its calls adds up.
pub(crate) trait Scenario: Calls {
    /// What it is called in reports.
    fn name(&self) -> String;

    /// How many calls have come to their end so far, where an answer is not the end of it; `None`: it is.
    async fn finished(&self) -> anyhow::Result<Option<f64>> {
        Ok(None)
    }

    /// Waits until all is done that calls have begun, and looks whether it is right.
    async fn check(&self) -> anyhow::Result<Verdict> {
        Ok(Verdict::default())
    }
}

/// What a check has found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    /// What is wrong; nothing: all is well.
    pub(crate) violations: Vec<String>,
    /// How long the work went on after the last answer, in seconds.
    pub(crate) settled_seconds: Option<f64>,
    /// Where calls are of several kinds: latencies of each.
    pub(crate) kinds: Vec<Kind>,
    /// How changes became known to those who watch.
    pub(crate) news: Option<News>,
}
