//! A transaction on either engine, and a read that needs none.

use std::sync::Arc;

use souk_runtime::deadline;
use sqlx::pool::PoolConnection;
use sqlx::{Sqlite, SqliteConnection, Transaction};
use tracing::{Instrument, Span};

use crate::connect::Engine;
use crate::error::Error;
use crate::meters::{Meters, Outcome};
use crate::postgres::Session;
use crate::span;

/// A transaction. Dropped without a commit, it is rolled back. Or, from [`Db::read_one`](crate::Db::read_one), a read of one statement in
/// none: a second statement is refused.
#[derive(Debug)]
pub struct Tx {
    pub(crate) inner: Inner,
    /// A statement failed. PostgreSQL would answer COMMIT by undoing everything and reporting success, SQLite by keeping the rest.
    failed: bool,
    /// A statement was asked …
    asked: bool,
    /// … and not answered yet.
    waits: bool,
    account: Account,
    pub(crate) span: Span,
}

#[derive(Debug)]
pub(crate) enum Inner {
    Sqlite(OnSqlite),
    Postgres(Session),
}

/// A connection to SQLite, in a transaction or in none.
#[derive(Debug)]
pub(crate) enum OnSqlite {
    Transaction(Transaction<'static, Sqlite>),
    Connection(PoolConnection<Sqlite>),
}

impl OnSqlite {
    pub(crate) fn connection(&mut self) -> &mut SqliteConnection {
        match self {
            Self::Transaction(tx) => tx,
            Self::Connection(connection) => connection,
        }
    }
}

/// What a transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    /// One statement, in no transaction: it sees one state of the database by itself.
    ReadOne,
    Write,
}

/// What a transaction came to, counted when it is over.
#[derive(Debug)]
struct Account {
    meters: Arc<Meters>,
    access: Access,
    outcome: Outcome,
}

impl Drop for Account {
    fn drop(&mut self) {
        self.meters.ended(self.access, self.outcome);
    }
}

impl Tx {
    pub(crate) fn new(inner: Inner, access: Access, meters: Arc<Meters>, span: Span) -> Self {
        Self {
            inner,
            failed: false,
            asked: false,
            waits: false,
            account: Account { meters, access, outcome: Outcome::RolledBack },
            span,
        }
    }

    /// Which engine it is on.
    pub fn engine(&self) -> Engine {
        match self.inner {
            Inner::Sqlite(_) => Engine::Sqlite,
            Inner::Postgres(_) => Engine::Postgres,
        }
    }

    /// A statement was asked, and whoever asked has gone away before it was answered.
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// Whether it is a read of one statement.
    pub(crate) fn reads_one(&self) -> bool {
        self.account.access == Access::ReadOne
    }

    /// A statement is about to be asked.
    pub(crate) fn ask(&mut self) -> Result<(), Error> {
        if self.reads_one() && self.asked {
            return self.note(Err(Error::bug("a read of one statement was asked for another")));
        }
        (self.asked, self.waits) = (true, true);
        Ok(())
    }

    /// What a statement came to. An error that its caller swallows is remembered.
    pub(crate) fn note<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        self.waits = false;
        if let Err(error) = &result {
            self.failed = true;
            self.account.meters.failed(error.kind());
        }
        result
    }

    /// Makes it durable: all of it, or, if any statement failed, nothing. After an error of kind `Unavailable` the outcome is not known.
    pub async fn commit(self) -> Result<(), Error> {
        if self.reads_one() {
            return Err(Error::bug("a read of one statement was to be committed"));
        }
        if self.failed {
            self.rollback().await?;
            return Err(Error::bug("a statement failed, and its transaction was to be committed"));
        }
        let span = span::statement(&self, "COMMIT");
        let Self { inner, mut account, span: _transaction, .. } = self;
        let committing = async {
            match inner {
                Inner::Sqlite(OnSqlite::Transaction(tx)) => tx.commit().await.map_err(Error::from),
                Inner::Sqlite(OnSqlite::Connection(_)) => Ok(()),
                Inner::Postgres(session) => session.commit().await,
            }
        };
        account.outcome = Outcome::Failed;
        span::note(committing, span).await.inspect_err(|error| account.meters.failed(error.kind()))?;
        account.outcome = Outcome::Committed;
        Ok(())
    }

    /// Undoes it, and waits until that is done.
    pub async fn rollback(self) -> Result<(), Error> {
        match self.inner {
            Inner::Sqlite(OnSqlite::Transaction(tx)) => tx.rollback().await?,
            Inner::Sqlite(OnSqlite::Connection(_)) => {}
            Inner::Postgres(session) => session.rollback().await?,
        }
        Ok(())
    }
}

/// What meets concurrent transactions is tried so often.
pub(crate) const CONFLICT_TRIES: usize = 3;

/// Tries again, in a new transaction, what a concurrent one was in the way of.
pub async fn retrying<T, E, F>(is_conflict: impl Fn(&E) -> bool, mut attempt: impl FnMut() -> F) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let mut tries = 1;
    loop {
        match attempt().await {
            Err(error) if is_conflict(&error) && tries < CONFLICT_TRIES => tries += 1,
            result => return result,
        }
    }
}

/// Runs `work` in a task of its own, under the caller's deadline, and waits for it. For what a stream reads between its messages: when a
/// client does not read, whoever makes its messages is left standing wherever it is, and must not stand there with a connection in its hand.
pub async fn detached<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(deadline::scope(deadline::current(), work).in_current_span()).await {
        Ok(done) => done,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await, // the runtime is ending, and this task with it
        },
    }
}
