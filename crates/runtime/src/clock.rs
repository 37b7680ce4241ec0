//! The time of day, and waiting for it.

use std::time::Duration;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use tokio::sync::watch;

/// A clock. Cheap to clone; clones of a fake clock show the same time.
#[derive(Clone, Debug)]
pub struct Clock(Inner);

#[derive(Clone, Debug)]
enum Inner {
    System,
    Fake(watch::Sender<DateTime<Utc>>),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Inner::System)
    }

    /// A clock that stands at `start` until it is [advanced](Self::advance).
    pub fn fake(start: DateTime<Utc>) -> Self {
        Self(Inner::Fake(watch::Sender::new(start.trunc_subsecs(6))))
    }

    /// Now, cut to microseconds: what the databases keep.
    pub fn now(&self) -> DateTime<Utc> {
        match &self.0 {
            #[expect(clippy::disallowed_methods, reason = "the one place that asks the machine")]
            Inner::System => Utc::now().trunc_subsecs(6),
            Inner::Fake(now) => *now.borrow(),
        }
    }

    /// Waits so long; on a fake clock, until it has been advanced so far.
    pub async fn sleep(&self, duration: Duration) {
        match &self.0 {
            Inner::System => tokio::time::sleep(duration).await,
            Inner::Fake(now) => {
                let until = later(*now.borrow(), duration);
                // `self` holds a sender, so the channel cannot close.
                drop(now.subscribe().wait_for(|now| *now >= until).await);
            }
        }
    }

    /// Moves a fake clock on and wakes who has waited for it. The machine's clock cannot be moved: it is left as it is.
    pub fn advance(&self, duration: Duration) {
        if let Inner::Fake(now) = &self.0 {
            now.send_modify(|now| *now = later(*now, duration));
        }
    }
}

/// Past the end of time is the end of time.
fn later(time: DateTime<Utc>, duration: Duration) -> DateTime<Utc> {
    TimeDelta::from_std(duration)
        .ok()
        .and_then(|delta| time.checked_add_signed(delta))
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_fake_clock_wakes_who_has_waited_long_enough() {
        let clock = Clock::fake(DateTime::from_timestamp_micros(0).unwrap());
        let mut short = Box::pin(clock.sleep(Duration::from_secs(1)));
        let mut long = Box::pin(clock.sleep(Duration::from_secs(3)));
        assert_eq!((short.as_mut().now_or_never(), long.as_mut().now_or_never()), (None, None));
        clock.advance(Duration::from_secs(2));
        assert_eq!((short.now_or_never(), long.as_mut().now_or_never()), (Some(()), None));
        clock.advance(Duration::from_secs(1));
        assert_eq!(long.now_or_never(), Some(()));
    }

    #[test]
    fn time_has_microseconds_and_an_end() {
        assert_eq!(Clock::system().now().timestamp_subsec_nanos() % 1_000, 0);
        let clock = Clock::fake(DateTime::from_timestamp_micros(0).unwrap());
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), DateTime::<Utc>::MAX_UTC);
    }
}
