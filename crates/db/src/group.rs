//! Group commit: concurrent small transactions of one kind share one.
//!
//! While a batch commits, the commands that arrive are gathered; they are the next batch. There is no timer: a command that arrives
//! while nothing is in flight is a batch of its own and starts at once, so that an idle system answers as fast as without groups and a
//! busy one pays for one commit where it would have paid for hundreds.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use souk_runtime::config::check_bounds;
use souk_runtime::{TraceContext, deadline, trace};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{Instrument, Span, info_span};

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
}

/// One result for each command of a batch, in order.
pub type Decided<B> = Vec<Result<<B as Batch>::Reply, <B as Batch>::Error>>;

/// The bounds of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GroupConfig {
    /// Commands that wait for the next transaction; one more is refused at once.
    pub queue_max: usize,
    /// Commands in one transaction.
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
    queue: mpsc::Sender<Queued<B>>,
    stats: Arc<GroupStats>,
}

impl<B: Batch> Clone for GroupCommit<B> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), stats: self.stats.clone() }
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

struct Queued<B: Batch> {
    command: B::Command,
    ticket: Ticket<B>,
}

struct Ticket<B: Batch> {
    deadline: Option<Instant>,
    answer: oneshot::Sender<Answer<B>>,
    /// What its caller waits in; of a trace that is recorded or not.
    waiting: Span,
    recorded: bool,
}

type Answer<B> = Result<<B as Batch>::Reply, GroupError<<B as Batch>::Error>>;

impl<B: Batch> GroupCommit<B> {
    /// Starts the group's worker on the current runtime. Metrics have the group under `name`.
    pub fn start(name: &'static str, db: Db, batch: B, config: &GroupConfig) -> Self {
        let (queue, waiting) = mpsc::channel(config.queue_max.max(1));
        let stats = Arc::new(GroupStats(db.meters.group(name)));
        let worker = Worker { name, db, batch, waiting, batch_max: config.batch_max.max(1), stats: stats.clone() };
        tokio::spawn(worker.run());
        Self { queue, stats }
    }

    /// Hands in a command and waits for the commit of its batch. Dropped before a transaction took it up, it is not done.
    pub async fn submit(&self, command: B::Command, deadline: Option<Instant>) -> Answer<B> {
        let (answer, answered) = oneshot::channel();
        let waiting = info_span!("group commit");
        let recorded = trace::current().is_some_and(TraceContext::is_sampled);
        let ticket = Ticket { deadline, answer, waiting: waiting.clone(), recorded };
        if self.queue.try_send(Queued { command, ticket }).is_err() {
            self.stats.0.refused.inc();
            return Err(GroupError::QueueFull);
        }
        answered.instrument(waiting).await.unwrap_or_else(|_| Err(Error::worker_ended().into()))
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
    waiting: mpsc::Receiver<Queued<B>>,
    batch_max: usize,
    stats: Arc<GroupStats>,
}

/// Commands that share a transaction, each with its ticket.
struct Part<B: Batch> {
    commands: Vec<B::Command>,
    tickets: Vec<Ticket<B>>,
}

impl<B: Batch> Worker<B> {
    async fn run(mut self) {
        let mut gathered = Vec::new();
        while self.waiting.recv_many(&mut gathered, self.batch_max).await > 0 {
            let (commands, tickets) =
                gathered.drain(..).map(|queued: Queued<B>| (queued.command, queued.ticket)).unzip();
            self.answer(Part { commands, tickets }).await;
        }
    }

    /// Commits the commands together. If they fail as a whole by a fault of ours, one of them is poisoned: the halves are tried on
    /// their own, until the poisoned one is alone with its failure.
    async fn answer(&self, gathered: Part<B>) {
        let mut parts = vec![gathered];
        while let Some(mut part) = parts.pop() {
            match self.commit(&mut part).await {
                Ok(results) => part.tickets.into_iter().zip(results).for_each(|(ticket, result)| ticket.tell(result)),
                Err(error) if error.kind() == Kind::Bug && part.commands.len() > 1 => {
                    let half = part.commands.len() / 2;
                    let second =
                        Part { commands: part.commands.split_off(half), tickets: part.tickets.split_off(half) };
                    parts.extend([second, part]);
                }
                Err(error) => part.tickets.into_iter().for_each(|ticket| ticket.tell(Err(error.clone().into()))),
            }
        }
    }

    async fn commit(&self, part: &mut Part<B>) -> Result<Vec<Answer<B>>, Error> {
        let mut tries = 1;
        loop {
            let (span, deadline) = (part.span(self.name), part.deadline());
            match deadline::scope(deadline, self.commit_once(part)).instrument(span).await {
                Err(error) if error.kind() == Kind::Conflict && tries < CONFLICT_TRIES => tries += 1,
                result => return result,
            }
        }
    }

    /// Commits what is still wanted of the part, and leaves the rest out of it.
    async fn commit_once(&self, part: &mut Part<B>) -> Result<Vec<Answer<B>>, Error> {
        self.drop_unwanted(part);
        if part.commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = self.db.write().await?;
        // Again: until the transaction could begin, time has passed.
        self.drop_unwanted(part);
        if part.commands.is_empty() {
            return Ok(Vec::new());
        }
        // The worker serves everyone: a panic of one batch must not end it.
        let applied = AssertUnwindSafe(self.batch.apply(&mut tx, &part.commands)).catch_unwind().await;
        let results = applied.unwrap_or_else(|_| Err(Error::bug("a batch panicked")))?;
        if results.len() != part.commands.len() {
            return Err(Error::bug("a batch must answer every command"));
        }
        tx.commit().await?;
        self.stats.0.batches.inc();
        self.stats.0.commands.inc_by(results.len() as u64);
        self.stats.0.sizes.observe(f64::from(u32::try_from(results.len()).unwrap_or(u32::MAX)));
        Ok(results.into_iter().map(|result| result.map_err(GroupError::Rejected)).collect())
    }

    /// Leaves out what nobody waits for any more, before anything is done for it.
    fn drop_unwanted(&self, part: &mut Part<B>) {
        let now = Instant::now();
        let queued = std::mem::take(&mut part.commands).into_iter().zip(std::mem::take(&mut part.tickets));
        for (command, ticket) in queued {
            let expired = ticket.deadline.is_some_and(|deadline| deadline <= now);
            if expired || ticket.answer.is_closed() {
                self.stats.0.dropped.inc();
                ticket.tell(Err(GroupError::Expired));
            } else {
                part.commands.push(command);
                part.tickets.push(ticket);
            }
        }
    }
}

impl<B: Batch> Part<B> {
    /// When the last of those who wait for it has gone; `None`: one has no deadline.
    fn deadline(&self) -> Option<Instant> {
        self.tickets.iter().map(|ticket| ticket.deadline).reduce(|one, other| Some(one?.max(other?))).flatten()
    }

    /// The span of a transaction that serves many traces: it stands in the first that is recorded, and is linked with the others.
    fn span(&self, group: &str) -> Span {
        let mut recorded = self.tickets.iter().filter(|ticket| ticket.recorded).map(|ticket| &ticket.waiting);
        let Some(first) = recorded.next() else { return Span::none() };
        let span = first.in_scope(|| info_span!("batch", group, commands = self.commands.len()));
        for other in recorded {
            span.follows_from(other);
            other.follows_from(&span);
        }
        span
    }
}

impl<B: Batch> Ticket<B> {
    /// A caller that has gone away does not mind.
    fn tell(self, answer: Answer<B>) {
        drop(self.answer.send(answer));
    }
}
