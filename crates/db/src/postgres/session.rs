//! One transaction, or one statement, on one connection: every exchange has an end, and the connection goes back only when nothing runs on
//! it.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Postgres};
use tokio::runtime::Handle;
use tokio::time::{Instant as TokioInstant, timeout};
use tracing::debug;

use super::{Server, TRIFLE, millis};
use crate::error::{Error, Kind, breaks_connection, is_read_only};
use crate::transaction::Access;

/// A connection with a transaction. Dropped, it is undone.
#[derive(Debug)]
pub(crate) struct Session {
    /// Always there, but for the moment in which it is dropped or renewed.
    connection: Option<PoolConnection<Postgres>>,
    exchange: Exchange,
    renewals_left: u32,
}

/// What is known of the conversation with the server.
#[derive(Debug)]
pub(crate) struct Exchange {
    server: Arc<Server>,
    access: Access,
    deadline: Option<TokioInstant>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No transaction.
    AtRest,
    /// A transaction, and nothing runs.
    Open,
    /// The server was asked, and has not answered.
    Busy,
    /// The connection is of no use.
    Broken,
}

/// What was given up may end by itself so long. Most statements do, and a new connection costs more than the rest of an old statement.
const GIVEN_UP: Duration = Duration::from_millis(100);
/// The server ends a statement that takes too long, and says so; one that does not even say so is not waited for longer than this.
const OVERDUE: Duration = Duration::from_secs(1);

impl Session {
    pub(super) fn new(
        server: Arc<Server>,
        connection: PoolConnection<Postgres>,
        access: Access,
        deadline: Option<TokioInstant>,
    ) -> Self {
        let renewals_left = server.config.connections_max;
        let exchange = Exchange { server, access, deadline, state: State::AtRest };
        Self { connection: Some(connection), exchange, renewals_left }
    }

    pub(super) async fn begin(&mut self) -> Result<(), Error> {
        let begin = match self.exchange.access {
            Access::Read => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            Access::Write => "BEGIN",
            Access::ReadOne => return Ok(()),
        };
        let left = self.exchange.deadline.map(|deadline| deadline.saturating_duration_since(TokioInstant::now()));
        let limit = Duration::from_millis(self.exchange.server.config.statement_timeout_ms);
        match left.filter(|left| *left < limit) {
            // In one message: the server ends what the caller does not wait for, with no round trip more.
            Some(left) => self.say(format!("{begin}; SET LOCAL statement_timeout = '{}'", millis(left))).await,
            None => self.say(begin.to_owned()).await,
        }
    }

    /// Makes it durable. Where no answer comes, the outcome is not known.
    pub(crate) async fn commit(mut self) -> Result<(), Error> {
        if self.exchange.state != State::Open {
            self.put_at_rest().await;
            return Err(Error::bug("a statement was given up, and its transaction was to be committed"));
        }
        // All is written: that the caller's time is up is no reason not to hear what became of it. Others may wait for it as well.
        self.exchange.deadline = None;
        let committed = self.say("COMMIT".to_owned()).await;
        if self.exchange.state == State::Busy {
            return Err(Error::unanswered("whether it was committed is not known"));
        }
        committed?;
        self.exchange.state = State::AtRest;
        Ok(())
    }

    /// Undoes it, and waits until that is done.
    pub(crate) async fn rollback(mut self) -> Result<(), Error> {
        self.put_at_rest().await;
        Ok(())
    }

    /// The connection, and what watches over what is said on it.
    pub(crate) fn parts(&mut self) -> (&mut PgConnection, &mut Exchange) {
        let connection = self.connection.as_mut().expect("it is taken away only when the session ends");
        (connection, &mut self.exchange)
    }

    pub(crate) fn reads_one(&self) -> bool {
        self.exchange.access == Access::ReadOne
    }

    /// Whether its connection was cut under a read of one statement. There is no BEGIN that would have found that out before, all of the
    /// pool may have been cut at once, and what only reads may be asked again.
    pub(crate) fn can_be_renewed(&self) -> bool {
        self.reads_one() && self.is_broken() && self.renewals_left > 0
    }

    /// Another connection in place of the one that was cut.
    pub(crate) async fn renew(&mut self) -> Result<(), Error> {
        self.renewals_left -= 1;
        if let Some(connection) = self.connection.take() {
            discard(&self.exchange.server, connection);
        }
        self.connection = Some(self.exchange.server.acquire(self.exchange.deadline).await?);
        self.exchange.state = State::AtRest;
        Ok(())
    }

    /// Whether statements are to be kept prepared.
    pub(crate) fn prepares(&self) -> bool {
        self.exchange.server.config.statement_cache_max > 0
    }

    pub(super) fn is_broken(&self) -> bool {
        self.exchange.state == State::Broken
    }

    async fn say(&mut self, text: String) -> Result<(), Error> {
        let (connection, exchange) = self.parts();
        exchange.watch(connection.execute(sqlx::raw_sql(AssertSqlSafe(text)))).await.map(drop)
    }

    /// In a task of its own: a caller who goes away while it waits leaves nothing behind either.
    async fn put_at_rest(&mut self) {
        if let Some(connection) = self.connection.take() {
            // An error here would be the end of the runtime, and of the connection with it.
            drop(tokio::spawn(self.exchange.release(connection)).await);
        }
    }
}

impl Exchange {
    /// Waits for an answer of the server, as long as anybody may want it: to the deadline, until the server is known to be down, and
    /// somewhat longer than the server itself lets a statement run.
    pub(crate) async fn watch<T>(&mut self, asking: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Error> {
        match self.state {
            State::AtRest | State::Open => {}
            State::Busy => return Err(Error::bug("a statement was given up in this transaction")),
            State::Broken => return Err(Error::down()),
        }
        self.state = State::Busy;
        let since = Instant::now();
        let overdue = TokioInstant::now() + Duration::from_millis(self.server.config.statement_timeout_ms) + OVERDUE;
        let mut down = self.server.health.subscribe();
        let answer = tokio::select! {
            biased;
            answer = asking => answer,
            _ = down.wait_for(|down| *down) => {
                self.state = State::Broken;
                return Err(Error::unanswered("the database went down meanwhile"));
            }
            () = tokio::time::sleep_until(self.deadline.map_or(overdue, |deadline| deadline.min(overdue))) => {
                if self.deadline.is_some_and(|deadline| deadline < overdue) {
                    return Err(Error::too_late());
                }
                self.server.suspect(Some(since));
                return Err(Error::unanswered("the database does not answer"));
            }
        };
        self.state = match self.access {
            Access::Read | Access::Write => State::Open,
            Access::ReadOne => State::AtRest,
        };
        match answer {
            Ok(answer) => {
                self.server.health.answered();
                Ok(answer)
            }
            Err(error) => Err(self.judge(error)),
        }
    }

    /// What an error says of the connection and the server.
    fn judge(&mut self, error: sqlx::Error) -> Error {
        if self.access == Access::Write && is_read_only(&error) {
            self.state = State::Broken;
            self.server.suspect(None);
            return Error::read_only(error);
        }
        if breaks_connection(&error) {
            self.state = State::Broken;
            self.server.suspect(None);
            return Error::cut(error);
        }
        self.server.health.answered();
        match Error::from(error) {
            // By the limit that BEGIN has set: the server was ahead of us.
            error if error.kind() == Kind::Timeout && self.is_late() => Error::too_late(),
            error => error,
        }
    }

    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= TokioInstant::now())
    }

    fn release(&self, connection: PoolConnection<Postgres>) -> impl Future<Output = ()> + Send + use<> {
        release(self.server.clone(), connection, self.access, self.state)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        match Handle::try_current() {
            Ok(runtime) if !self.is_broken() => {
                drop(runtime.spawn(self.exchange.release(connection)));
            }
            // Closed as it is: there is nobody to talk to, or nobody to do so.
            _ => discard(&self.exchange.server, connection),
        }
    }
}

/// Brings a connection home with nothing running on it, or closes it.
async fn release(server: Arc<Server>, mut connection: PoolConnection<Postgres>, access: Access, state: State) {
    let since = Instant::now();
    let patience = if state == State::Busy { GIVEN_UP } else { TRIFLE };
    match timeout(patience, settle(&mut connection, access, state)).await {
        Ok(Ok(())) => {
            // Asks the connection once more whether it is there; cut off, it is closed.
            if timeout(TRIFLE, connection.return_to_pool()).await.is_err() {
                server.suspect(Some(since));
            }
        }
        Ok(Err(error)) => {
            debug!(%error, "a connection was cut");
            discard(&server, connection);
            server.suspect(Some(since));
        }
        Err(_) => {
            // The server looks for its client every `client_check_interval_ms`, and ends what it is at when there is none.
            discard(&server, connection);
            server.suspect(Some(since));
        }
    }
}

/// Hears what is still to be said of statements that were given up, and undoes the transaction.
async fn settle(connection: &mut PgConnection, access: Access, state: State) -> Result<(), sqlx::Error> {
    match state {
        State::AtRest => return Ok(()),
        State::Open => return connection.execute("ROLLBACK").await.map(drop),
        State::Busy | State::Broken => {}
    }
    while let Err(error) = connection.ping().await {
        if breaks_connection(&error) {
            return Err(error);
        }
        // Of the statement that was given up: nobody is left to be told.
    }
    match access {
        Access::Read | Access::Write => connection.execute("ROLLBACK").await.map(drop),
        Access::ReadOne => Ok(()),
    }
}

fn discard(server: &Server, connection: PoolConnection<Postgres>) {
    server.meters.connections_dropped.inc();
    drop(connection.detach());
}
