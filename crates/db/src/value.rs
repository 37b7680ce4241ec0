//! A value on its way into a statement.

use chrono::{DateTime, SubsecRound, Utc};
use sqlx::Arguments;
use sqlx::postgres::PgArguments;
use sqlx::sqlite::SqliteArguments;
use uuid::Uuid;

/// What a column of Souk can hold. `None` is NULL, and still has its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `BIGINT`
    Integer(Option<i64>),
    /// `BOOLEAN`
    Boolean(Option<bool>),
    /// `TEXT`
    Text(Option<String>),
    /// `UUID` or `BLOB`
    Uuid(Option<Uuid>),
    /// `TIMESTAMPTZ` or `TEXT`, cut to microseconds
    Time(Option<DateTime<Utc>>),
    /// `BYTEA` or `BLOB`
    Bytes(Option<Vec<u8>>),
}

impl Value {
    pub(crate) fn add_to_sqlite(self, arguments: &mut SqliteArguments) -> Result<(), sqlx::Error> {
        match self {
            Self::Integer(value) => arguments.add(value),
            Self::Boolean(value) => arguments.add(value),
            Self::Text(value) => arguments.add(value),
            Self::Uuid(value) => arguments.add(value),
            Self::Time(value) => arguments.add(value.map(|time| time.trunc_subsecs(6))),
            Self::Bytes(value) => arguments.add(value),
        }
        .map_err(sqlx::Error::Encode)
    }

    pub(crate) fn add_to_postgres(self, arguments: &mut PgArguments) -> Result<(), sqlx::Error> {
        match self {
            Self::Integer(value) => arguments.add(value),
            Self::Boolean(value) => arguments.add(value),
            Self::Text(value) => arguments.add(value),
            Self::Uuid(value) => arguments.add(value),
            Self::Time(value) => arguments.add(value.map(|time| time.trunc_subsecs(6))),
            Self::Bytes(value) => arguments.add(value),
        }
        .map_err(sqlx::Error::Encode)
    }
}

/// Adds an array: the values of one column, which are all of one kind.
pub(crate) fn add_column_to_postgres(column: Vec<Value>, arguments: &mut PgArguments) -> Result<(), sqlx::Error> {
    macro_rules! add {
        ($variant:ident, $value:ident => $into:expr) => {{
            let of_kind = |value| match value {
                Value::$variant($value) => Some($into),
                _ => None,
            };
            let array: Option<Vec<_>> = column.into_iter().map(of_kind).collect();
            arguments.add(array.ok_or_else(|| sqlx::Error::Encode("a column has values of two kinds".into()))?)
        }};
    }
    match column.first() {
        None => Err("a column without values has no kind".into()),
        Some(Value::Integer(_)) => add!(Integer, value => value),
        Some(Value::Boolean(_)) => add!(Boolean, value => value),
        Some(Value::Text(_)) => add!(Text, value => value),
        Some(Value::Uuid(_)) => add!(Uuid, value => value),
        Some(Value::Time(_)) => add!(Time, value => value.map(|time| time.trunc_subsecs(6))),
        Some(Value::Bytes(_)) => add!(Bytes, value => value),
    }
    .map_err(sqlx::Error::Encode)
}

macro_rules! from {
    ($($from:ty => $variant:ident($value:ident) $into:expr;)*) => {$(
        impl From<$from> for Value {
            fn from($value: $from) -> Self {
                Self::$variant(Some($into))
            }
        }
        impl From<Option<$from>> for Value {
            fn from(value: Option<$from>) -> Self {
                Self::$variant(value.map(|$value| $into))
            }
        }
    )*};
}

from! {
    i64 => Integer(value) value;
    i32 => Integer(value) i64::from(value);
    u32 => Integer(value) i64::from(value);
    bool => Boolean(value) value;
    String => Text(value) value;
    &String => Text(value) value.clone();
    &str => Text(value) value.to_owned();
    Uuid => Uuid(value) value;
    DateTime<Utc> => Time(value) value;
    Vec<u8> => Bytes(value) value;
    &[u8] => Bytes(value) value.to_vec();
    [u8; 32] => Bytes(value) value.to_vec();
}
