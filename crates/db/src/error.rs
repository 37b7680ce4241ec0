//! What can go wrong with a database, by what a caller can do about it.

use std::sync::Arc;

use sqlx::error::ErrorKind as SqlxKind;

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
    /// It does not answer: try again later. Whether a commit took effect is not known.
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
    /// A constraint, a type, the statement itself: ours to mend.
    #[error("database error")]
    Bug,
}

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn config(message: &'static str) -> Self {
        sqlx::Error::Configuration(message.into()).into()
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

impl From<sqlx::migrate::MigrateError> for Error {
    fn from(source: sqlx::migrate::MigrateError) -> Self {
        sqlx::Error::Migrate(Box::new(source)).into()
    }
}

fn kind_of(error: &sqlx::Error) -> Kind {
    match error {
        sqlx::Error::Database(error) => match error.kind() {
            SqlxKind::Other => error.code().map_or(Kind::Bug, |code| kind_of_code(&code)),
            _ => Kind::Bug, // a constraint
        },
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => Kind::Unavailable,
        _ => Kind::Bug,
    }
}

/// SQLSTATE of PostgreSQL (five characters), or a result code of SQLite (a number, whose low byte is the primary code).
fn kind_of_code(code: &str) -> Kind {
    match code {
        "40001" | "40P01" => Kind::Conflict,
        "55P03" => Kind::Locked,
        "57014" => Kind::Timeout,
        _ if code.len() == 5 && matches!(&code[..2], "08" | "53" | "57" | "58") => Kind::Unavailable,
        _ => match code.parse::<i32>().map(|code| code & 0xff) {
            Ok(5 | 6) => Kind::Locked,                     // BUSY, LOCKED
            Ok(7 | 9 | 10 | 13 | 14) => Kind::Unavailable, // NOMEM, INTERRUPT, IOERR, FULL, CANTOPEN
            _ => Kind::Bug,
        },
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
            ("42601", Kind::Bug),
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
