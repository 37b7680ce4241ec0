//! Times that follow from settings: when to try again, what is old enough.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

/// A hundred years: what a setting has beyond that makes no difference, and neither chrono nor a database need know it.
const HOURS_MAX: u32 = 100 * 366 * 24;

/// Ten years: nobody sets that something be kept for longer.
pub(crate) const KEEP_HOURS_MAX: u64 = 10 * 365 * 24;

/// So many hours ago.
pub(crate) fn hours_before(now: DateTime<Utc>, hours: u32) -> DateTime<Utc> {
    now - TimeDelta::hours(hours.min(HOURS_MAX).into())
}

/// So long from now.
pub(crate) fn after(now: DateTime<Utc>, pause: Duration) -> DateTime<Utc> {
    now + delta(pause)
}

/// The same length of time.
pub(crate) fn delta(pause: Duration) -> TimeDelta {
    let longest = TimeDelta::hours(HOURS_MAX.into());
    TimeDelta::from_std(pause).map_or(longest, |delta| delta.min(longest))
}

/// Doubles with every failure from `first_ms` to at most `max_ms`; `fraction` (`0.0..1.0`, random) takes up to a half off, so that those
/// who failed together do not come back together.
pub(crate) fn backoff(failures: u32, first_ms: u64, max_ms: u64, fraction: f64) -> Duration {
    let doubled = first_ms.saturating_mul(1_u64 << failures.saturating_sub(1).min(32));
    Duration::from_millis(doubled.min(max_ms)).mul_f64(1.0 - fraction / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_doubles_up_to_a_bound_and_is_scattered() {
        let waits: Vec<u128> = (1..=6).map(|failures| backoff(failures, 100, 1_000, 0.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(backoff(1, 100, 1_000, 0.5).as_millis(), 75);
        assert_eq!(backoff(u32::MAX, u64::MAX, 7, 0.0).as_millis(), 7);
    }

    #[test]
    fn the_largest_settings_are_times_that_a_database_takes() {
        let now = DateTime::from_timestamp_micros(1_700_000_000_000_000).unwrap();
        assert!(hours_before(now, u32::MAX) > DateTime::from_timestamp_micros(-1_500_000_000_000_000).unwrap());
        assert!(after(now, Duration::MAX) < DateTime::from_timestamp_micros(5_000_000_000_000_000).unwrap());
    }
}
