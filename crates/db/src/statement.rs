//! A statement: its text and its values.

use std::borrow::Cow;

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, FromRow};

use crate::error::Error;
use crate::postgres::Session;
use crate::span;
use crate::transaction::{Inner, Tx};
use crate::value::{self, Value};

/// A row that both engines can fill: `#[derive(sqlx::FromRow)]`, or a tuple.
pub trait Row: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}

impl<R> Row for R where R: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}

/// A statement with its values.
#[derive(Clone, Debug)]
#[must_use = "a statement does nothing until it is executed or fetched"]
pub struct Statement {
    text: Cow<'static, str>,
    values: Vec<Value>,
    /// On PostgreSQL, and after the values: arrays.
    columns: Vec<Vec<Value>>,
}

/// Which of the rows.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    All,
    First,
}

/// A statement. Its text is ours, never a caller's: values are bound.
pub fn sql(text: impl Into<Cow<'static, str>>) -> Statement {
    Statement { text: text.into(), values: Vec::new(), columns: Vec::new() }
}

impl Statement {
    /// A statement of PostgreSQL's, each of whose values is an array.
    pub(crate) fn of_columns(text: String, columns: Vec<Vec<Value>>) -> Self {
        Self { text: text.into(), values: Vec::new(), columns }
    }

    /// The value of the next `$n`.
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Runs it; the number of rows that it touched.
    pub async fn execute(self, tx: &mut Tx) -> Result<u64, Error> {
        let span = span::statement(tx, &self.text);
        tx.ask()?;
        let asking = async {
            match &mut tx.inner {
                Inner::Sqlite(sqlite) => {
                    let (text, arguments) = self.for_sqlite()?;
                    let done = sqlx::query_with(AssertSqlSafe(text), arguments).execute(sqlite.connection()).await;
                    Ok(done?.rows_affected())
                }
                Inner::Postgres(session) => {
                    let (text, arguments) = self.for_postgres()?;
                    let query = sqlx::query_with(AssertSqlSafe(text), arguments).persistent(session.prepares());
                    let (connection, exchange) = session.parts();
                    Ok(exchange.watch(query.execute(connection)).await?.rows_affected())
                }
            }
        };
        let result = span::note(asking, span).await;
        tx.note(result)
    }

    /// Every row. Bounded by the statement's own LIMIT or key.
    pub async fn fetch_all<R: Row>(self, tx: &mut Tx) -> Result<Vec<R>, Error> {
        let span = span::statement(tx, &self.text);
        tx.ask()?;
        let asking = async {
            match &mut tx.inner {
                Inner::Sqlite(sqlite) => {
                    let (text, arguments) = self.for_sqlite()?;
                    Ok(sqlx::query_as_with(AssertSqlSafe(text), arguments).fetch_all(sqlite.connection()).await?)
                }
                Inner::Postgres(session) => {
                    let rows = Box::pin(self.fetch_from(session, Wanted::All)).await?;
                    Ok(rows.iter().map(R::from_row).collect::<Result<_, _>>()?)
                }
            }
        };
        let result = span::note(asking, span).await;
        tx.note(result)
    }

    /// The row, if there is one.
    pub async fn fetch_optional<R: Row>(self, tx: &mut Tx) -> Result<Option<R>, Error> {
        let span = span::statement(tx, &self.text);
        tx.ask()?;
        let asking = async {
            match &mut tx.inner {
                Inner::Sqlite(sqlite) => {
                    let (text, arguments) = self.for_sqlite()?;
                    Ok(sqlx::query_as_with(AssertSqlSafe(text), arguments).fetch_optional(sqlite.connection()).await?)
                }
                Inner::Postgres(session) => {
                    let rows = Box::pin(self.fetch_from(session, Wanted::First)).await?;
                    Ok(rows.first().map(R::from_row).transpose()?)
                }
            }
        };
        let result = span::note(asking, span).await;
        tx.note(result)
    }

    /// The one row; none is a bug.
    pub async fn fetch_one<R: Row>(self, tx: &mut Tx) -> Result<R, Error> {
        self.fetch_optional(tx).await?.ok_or_else(|| sqlx::Error::RowNotFound.into())
    }

    /// The rows, from PostgreSQL. Where a read of one statement finds its connection cut, it is asked again on another. For its size it is
    /// boxed, or whatever asks for rows would be that much larger.
    async fn fetch_from(mut self, session: &mut Session, wanted: Wanted) -> Result<Vec<PgRow>, Error> {
        loop {
            let again = session.reads_one().then(|| self.clone());
            let (text, arguments) = self.for_postgres()?;
            let query = sqlx::query_with(AssertSqlSafe(text), arguments).persistent(session.prepares());
            let (connection, exchange) = session.parts();
            let fetched = match wanted {
                Wanted::All => exchange.watch(query.fetch_all(connection)).await,
                Wanted::First => {
                    exchange.watch(query.fetch_optional(connection)).await.map(|row| row.into_iter().collect())
                }
            };
            match again {
                Some(again) if session.can_be_renewed() => {
                    session.renew().await?;
                    self = again;
                }
                _ => return fetched,
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn into_values(self) -> Vec<Value> {
        self.values
    }

    fn for_sqlite(self) -> Result<(Cow<'static, str>, SqliteArguments), Error> {
        let mut arguments = SqliteArguments::default();
        for value in self.values {
            value.add_to_sqlite(&mut arguments)?;
        }
        Ok((self.text, arguments))
    }

    fn for_postgres(self) -> Result<(Cow<'static, str>, PgArguments), Error> {
        let mut arguments = PgArguments::default();
        for value in self.values {
            value.add_to_postgres(&mut arguments)?;
        }
        for column in self.columns {
            value::add_column_to_postgres(column, &mut arguments)?;
        }
        Ok((self.text, arguments))
    }
}
