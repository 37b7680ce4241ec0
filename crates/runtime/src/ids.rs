//! Ids and randomness.

use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uuid::{Builder, Uuid};

use crate::clock::Clock;

/// Where ids and random bytes come from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ids {
    clock: Clock,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    /// The thread's generator, which the system seeds: fit for keys and tokens.
    System,
    /// The same bytes for the same seed: for tests.
    Seeded(Arc<Mutex<StdRng>>),
}

impl Ids {
    /// Ids of this moment, randomness fit for secrets.
    pub fn system(clock: Clock) -> Self {
        Self { clock, source: Source::System }
    }

    /// The same ids and bytes for the same seed and times.
    pub fn seeded(clock: Clock, seed: u64) -> Self {
        Self { clock, source: Source::Seeded(Arc::new(Mutex::new(StdRng::seed_from_u64(seed)))) }
    }

    /// A UUID of version 7: ids of later milliseconds are greater, so that new rows lie side by side in an index.
    pub fn new_id(&self) -> Uuid {
        let millis = u64::try_from(self.clock.now().timestamp_millis()).unwrap_or(0);
        Builder::from_unix_timestamp_millis(millis, &self.random_bytes()).into_uuid()
    }

    /// Random bytes.
    pub fn random_bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        match &self.source {
            #[expect(clippy::disallowed_methods, reason = "the one place")]
            Source::System => rand::rng().fill_bytes(&mut bytes),
            Source::Seeded(generator) => {
                generator.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut bytes);
            }
        }
        bytes
    }

    /// A random number in `0.0..1.0`, for jitter.
    pub fn random_fraction(&self) -> f64 {
        f64::from(u32::from_le_bytes(self.random_bytes())) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono::DateTime;

    use super::*;

    #[test]
    fn ids_grow_with_time_and_repeat_only_by_seed() {
        let clock = Clock::fake(DateTime::from_timestamp_millis(1_700_000_000_000).unwrap());
        let ids = Ids::system(clock.clone());
        let first = ids.new_id();
        clock.advance(Duration::from_millis(1));
        let second = ids.new_id();
        assert!(first < second);
        assert_eq!(first.get_version_num(), 7);
        assert_ne!(ids.random_bytes::<16>(), ids.random_bytes::<16>());
        assert_eq!(Ids::seeded(clock.clone(), 1).new_id(), Ids::seeded(clock, 1).new_id());
    }

    #[test]
    fn a_fraction_is_below_one() {
        let ids = Ids::seeded(Clock::system(), 1);
        assert!((0..1_000).map(|_| ids.random_fraction()).all(|fraction| (0.0..1.0).contains(&fraction)));
    }
}
