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

/// Latencies as they are shown, in microseconds. A quantile beyond which fewer than [`BEYOND_MIN`] lie is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// How many there are.
    pub(crate) count: u64,
    pub(crate) mean_us: f64,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p90_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) p999_us: Option<f64>,
    pub(crate) max_us: f64,
}

/// Of fewer, the next run would show others.
const BEYOND_MIN: u64 = 10;

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

    /// `None`: there are none.
    pub(crate) fn summary(&self) -> Option<Summary> {
        let count = self.count();
        // `1 / beyond` of all lie beyond the quantile.
        let quantile =
            |quantile, beyond| (count / beyond >= BEYOND_MIN).then(|| micros(self.0.value_at_quantile(quantile)));
        (count > 0).then(|| Summary {
            count,
            mean_us: self.0.mean() / 1_000.0,
            p50_us: quantile(0.5, 2),
            p90_us: quantile(0.9, 10),
            p99_us: quantile(0.99, 100),
            p999_us: quantile(0.999, 1_000),
            max_us: micros(self.0.max()),
        })
    }
}

/// A count as a number to reckon with.
#[expect(clippy::cast_precision_loss, reason = "counts, bytes and ticks of a benchmark are far below 2^52")]
pub(crate) fn as_f64(count: impl TryInto<u64>) -> f64 {
    count.try_into().unwrap_or(u64::MAX) as f64
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn micros(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64() * 1e6
}

/// The one in the middle, or the mean of the two there; `None`: there are none, or one is not known.
pub(crate) fn median(values: &[Option<f64>]) -> Option<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().collect::<Option<_>>()?;
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len().is_multiple_of(2) { Some(f64::midpoint(sorted[middle - 1], upper)) } else { Some(upper) }
}

/// `a` over `b`; `None`: there is nothing to compare with.
pub(crate) fn ratio(a: f64, b: f64) -> Option<f64> {
    (a.is_finite() && b > 0.0).then(|| a / b)
}

/// The same of what may not be known.
pub(crate) fn ratio_of(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    a.zip(b).and_then(|(a, b)| ratio(a, b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_becomes_a_table() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.summary(), None);
        for millis in 1..=1_000 {
            latencies.record(Duration::from_millis(millis));
        }
        let summary = latencies.summary().unwrap();
        let near = |value: f64, expected: f64| (value - expected).abs() <= expected / 500.0;
        assert_eq!(latencies.count(), 1_000);
        assert!(near(summary.p50_us.unwrap(), 500_000.0), "{summary:?}");
        assert!(near(summary.p90_us.unwrap(), 900_000.0), "{summary:?}");
        assert!(near(summary.p99_us.unwrap(), 990_000.0) && near(summary.max_us, 1_000_000.0), "{summary:?}");
        assert_eq!(summary.p999_us, None, "one alone lies beyond");
        assert!(near(summary.mean_us, 500_500.0), "{summary:?}");
    }

    #[test]
    fn histograms_add_up_and_hold_what_is_too_long() {
        let (mut one, mut other) = (Latencies::default(), Latencies::default());
        one.record(Duration::from_micros(5));
        other.record(Duration::from_hours(1));
        one.add(&other);
        assert_eq!(one.count(), 2);
        assert!(one.summary().unwrap().max_us >= LONGEST.as_secs_f64() * 1e6);
    }

    #[test]
    fn the_median_of_pairs_is_the_one_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 100.0].map(Some)), Some(3.0));
        assert_eq!(median(&[4.0, 1.0, 100.0, 2.0].map(Some)), Some(3.0));
        assert_eq!(median(&[Some(1.0), None, Some(1.0)]), None);
        assert_eq!((ratio(3.0, 2.0), ratio(1.0, 0.0), ratio_of(None, Some(1.0))), (Some(1.5), None, None));
    }
}
