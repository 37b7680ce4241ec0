//! Every change of stock: many commands, one transaction. The rules are those of [`Book`]; here is only how a book is opened and closed.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, Utc};
use souk_db::{Batch, Decided, Error as DbError, Tx};
use souk_events::outbox;
use souk_interceptors::{Caller, context};
use souk_runtime::{Clock, Ids, TraceContext, failpoint, trace};
use uuid::Uuid;

use crate::domain::book::{AnswerKey, Changes};
use crate::domain::command::{Answer, CallKey, SELF, Stamp};
use crate::domain::{Book, Command, Refusal, Reply, Reservation, StockLevel};
use crate::error::Error;
use crate::events::{self, Origins};
use crate::ops::App;
use crate::store;

/// Where a crash test kills this service: a change of the stock is written and not committed.
pub const BEFORE_COMMIT: &str = "inventory.before_commit";

/// Commands that are done together, in order, and who gave them. Each is done or refused on its own.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// A user's id, or the name of a service.
    actor: String,
    commands: Vec<Given>,
}

/// A command as it was given.
#[derive(Clone, Debug)]
pub(super) struct Given {
    /// None: what the service does by itself.
    pub(super) key: Option<CallKey>,
    pub(super) command: Command,
    /// Where it was given in a trace.
    pub(super) position: Option<TraceContext>,
}

/// What became of each command of an instruction, and which levels its batch has changed.
#[derive(Debug)]
pub struct Done {
    answers: Vec<Decision>,
    changed: Arc<ChangedLevels>,
}

type Decision = Result<Answer<Reply>, Refusal>;

/// The levels that a batch has changed, told to the watchers by the first of its commands that learns of the commit.
#[derive(Debug)]
struct ChangedLevels {
    levels: Vec<StockLevel>,
    told: AtomicBool,
}

/// The transaction of a group.
#[derive(Clone, Debug)]
pub struct StockBatch {
    /// Decides which holds are due, and stamps the ledger.
    pub clock: Clock,
    /// Ids of events.
    pub ids: Ids,
    /// Due holds that are ended in one go; with more there are several goes.
    pub due_holds_max: u32,
}

impl Batch for StockBatch {
    type Command = Instruction;
    type Reply = Done;
    /// Each command has its own decision.
    type Error = Infallible;

    async fn apply(&self, tx: &mut Tx, instructions: &[Instruction]) -> Result<Decided<Self>, DbError> {
        let now = self.clock.now();
        let commands: Vec<&Command> = instructions.iter().flat_map(Instruction::commands).collect();
        let (due, mut levels) = self.due_holds(tx, &commands, now).await?;
        let answers: Vec<AnswerKey> = instructions.iter().flat_map(Instruction::answer_keys).collect();
        let mut book = Book::open(store::load(tx, &commands, &due, &answers).await?, now);
        let (mut decisions, mut origins) = (Vec::with_capacity(instructions.len()), Origins::default());
        for instruction in instructions {
            decisions.push(instruction.decide(&mut book, &mut origins, now));
        }
        levels.extend(self.save(tx, book, &origins, now).await?);
        failpoint(BEFORE_COMMIT);
        let changed = Arc::new(ChangedLevels { levels, told: AtomicBool::new(false) });
        Ok(decisions.into_iter().map(|answers| Ok(Done { answers, changed: changed.clone() })).collect())
    }

    fn weight(instruction: &Instruction) -> usize {
        instruction.commands.len()
    }
}

impl Instruction {
    fn commands(&self) -> impl Iterator<Item = &Command> {
        self.commands.iter().map(|given| &given.command)
    }

    fn answer_keys(&self) -> impl Iterator<Item = AnswerKey> {
        let kept = self.commands.iter().filter_map(|given| given.key.filter(|key| key.is_kept));
        kept.map(|key| AnswerKey::new(&self.actor, &key))
    }

    fn decide(&self, book: &mut Book, origins: &mut Origins, now: DateTime<Utc>) -> Vec<Decision> {
        let decide = |given: &Given| {
            let decision = book.apply(&given.command, &Stamp { actor: self.actor.clone(), key: given.key, now });
            origins.note(book.notices(), given.position);
            decision
        };
        self.commands.iter().map(decide).collect()
    }
}

impl Given {
    /// By the call that is being served.
    pub(super) fn here(key: CallKey, command: Command) -> Self {
        Self { key: Some(key), command, position: trace::current() }
    }
}

impl StockBatch {
    /// The due holds that may be in the way of `commands`. A backlog of them, as after a long stop of the sweeper, is ended before: what
    /// a Reserve needs must be there however many there are, in bounded memory.
    async fn due_holds(
        &self,
        tx: &mut Tx,
        commands: &[&Command],
        now: DateTime<Utc>,
    ) -> Result<(BTreeSet<Uuid>, Vec<StockLevel>), DbError> {
        let mut levels = Vec::new();
        loop {
            let due = store::due_among(tx, commands, now, self.due_holds_max).await?;
            if due.len() < self.due_holds_max as usize {
                return Ok((due, levels));
            }
            let expire = Command::Expire(due.iter().copied().collect());
            let mut book = Book::open(store::load(tx, &[&expire], &BTreeSet::new(), &[]).await?, now);
            let ended = book.apply(&expire, &Stamp { actor: SELF.to_owned(), key: None, now });
            match ended {
                Ok(Answer { value: Reply::Expired(0), .. }) => {
                    return Err(DbError::conflict("another replica has ended the due holds"));
                }
                Ok(_) => {}
                Err(_) => return Err(DbError::bug("due holds cannot be ended")),
            }
            levels.extend(self.save(tx, book, &Origins::default(), now).await?);
        }
    }

    /// Writes what the book has come to; the levels that changed.
    async fn save(
        &self,
        tx: &mut Tx,
        book: Book,
        origins: &Origins,
        now: DateTime<Utc>,
    ) -> Result<Vec<StockLevel>, DbError> {
        let changes: Changes = book.close();
        let events = outbox::insert(&events::of_changes(&changes, origins, &self.ids, now));
        store::save(tx, &changes, events, now).await?;
        Ok(changes.stocks.into_iter().map(|changed| changed.now).collect())
    }
}

/// Has a caller's command done, and tells who watches.
pub(super) async fn change_stock(
    app: &App,
    caller: &Caller,
    key: CallKey,
    command: Command,
) -> Result<Answer<Reply>, Error> {
    only(change_all(app, caller, vec![Given::here(key, command)]).await?)
}

/// Has a caller's commands done, in order and in one transaction, and tells who watches.
pub(super) async fn change_all(app: &App, caller: &Caller, commands: Vec<Given>) -> Result<Vec<Decision>, Error> {
    if commands.is_empty() {
        return Ok(Vec::new());
    }
    let actor = caller.subject().to_owned();
    submit(app, Instruction { actor, commands }).await.map_err(Error::of_keyed)
}

/// Has the service's own command done, and tells who watches.
pub(super) async fn change_by_itself(app: &App, command: Command) -> Result<Answer<Reply>, Error> {
    let given = Given { key: None, command, position: trace::current() };
    only(submit(app, Instruction { actor: SELF.to_owned(), commands: vec![given] }).await?)
}

async fn submit(app: &App, instruction: Instruction) -> Result<Vec<Decision>, Error> {
    let Done { answers, changed } = app.stock.submit(instruction, context::deadline()).await?;
    if !changed.told.swap(true, Ordering::Relaxed) && !changed.levels.is_empty() {
        app.watchers.tell(changed.levels.iter().cloned());
        app.relay.wake();
    }
    Ok(answers)
}

fn only(mut answers: Vec<Decision>) -> Result<Answer<Reply>, Error> {
    Ok(answers.pop().ok_or(Error::Bug("every command has an answer"))??)
}

/// The reservation of an answer.
pub(super) fn reservation(answer: Answer<Reply>) -> Result<Answer<Reservation>, Error> {
    match answer.value {
        Reply::Reservation(value) => Ok(Answer { value, replayed: answer.replayed }),
        Reply::Level(_) | Reply::Expired(_) => Err(Error::Bug("a reservation was expected")),
    }
}

/// The level of an answer.
pub(super) fn level(answer: Answer<Reply>) -> Result<Answer<StockLevel>, Error> {
    match answer.value {
        Reply::Level(value) => Ok(Answer { value, replayed: answer.replayed }),
        Reply::Reservation(_) | Reply::Expired(_) => Err(Error::Bug("a level was expected")),
    }
}
