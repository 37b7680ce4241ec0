//! Hashing passwords off the threads that serve calls: a bounded number at a time, a bounded number waiting.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use souk_runtime::Ids;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::PasswordsConfig;
use crate::domain::password::{Cost, HashError};
use crate::domain::{Password, PasswordHash};
use crate::error::Error;

/// Hashes and verifies passwords. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hasher(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ids: Ids,
    cost: Cost,
    /// Those that run.
    running: Arc<Semaphore>,
    /// Those that run or wait.
    admitted: Arc<Semaphore>,
    /// A hash of nobody's password, so that a login without an account takes as long as one with.
    nobody: PasswordHash,
}

impl Hasher {
    /// Computes one hash, of a password that nobody knows.
    pub fn new(config: &PasswordsConfig, ids: Ids) -> Result<Self, HashError> {
        let cost = Cost { memory_kib: config.memory_kib, passes: config.passes };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let running = if config.concurrency == 0 { cores } else { config.concurrency };
        let unknown = Password::attempt(&URL_SAFE_NO_PAD.encode(ids.random_bytes::<16>())).map_err(|_| HashError)?;
        let nobody = PasswordHash::of(&unknown, &ids.random_bytes(), cost)?;
        Ok(Self(Arc::new(Inner {
            ids,
            cost,
            running: Arc::new(Semaphore::new(running)),
            admitted: Arc::new(Semaphore::new(running + config.waiting_max)),
            nobody,
        })))
    }

    /// A hash of `password`, at today's cost.
    pub async fn hash(&self, password: Password) -> Result<PasswordHash, Error> {
        let (salt, cost) = (self.0.ids.random_bytes(), self.0.cost);
        self.run(move || PasswordHash::of(&password, &salt, cost)).await
    }

    /// Whether `hash` is that of `password`. Without a hash: no, after the same time.
    pub async fn verify(&self, hash: Option<PasswordHash>, password: Password) -> Result<bool, Error> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.0.nobody.clone());
        Ok(self.run(move || hash.matches(&password)).await? && known)
    }

    /// A hash at today's cost in place of `hash` of the same password, if that is cheaper. It can wait for another day: where there is no
    /// room for it now, there is none.
    pub async fn better(&self, hash: &PasswordHash, password: Password) -> Option<PasswordHash> {
        if hash.is_below(self.0.cost) { self.hash(password).await.ok() } else { None }
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, HashError> + Send + 'static,
    ) -> Result<T, Error> {
        let admitted = self.0.admitted.clone().try_acquire_owned().map_err(|_| Error::Busy)?;
        let running = self.0.running.clone().acquire_owned().await.map_err(|_| Error::ShuttingDown)?;
        // The permits go along: a caller who goes away does not make the work go away.
        let permits: [OwnedSemaphorePermit; 2] = [admitted, running];
        let job = move || {
            let result = job();
            drop(permits);
            result
        };
        Ok(tokio::task::spawn_blocking(job).await.map_err(|_| Error::Bug("hashing panicked"))??)
    }
}

#[cfg(test)]
mod tests {
    use souk_runtime::Clock;

    use super::*;

    fn hasher(concurrency: usize, waiting_max: usize) -> Hasher {
        let config = PasswordsConfig { memory_kib: 64, passes: 1, concurrency, waiting_max };
        Hasher::new(&config, Ids::system(Clock::system())).unwrap()
    }

    fn password(text: &str) -> Password {
        Password::attempt(text).unwrap()
    }

    #[tokio::test]
    async fn nobodys_password_is_never_right() {
        let hasher = hasher(1, 1);
        let hash = hasher.hash(password("correct horse")).await.unwrap();
        assert!(hasher.verify(Some(hash.clone()), password("correct horse")).await.unwrap());
        assert!(!hasher.verify(Some(hash.clone()), password("correct house")).await.unwrap());
        assert!(!hasher.verify(None, password("correct horse")).await.unwrap());
        assert_ne!(hasher.hash(password("correct horse")).await.unwrap(), hash, "each has a salt of its own");
    }

    #[tokio::test]
    async fn a_better_hash_is_made_where_there_is_room_for_it() {
        let (old, hasher) = (Cost { memory_kib: 32, passes: 1 }, hasher(1, 0));
        let old = PasswordHash::of(&password("x"), &[1; 16], old).unwrap();
        let occupied = hasher.0.admitted.clone().try_acquire_owned().unwrap();
        assert_eq!(hasher.better(&old, password("x")).await, None);
        drop(occupied);
        let better = hasher.better(&old, password("x")).await.unwrap();
        assert_eq!(hasher.better(&better, password("x")).await, None, "good enough");
    }

    #[tokio::test]
    async fn what_would_wait_too_long_is_refused() {
        let hasher = hasher(1, 0);
        let occupied = hasher.0.admitted.clone().try_acquire_owned().unwrap();
        assert!(matches!(hasher.hash(password("x")).await, Err(Error::Busy)));
        drop(occupied);
        assert!(hasher.hash(password("x")).await.is_ok());
    }
}
