//! A consumer: the effect of an event, once, however often it is delivered.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use souk_db::{Db, Error, Tx};
use souk_runtime::Clock;
use tracing::{error, warn};
use uuid::Uuid;

use crate::event::Event;
use crate::subject::matches;
use crate::{dead_letters, inbox};

/// What an event does.
pub trait Handler: Send + Sync + 'static {
    /// Applies the event in `tx`, which also notes that it was seen. No network in here.
    fn handle<'a>(&'a self, tx: &'a mut Tx, event: &'a Event) -> BoxFuture<'a, Result<(), HandlerError>>;
}

/// Why an event had no effect.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// It may go better next time.
    #[error("{0}")]
    Retry(String),
    /// It never will: an event that cannot be understood.
    #[error("{0}")]
    Park(String),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] Error),
}

/// The bounds of a consumer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ConsumerConfig {
    /// An event is tried so often before it is parked as a dead letter. A database that does not answer counts for nothing.
    pub tries_max: u32,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self { tries_max: 8 }
    }
}

/// A handler with its name, its subjects and its database.
pub struct Consumer {
    name: &'static str,
    patterns: Vec<&'static str>,
    db: Db,
    clock: Clock,
    config: ConsumerConfig,
    handler: Arc<dyn Handler>,
    /// Failed tries of events that are not seen yet: as many as there are aggregates that stand still.
    tries: Mutex<HashMap<Uuid, u32>>,
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("name", &self.name).field("patterns", &self.patterns).finish_non_exhaustive()
    }
}

impl Consumer {
    /// A consumer of the events whose subject is one of `patterns`. Its name is for ever: the inbox knows it by that.
    pub fn new(
        name: &'static str,
        patterns: &[&'static str],
        db: Db,
        clock: Clock,
        config: ConsumerConfig,
        handler: impl Handler,
    ) -> Self {
        Self {
            name,
            patterns: patterns.to_vec(),
            db,
            clock,
            config,
            handler: Arc::new(handler),
            tries: Mutex::default(),
        }
    }

    pub(crate) fn wants(&self, subject: &str) -> bool {
        self.patterns.iter().any(|pattern| matches(pattern, subject))
    }

    /// Whether the event is done with: its effect is committed, now or before, or it is parked.
    pub(crate) async fn deliver(&self, event: &Event) -> bool {
        match self.apply(event).await {
            Ok(()) => {
                self.forget(event.id);
                true
            }
            Err(HandlerError::Db(error)) if error.kind() != souk_db::Kind::Bug => {
                warn!(consumer = self.name, event_id = %event.id, %error, "event not consumed");
                false
            }
            Err(HandlerError::Park(reason)) => self.park(event, &reason, self.failed(event.id)).await,
            Err(failure) => {
                let tries = self.failed(event.id);
                warn!(consumer = self.name, event_id = %event.id, tries, error = %failure, "event not consumed");
                tries >= self.config.tries_max && self.park(event, &failure.to_string(), tries).await
            }
        }
    }

    async fn apply(&self, event: &Event) -> Result<(), HandlerError> {
        let mut tx = self.db.write().await?;
        if inbox::note(&mut tx, self.name, event.id, self.clock.now()).await? {
            self.handler.handle(&mut tx, event).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    async fn park(&self, event: &Event, reason: &str, tries: u32) -> bool {
        let parked = async {
            let now = self.clock.now();
            let mut tx = self.db.write().await?;
            inbox::note(&mut tx, self.name, event.id, now).await?;
            dead_letters::park(&mut tx, self.name, event, reason, tries, now).await?;
            tx.commit().await
        };
        match parked.await {
            Ok(()) => {
                error!(consumer = self.name, event_id = %event.id, subject = event.subject, tries, reason, "event parked");
                self.forget(event.id);
                true
            }
            Err(error) => {
                warn!(consumer = self.name, event_id = %event.id, %error, "event not parked");
                false
            }
        }
    }

    /// Runs a parked event through the handler once more; `false`: there is none, or it was replayed before.
    pub async fn replay(&self, event_id: Uuid) -> Result<bool, HandlerError> {
        let mut tx = self.db.write().await?;
        let Some(letter) = dead_letters::find(&mut tx, self.name, event_id).await? else { return Ok(false) };
        if !dead_letters::mark_replayed(&mut tx, self.name, event_id, self.clock.now()).await? {
            return Ok(false);
        }
        self.handler.handle(&mut tx, &letter.event).await?;
        tx.commit().await?;
        Ok(true)
    }

    fn failed(&self, event_id: Uuid) -> u32 {
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        let count = tries.entry(event_id).or_default();
        *count += 1;
        *count
    }

    fn forget(&self, event_id: Uuid) {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner).remove(&event_id);
    }
}
