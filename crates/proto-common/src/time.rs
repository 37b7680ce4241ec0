//! Times on the wire: `google.protobuf.Timestamp` and `chrono`, cut to microseconds as the databases keep them.

use chrono::{DateTime, Utc};
use pbjson_types::Timestamp;

use crate::v1::Reason;
use crate::validation::FieldError;

/// As the wire has it.
pub fn timestamp(time: DateTime<Utc>) -> Timestamp {
    let nanos = i32::try_from(time.timestamp_subsec_micros() * 1_000).unwrap_or(0);
    Timestamp { seconds: time.timestamp(), nanos }
}

/// A time that a client sent: year 1 to 9999, as protobuf has it.
pub fn parse(timestamp: &Timestamp) -> Result<DateTime<Utc>, FieldError> {
    const YEAR_1: i64 = -62_135_596_800;
    const YEAR_10000: i64 = 253_402_300_800;
    let invalid = || FieldError::new(Reason::InvalidFormat, "must be a time from year 1 to 9999, nanos 0 to 999999999");
    let nanos = u32::try_from(timestamp.nanos).ok().filter(|nanos| *nanos < 1_000_000_000).ok_or_else(invalid)?;
    if !(YEAR_1..YEAR_10000).contains(&timestamp.seconds) {
        return Err(invalid());
    }
    DateTime::from_timestamp(timestamp.seconds, nanos / 1_000 * 1_000).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_cut_to_microseconds_and_bounded() {
        let parsed = parse(&Timestamp { seconds: 5, nanos: 123_456_789 }).unwrap();
        assert_eq!(timestamp(parsed), Timestamp { seconds: 5, nanos: 123_456_000 });
        for (seconds, nanos) in [(i64::MAX, 0), (i64::MIN, 0), (0, -1), (0, 1_000_000_000)] {
            assert!(parse(&Timestamp { seconds, nanos }).is_err());
        }
    }
}
