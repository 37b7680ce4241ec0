//! What a call asks for, drawn by its number: the same for the same seed, without a generator that calls would share.

use clap::ValueEnum;
use serde::Serialize;

use crate::stats::as_f64;

/// How calls spread over products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Spread {
    /// All alike.
    Uniform,
    /// As in shops: the second half as often as the first, the third a third as often.
    Zipf,
    /// All the same one.
    Hot,
}

/// How unevenly: the exponent of YCSB, from which most benchmarks have it.
const ZIPF_EXPONENT: f64 = 0.99;

/// Draws one of so many.
#[derive(Clone, Debug)]
pub(crate) struct Dice {
    seed: u64,
    /// The chance of each and of all before it.
    cumulative: Vec<f64>,
}

impl Dice {
    /// Over `many`, one at least.
    pub(crate) fn new(seed: u64, spread: Spread, many: usize) -> Self {
        let weight = |nth: usize| match spread {
            Spread::Uniform => 1.0,
            Spread::Zipf => as_f64(nth + 1).powf(-ZIPF_EXPONENT),
            Spread::Hot => f64::from(u8::from(nth == 0)),
        };
        let mut sum = 0.0;
        let sums = (0..many.max(1)).map(|nth| {
            sum += weight(nth);
            sum
        });
        let sums: Vec<f64> = sums.collect();
        Self { seed, cumulative: sums.into_iter().map(|part| part / sum).collect() }
    }

    /// The one that draw number `draw` of call `call` gives.
    pub(crate) fn throw(&self, call: u64, draw: u64) -> usize {
        let fraction = fraction(mixed(self.seed ^ mixed(call) ^ mixed(!draw)));
        self.cumulative.partition_point(|part| *part <= fraction).min(self.cumulative.len() - 1)
    }

    /// So many different ones, or all if there are fewer. One that a hot spread would never draw follows the one before it.
    pub(crate) fn throw_different(&self, call: u64, many: usize) -> Vec<usize> {
        let all = self.cumulative.len();
        let mut chosen: Vec<usize> = Vec::with_capacity(many.min(all));
        let draws = 0..u64::MAX;
        for draw in draws.take(many.min(all)) {
            let mut next = self.throw(call, draw);
            while chosen.contains(&next) {
                next = (next + 1) % all;
            }
            chosen.push(next);
        }
        chosen
    }
}

/// SplitMix64: neighbouring numbers become unrelated ones.
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// In `0.0..1.0`.
fn fraction(bits: u64) -> f64 {
    let high = u32::try_from(bits >> 32).unwrap_or(u32::MAX);
    f64::from(high) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(spread: Spread, many: usize, throws: u64) -> Vec<usize> {
        let dice = Dice::new(7, spread, many);
        let mut counts = vec![0; many];
        (0..throws).for_each(|call| counts[dice.throw(call, 0)] += 1);
        counts
    }

    #[test]
    fn uniform_draws_all_alike_and_hot_only_the_first() {
        for count in counts(Spread::Uniform, 10, 100_000) {
            assert!((9_500..10_500).contains(&count), "{count}");
        }
        assert_eq!(counts(Spread::Hot, 3, 1_000), [1_000, 0, 0]);
    }

    #[test]
    fn zipf_draws_the_second_about_half_as_often_and_the_last_still() {
        let counts = counts(Spread::Zipf, 100, 200_000);
        let share = |nth: usize| as_f64(counts[nth]) / as_f64(counts[0]);
        assert!((0.47..0.54).contains(&share(1)), "{}", share(1));
        assert!((0.085..0.12).contains(&share(9)), "{}", share(9));
        assert!(counts[99] > 0);
    }

    #[test]
    fn the_same_call_draws_the_same_and_its_lines_differ() {
        let dice = Dice::new(1, Spread::Zipf, 50);
        assert_eq!(dice.throw_different(9, 5), dice.throw_different(9, 5));
        for call in 0..1_000 {
            let mut lines = dice.throw_different(call, 5);
            lines.sort_unstable();
            lines.dedup();
            assert_eq!(lines.len(), 5, "call {call}");
        }
        assert_eq!(Dice::new(1, Spread::Hot, 3).throw_different(0, 5), [0, 1, 2]);
    }
}
