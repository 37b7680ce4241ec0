//! What was to be reached, and whether it was.

use std::fmt;

use serde::Serialize;

use crate::stats::median;

/// A goal, and what was measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Goal {
    what: String,
    /// A value for each pair of runs, or the one that there is; none: it was not measured.
    values: Vec<Option<f64>>,
    /// Their median.
    median: Option<f64>,
    bound: Bound,
}

/// None: it is shown beside the others, and nothing depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Bound {
    AtLeast(f64),
    AtMost(f64),
    None,
}

impl Goal {
    pub(super) fn new(what: impl Into<String>, values: Vec<Option<f64>>, bound: Bound) -> Self {
        Self { what: what.into(), median: median(&values), values, bound }
    }

    /// Whether the median is within the bound. What was not measured is not reached.
    pub(super) fn is_reached(&self) -> bool {
        match self.bound {
            Bound::AtLeast(least) => self.median.is_some_and(|median| median >= least),
            Bound::AtMost(most) => self.median.is_some_and(|median| median <= most),
            Bound::None => true,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let median = shown(self.median).unwrap_or_else(|| "not measured".to_owned());
        write!(f, "{}: {median}", self.what)?;
        match self.bound {
            Bound::AtLeast(least) => write!(f, ", goal at least {least}")?,
            Bound::AtMost(most) => write!(f, ", goal at most {most}")?,
            Bound::None => {}
        }
        if self.bound != Bound::None {
            f.write_str(if self.is_reached() { ": REACHED" } else { ": MISSED" })?;
        }
        if self.values.len() > 1 {
            let values: Vec<String> =
                self.values.iter().map(|value| shown(*value).unwrap_or_else(|| "–".to_owned())).collect();
            write!(f, " (pair by pair: {})", values.join(" "))?;
        }
        Ok(())
    }
}

fn shown(value: Option<f64>) -> Option<String> {
    value.map(|value| format!("{value:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_decides_and_what_was_not_measured_is_missed() {
        let goal = |values: &[f64], bound| Goal::new("ratio", values.iter().copied().map(Some).collect(), bound);
        assert!(goal(&[0.5, 0.9, 0.9], Bound::AtLeast(0.85)).is_reached());
        assert!(!goal(&[0.5, 0.5, 0.9], Bound::AtLeast(0.85)).is_reached());
        assert!(goal(&[1.5], Bound::AtMost(1.5)).is_reached() && !goal(&[1.6], Bound::AtMost(1.5)).is_reached());
        assert!(!goal(&[], Bound::AtLeast(0.0)).is_reached() && goal(&[], Bound::None).is_reached());
        assert!(!Goal::new("ratio", vec![Some(2.0), None, Some(2.0)], Bound::AtLeast(0.0)).is_reached());
        let shown = goal(&[2.0, 4.0], Bound::AtLeast(3.0)).to_string();
        assert_eq!(shown, "ratio: 3.000, goal at least 3: REACHED (pair by pair: 2.000 4.000)");
    }
}
