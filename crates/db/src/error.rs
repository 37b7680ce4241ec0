//! What can go wrong with a database, by what a caller can do about it.

use std::io;
use std::sync::Arc;

use sqlx::error::ErrorKind as SqlxKind;
use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// A failure of the database. Cheap to clone, so that one can be told to a whole batch.
///
/// `Display` says the kind only: nothing of SQL, names or values. The cause is the `source`, for the log.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{kind}")]
pub struct Error {
    kind: Kind,
    #[source]
    source: Arc<sqlx::Error>,
}

/// What a caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Kind {
    /// It does not answer, or takes no writes: try again later. Whether a commit took effect is not known.
    #[error("database unavailable")]
    Unavailable,
    /// A concurrent transaction was in the way and this one was rolled back: try again at once.
    #[error("serialization conflict")]
    Conflict,
    /// A row stayed locked by another transaction for longer than `lock_timeout_ms`.
    #[error("lock timed out")]
    Locked,
    /// A statement took longer than `statement_timeout_ms`.
    #[error("statement timed out")]
    Timeout,
    /// The deadline of the call passed before anything was committed. That says nothing of the database.
    #[error("deadline passed")]
    Deadline,
    /// A constraint, a type, the statement itself: ours to mend.
    #[error("database error")]
    Bug,
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn config(message: impl Into<String>) -> Self {
        sqlx::Error::Configuration(message.into().into()).into()
    }

    /// There is no connection, for whatever reason: even a password that is refused may be accepted again.
    pub(crate) fn no_connection(source: sqlx::Error) -> Self {
        Self { kind: Kind::Unavailable, source: Arc::new(source) }
    }

    /// No connection has answered for a while: nothing was sent.
    pub(crate) fn down() -> Self {
        Self::no_connection(io::Error::new(io::ErrorKind::NotConnected, "the database is down").into())
    }

    /// It was asked and did not answer.
    pub fn unanswered(message: &'static str) -> Self {
        Self::no_connection(io::Error::new(io::ErrorKind::TimedOut, message).into())
    }

    /// The connection was cut, by whatever the server or the network said last.
    pub(crate) fn cut(source: sqlx::Error) -> Self {
        let kind = match kind_of(&source) {
            Kind::Bug => Kind::Unavailable,
            kind => kind,
        };
        Self { kind, source: Arc::new(source) }
    }

    /// The deadline of the call has passed.
    pub(crate) fn too_late() -> Self {
        let source = io::Error::new(io::ErrorKind::TimedOut, "the call's deadline has passed").into();
        Self { kind: Kind::Deadline, source: Arc::new(source) }
    }

    /// A write was refused since the server takes none (any more): a standby, or it was told so.
    pub(crate) fn read_only(source: sqlx::Error) -> Self {
        Self { kind: Kind::Unavailable, source: Arc::new(source) }
    }

    /// A concurrent transaction was in the way, as the rows say though no engine did: a key was taken, a version has moved on. The
    /// transaction must be rolled back and can be tried again at once.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self { kind: Kind::Conflict, source: Arc::new(sqlx::Error::Protocol(message.into())) }
    }

    /// Whoever would have committed is gone; whether they did is not known.
    pub(crate) fn worker_ended() -> Self {
        sqlx::Error::WorkerCrashed.into()
    }

    /// A failure that no engine raised: a panic in the middle of a batch, a row that is not what it must be.
    pub fn bug(message: impl Into<String>) -> Self {
        sqlx::Error::Protocol(message.into()).into()
    }
}

impl From<sqlx::Error> for Error {
    fn from(source: sqlx::Error) -> Self {
        Self { kind: kind_of(&source), source: Arc::new(source) }
    }
}

impl From<MigrateError> for Error {
    fn from(source: MigrateError) -> Self {
        let kind = match &source {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => kind_of(error),
            _ => Kind::Bug,
        };
        Self { kind, source: Arc::new(sqlx::Error::Migrate(Box::new(source))) }
    }
}

fn kind_of(error: &sqlx::Error) -> Kind {
    match error {
        sqlx::Error::Database(error) => match error.kind() {
            SqlxKind::Other => error.code().map_or(Kind::Bug, |code| kind_of_code(&code)),
            _ => Kind::Bug, // a constraint
        },
        // A connection that was cut says so in many ways.
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => Kind::Unavailable,
        _ => Kind::Bug,
    }
}

/// SQLSTATE of PostgreSQL (five characters), or a result code of SQLite (a number, whose low byte is the primary code).
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn kind_of_code(code: &str) -> Kind {
    match code {
        "40001" | "40P01" => Kind::Conflict,
        "55P03" => Kind::Locked,
        // A statement, or a transaction as a whole, idle or not.
        "57014" | "25P03" | "25P04" => Kind::Timeout,
        // Whether a statement took effect is not known; there is no such database (yet).
        "40003" | "3D000" => Kind::Unavailable,
        // The connection, who we are, what the server has left, what it was told, what lies below it.
        _ if code.len() == 5 => match &code[..2] {
            "08" | "28" | "53" | "57" | "58" => Kind::Unavailable,
            _ => Kind::Bug,
        },
        _ => match code.parse::<i32>().map(|code| code & 0xff) {
            Ok(5 | 6) => Kind::Locked,                     // BUSY, LOCKED
            Ok(7 | 9 | 10 | 13 | 14) => Kind::Unavailable, // NOMEM, INTERRUPT, IOERR, FULL, CANTOPEN
            _ => Kind::Bug,
        },
    }
}

/// PostgreSQL refuses a write in a transaction that only reads: a standby, if the transaction was to write.
const READ_ONLY: &str = "25006";

/// Whether a write was refused because nothing may be written.
pub(crate) fn is_read_only(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == READ_ONLY)
}

/// Whether the connection that the error came from is of no use any more.
pub(crate) fn breaks_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error
            .try_downcast_ref::<PgDatabaseError>()
            .is_some_and(|error| matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic)),
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_says_what_a_caller_can_do() {
        let table = [
            ("40001", Kind::Conflict),
            ("40P01", Kind::Conflict),
            ("55P03", Kind::Locked),
            ("57014", Kind::Timeout),
            ("57P01", Kind::Unavailable),
            ("08006", Kind::Unavailable),
            ("53300", Kind::Unavailable),
            ("57P02", Kind::Unavailable),
            ("57P03", Kind::Unavailable),
            ("57014", Kind::Timeout),
            ("25P03", Kind::Timeout),
            ("28P01", Kind::Unavailable),
            ("3D000", Kind::Unavailable),
            ("25006", Kind::Bug), // in a transaction that was to read
            ("42601", Kind::Bug),
            // What would be a code of SQLite too: no rights, a NUL in a text, a parameter that cannot be.
            ("42501", Kind::Bug),
            ("22021", Kind::Bug),
            ("22023", Kind::Bug),
            ("5", Kind::Locked),
            ("517", Kind::Locked), // BUSY_SNAPSHOT
            ("13", Kind::Unavailable),
            ("1", Kind::Bug),
        ];
        for (code, kind) in table {
            assert_eq!(kind_of_code(code), kind, "{code}");
        }
    }
}
