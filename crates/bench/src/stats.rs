//! From single latencies to the numbers that are shown, and from pairs of runs to one ratio. Pure.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Latencies of so many significant digits.
const DIGITS: u8 = 3;
/// What takes longer counts as this long: no call waits so long.
const LONGEST: Duration = Duration::from_mins(10);

/// Latencies of calls.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(Histogram<u64>);

/// Latencies as they are shown, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[expect(clippy::struct_field_names, reason = "the unit stands in every name")]
pub(crate) struct Summary {
    pub(crate) mean_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, nanos(LONGEST), DIGITS).expect("the bounds are constants, and good"))
    }
}

impl Latencies {
    /// One more.
    pub(crate) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(nanos(latency));
    }

    /// Those of another as well.
    pub(crate) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// How many.
    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// All zero, if there are none.
    pub(crate) fn summary(&self) -> Summary {
        if self.0.is_empty() {
            return Summary::default();
        }
        let quantile = |quantile| micros(self.0.value_at_quantile(quantile));
        Summary {
            mean_us: self.0.mean() / 1_000.0,
            p50_us: quantile(0.5),
            p90_us: quantile(0.9),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            max_us: micros(self.0.max()),
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn micros(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64() * 1e6
}

/// The one in the middle, or the mean of the two there; `None`: there are none.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len().is_multiple_of(2) { Some(f64::midpoint(sorted[middle - 1], upper)) } else { Some(upper) }
}

/// `a` over `b`; nothing over nothing is no number, and reaches no goal.
pub(crate) fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { f64::NAN }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_becomes_a_table() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.summary(), Summary::default());
        for millis in 1..=1_000 {
            latencies.record(Duration::from_millis(millis));
        }
        let summary = latencies.summary();
        let near = |value: f64, expected: f64| (value - expected).abs() <= expected / 500.0;
        assert_eq!(latencies.count(), 1_000);
        assert!(near(summary.p50_us, 500_000.0), "{summary:?}");
        assert!(near(summary.p90_us, 900_000.0) && near(summary.p99_us, 990_000.0), "{summary:?}");
        assert!(near(summary.p999_us, 999_000.0) && near(summary.max_us, 1_000_000.0), "{summary:?}");
        assert!(near(summary.mean_us, 500_500.0), "{summary:?}");
    }

    #[test]
    fn histograms_add_up_and_hold_what_is_too_long() {
        let (mut one, mut other) = (Latencies::default(), Latencies::default());
        one.record(Duration::from_micros(5));
        other.record(Duration::from_hours(1));
        one.add(&other);
        assert_eq!(one.count(), 2);
        assert!(one.summary().max_us >= LONGEST.as_secs_f64() * 1e6);
    }

    #[test]
    fn the_median_of_pairs_is_the_one_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 100.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0, 100.0, 2.0]), Some(3.0));
        assert!((ratio(3.0, 2.0) - 1.5).abs() < f64::EPSILON);
        assert!(ratio(1.0, 0.0).is_nan());
    }
}
