//! Group commit: concurrent small transactions of one kind share one. While a batch commits, the commands that arrive are gathered (see
//! [`souk_runtime::gather`]); they are the next batch.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use souk_runtime::config::check_bounds;
use souk_runtime::deadline;
use souk_runtime::gather::{Gather, Gathered, Part, Unanswered, gather};
use tokio::time::Instant;
use tracing::{Instrument, info_span};

use crate::connect::Db;
use crate::error::{Error, Kind};
use crate::meters::GroupMeters;
use crate::transaction::{CONFLICT_TRIES, Tx};

/// What a group does with its commands.
pub trait Batch: Send + Sync + 'static {
    /// One command.
    type Command: Send + Sync + 'static;
    /// What a command is answered.
    type Reply: Send + 'static;
    /// Why a command is refused. A refused command must have left no trace in the transaction.
    type Error: Send + 'static;

    /// Decides every command, in order, within one transaction; one result for each. An `Err` is a failure of the whole: nothing of it
    /// is committed, and the commands are tried again or told so.
    fn apply(
        &self,
        tx: &mut Tx,
        commands: &[Self::Command],
    ) -> impl Future<Output = Result<Decided<Self>, Error>> + Send;

    /// As how many it counts, where one command asks for many things.
    fn weight(_command: &Self::Command) -> usize {
        1
    }
}

/// One result for each command of a batch, in order.
pub type Decided<B> = Vec<Result<<B as Batch>::Reply, <B as Batch>::Error>>;

/// The bounds of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GroupConfig {
    /// Commands that wait for the next transaction; one more is refused at once.
    pub queue_max: usize,
    /// Commands in one transaction. A call that asks for more changes than that has one of its own.
    pub batch_max: usize,
}

impl GroupConfig {
    /// Notes what cannot be; `at` is where the settings stand.
    pub fn validate(&self, at: &str, problems: &mut Vec<String>) {
        let commands = [("queue_max", self.queue_max as u64), ("batch_max", self.batch_max as u64)];
        check_bounds(problems, at, 1..=QUEUE_MAX, &commands);
    }
}

/// No queue is longer: each waiting command takes memory.
const QUEUE_MAX: u64 = 1_000_000;

impl Default for GroupConfig {
    fn default() -> Self {
        Self { queue_max: 4_096, batch_max: 256 }
    }
}

/// Why a command was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GroupError<E> {
    /// `queue_max` commands wait already. Nothing was done.
    #[error("too many commands are waiting")]
    QueueFull,
    /// Its deadline passed before a transaction took it up. Nothing was done.
    #[error("the deadline passed in the queue")]
    Expired,
    /// The database failed; of kind `Unavailable`, the outcome is not known.
    #[error(transparent)]
    Db(#[from] Error),
    /// The batch refused it.
    #[error("refused")]
    Rejected(E),
}

/// A group. Cheap to clone; its worker ends when the last clone is dropped and everything queued is answered.
#[derive(Debug)]
pub struct GroupCommit<B: Batch> {
    gather: Gather<B::Command, Answer<B>>,
    stats: Arc<GroupStats>,
}

impl<B: Batch> Clone for GroupCommit<B> {
    fn clone(&self) -> Self {
        Self { gather: self.gather.clone(), stats: self.stats.clone() }
    }
}

/// What a group has done so far.
#[derive(Debug)]
pub struct GroupStats(GroupMeters);

impl GroupStats {
    /// Transactions that were committed.
    pub fn batches(&self) -> u64 {
        self.0.batches.get()
    }

    /// Commands in them: divided by the batches, the mean size of a batch.
    pub fn commands(&self) -> u64 {
        self.0.commands.get()
    }

    /// Commands that were dropped before a transaction, because their deadline or their caller was gone.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.get()
    }
}

type Answer<B> = Result<<B as Batch>::Reply, GroupError<<B as Batch>::Error>>;

impl<B: Batch> GroupCommit<B> {
    /// Starts the group's worker on the current runtime. Metrics have the group under `name`.
    pub fn start(name: &'static str, db: Db, batch: B, config: &GroupConfig) -> Self {
        let (gather, gathered) = gather(config.queue_max, config.batch_max, B::weight);
        let stats = Arc::new(GroupStats(db.meters.group(name)));
        let worker = Worker { name, db, batch, gathered, stats: stats.clone() };
        tokio::spawn(worker.run());
        Self { gather, stats }
    }

    /// Hands in a command and waits for the commit of its batch. Dropped before a transaction took it up, it is not done.
    pub async fn submit(&self, command: B::Command, deadline: Option<Instant>) -> Answer<B> {
        match self.gather.submit(command, deadline, info_span!("group commit")).await {
            Ok(answer) => answer,
            Err(Unanswered::QueueFull) => {
                self.stats.0.refused.inc();
                Err(GroupError::QueueFull)
            }
            Err(Unanswered::Ended) => Err(Error::worker_ended().into()),
        }
    }

    /// What the group has done so far.
    pub fn stats(&self) -> &GroupStats {
        &self.stats
    }
}

struct Worker<B: Batch> {
    name: &'static str,
    db: Db,
    batch: B,
    gathered: Gathered<B::Command, Answer<B>>,
    stats: Arc<GroupStats>,
}

/// Commands that share a transaction.
type Group<B> = Part<<B as Batch>::Command, Answer<B>>;

impl<B: Batch> Worker<B> {
    async fn run(mut self) {
        while let Some(group) = self.gathered.next().await {
            self.answer(group).await;
        }
    }

    /// Commits the commands together. If they fail as a whole by a fault of ours, one of them is poisoned: the halves are tried on
    /// their own, until the poisoned one is alone with its failure.
    async fn answer(&self, gathered: Group<B>) {
        let mut groups = vec![gathered];
        while let Some(mut group) = groups.pop() {
            match self.commit(&mut group).await {
                Ok(answers) => group.answer(answers),
                Err(error) if error.kind() == Kind::Bug && group.commands.len() > 1 => {
                    let second = group.split_half();
                    groups.extend([second, group]);
                }
                Err(error) => group.answer(std::iter::repeat_with(|| Err(error.clone().into()))),
            }
        }
    }

    async fn commit(&self, group: &mut Group<B>) -> Result<Vec<Answer<B>>, Error> {
        let mut tries = 1;
        loop {
            let (span, _) = group.span(|| info_span!("batch", group = self.name, commands = group.commands.len()));
            match deadline::scope(group.deadline(), self.commit_once(group)).instrument(span).await {
                Err(error) if error.kind() == Kind::Conflict && tries < CONFLICT_TRIES => tries += 1,
                result => return result,
            }
        }
    }

    /// Commits what is still wanted of the group, and leaves the rest out of it.
    async fn commit_once(&self, group: &mut Group<B>) -> Result<Vec<Answer<B>>, Error> {
        self.drop_unwanted(group);
        if group.commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = self.db.write().await?;
        // Again: until the transaction could begin, time has passed.
        self.drop_unwanted(group);
        if group.commands.is_empty() {
            return Ok(Vec::new());
        }
        // The worker serves everyone: a panic of one batch must not end it.
        let applied = AssertUnwindSafe(self.batch.apply(&mut tx, &group.commands)).catch_unwind().await;
        let results = applied.unwrap_or_else(|_| Err(Error::bug("a batch panicked")))?;
        if results.len() != group.commands.len() {
            return Err(Error::bug("a batch must answer every command"));
        }
        tx.commit().await?;
        let size: usize = group.commands.iter().map(B::weight).sum();
        self.stats.0.batches.inc();
        self.stats.0.commands.inc_by(size as u64);
        self.stats.0.sizes.observe(f64::from(u32::try_from(size).unwrap_or(u32::MAX)));
        Ok(results.into_iter().map(|result| result.map_err(GroupError::Rejected)).collect())
    }

    /// Leaves out what nobody waits for any more, before anything is done for it.
    fn drop_unwanted(&self, group: &mut Group<B>) {
        let dropped = group.drop_unwanted(|| Err(GroupError::Expired));
        self.stats.0.dropped.inc_by(dropped as u64);
    }
}
