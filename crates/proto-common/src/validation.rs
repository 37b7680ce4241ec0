//! Parsing is validation: a request becomes a command, or an error that names every bad field.
//!
//! ```
//! use souk_proto_common::{Check, validation};
//! # struct Request { sku: String, quantity: i64 }
//! # struct Command { sku: String, quantity: i64 }
//! # let request = Request { sku: "TEA".into(), quantity: 1 };
//! let mut check = Check::new();
//! let sku = check.field("sku", validation::text(&request.sku, 1..=64));
//! let quantity = check.field("quantity", validation::within(request.quantity, 1..=1_000_000));
//! let command = check.finish(|| Some(Command { sku: sku?, quantity: quantity? }));
//! assert!(command.is_ok());
//! ```

use std::fmt::Display;
use std::ops::RangeInclusive;

use tonic::{Code, Status};
use tonic_types::FieldViolation;
use uuid::Uuid;

use crate::Failure;
use crate::failure::echo;
use crate::v1::Reason;

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// REQUIRED, INVALID_FORMAT, …
    pub reason: Reason,
    /// For people: what it must be.
    pub message: String,
}

impl FieldError {
    /// `message` says what the field must be: `"must be 1 to 64 characters"`.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// The field is missing.
    pub fn required() -> Self {
        Self::new(Reason::Required, "must be set")
    }
}

/// INVALID_ARGUMENT: every bad field, in the order of the checks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} invalid field(s)", violations.len())]
pub struct InvalidRequest {
    violations: Vec<(String, FieldError)>,
}

impl InvalidRequest {
    /// One bad field.
    pub fn one(field: impl Into<String>, error: FieldError) -> Self {
        Self { violations: vec![(field.into(), error)] }
    }

    /// The bad fields with their paths: `lines[2].quantity`.
    pub fn violations(&self) -> &[(String, FieldError)] {
        &self.violations
    }
}

impl From<InvalidRequest> for Failure {
    fn from(invalid: InvalidRequest) -> Self {
        let named: Vec<&str> = invalid.violations.iter().take(3).map(|(field, _)| field.as_str()).collect();
        let more = if invalid.violations.len() > named.len() { ", …" } else { "" };
        let message = match invalid.violations.as_slice() {
            [(field, error)] if field.is_empty() => format!("invalid request: the message {}", error.message),
            _ => format!("invalid request: {}{more}", named.join(", ")),
        };
        let violations = invalid.violations.into_iter().map(|(field, error)| {
            let mut violation = FieldViolation::new(field, error.message);
            error.reason.wire_name().clone_into(&mut violation.reason);
            violation
        });
        Self::new(Code::InvalidArgument, Reason::InvalidRequest, message).field_violations(violations)
    }
}

impl From<InvalidRequest> for Status {
    fn from(invalid: InvalidRequest) -> Self {
        Failure::from(invalid).into()
    }
}

/// Gathers the bad fields of one request.
#[derive(Debug, Default)]
pub struct Check {
    prefix: String,
    violations: Vec<(String, FieldError)>,
}

impl Check {
    /// Nothing is wrong yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The parsed value; or `None`, and the field is noted as bad.
    pub fn field<T>(&mut self, name: &str, parsed: Result<T, FieldError>) -> Option<T> {
        match parsed {
            Ok(value) => Some(value),
            Err(error) => {
                self.bad(name, error);
                None
            }
        }
    }

    /// Notes `name` as bad.
    pub fn bad(&mut self, name: &str, error: FieldError) {
        self.violations.push((format!("{}{name}", self.prefix), error));
    }

    /// Checks the fields of a message inside: `check.inside("address", |check| …)` names `address.city`.
    pub fn inside<T>(&mut self, name: &str, parse: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let length = self.prefix.len();
        self.prefix.push_str(name);
        self.prefix.push('.');
        let parsed = parse(self);
        self.prefix.truncate(length);
        parsed
    }

    /// Checks every entry of a list of `1..=max` entries, naming `lines[3].sku`. Entries past `max` are not looked at.
    pub fn list<I, T>(
        &mut self,
        name: &str,
        entries: &[I],
        max: usize,
        mut parse: impl FnMut(&mut Self, &I) -> Option<T>,
    ) -> Option<Vec<T>> {
        if entries.is_empty() {
            self.bad(name, FieldError::required());
            return None;
        }
        if entries.len() > max {
            self.bad(name, FieldError::new(Reason::TooMany, format!("must have at most {max} entries")));
            return None;
        }
        let parsed: Vec<Option<T>> = entries
            .iter()
            .enumerate()
            .map(|(index, entry)| self.inside(&format!("{name}[{index}]"), |check| parse(check, entry)))
            .collect();
        parsed.into_iter().collect()
    }

    /// Checks `update_mask`: each path once, and one that may be changed.
    pub fn mask(&mut self, paths: &[String], mutable: &[&str], immutable: &[&str]) {
        if paths.is_empty() {
            self.bad("update_mask", FieldError::required());
        }
        if paths.len() > mutable.len() + immutable.len() {
            self.bad("update_mask", FieldError::new(Reason::TooMany, "must name each field once"));
            return;
        }
        for (index, path) in paths.iter().enumerate() {
            let wrong = if immutable.contains(&path.as_str()) {
                FieldError::new(Reason::Immutable, format!("{path} cannot be changed"))
            } else if !mutable.contains(&path.as_str()) {
                let known = mutable.join(", ");
                FieldError::new(Reason::UnknownFieldPath, format!("{} is not one of {known}", echo(path)))
            } else if paths[..index].contains(path) {
                FieldError::new(Reason::Duplicate, format!("{path} is named twice"))
            } else {
                continue;
            };
            self.bad(&format!("update_mask.paths[{index}]"), wrong);
        }
    }

    /// The command, if nothing was bad. `build` may return `None` only where a field was noted as bad.
    pub fn finish<T>(self, build: impl FnOnce() -> Option<T>) -> Result<T, InvalidRequest> {
        if self.violations.is_empty()
            && let Some(command) = build()
        {
            return Ok(command);
        }
        Err(InvalidRequest { violations: self.violations })
    }
}

/// A text of so many characters (not bytes), without control characters. Surrounding white space is refused, not cut.
pub fn text(value: &str, chars: RangeInclusive<usize>) -> Result<String, FieldError> {
    if value.is_empty() && *chars.start() > 0 {
        return Err(FieldError::required());
    }
    let length = value.chars().count();
    if length > *chars.end() {
        return Err(FieldError::new(Reason::TooLong, format!("must be at most {} characters", chars.end())));
    }
    if length < *chars.start() {
        return Err(FieldError::new(Reason::OutOfBounds, format!("must be at least {} characters", chars.start())));
    }
    if value.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        return Err(FieldError::new(Reason::InvalidFormat, "must not contain control characters"));
    }
    if value.trim() != value {
        return Err(FieldError::new(Reason::InvalidFormat, "must not begin or end with white space"));
    }
    Ok(value.to_owned())
}

/// A number within bounds.
pub fn within<N: PartialOrd + Copy + Display>(value: N, bounds: RangeInclusive<N>) -> Result<N, FieldError> {
    if bounds.contains(&value) {
        return Ok(value);
    }
    let message = format!("must be {} to {}", bounds.start(), bounds.end());
    Err(FieldError::new(Reason::OutOfBounds, message))
}

/// A UUID in its usual 36 characters.
pub fn uuid(value: &str) -> Result<Uuid, FieldError> {
    if value.is_empty() {
        return Err(FieldError::required());
    }
    let parsed = Uuid::try_parse(value).ok().filter(|id| value.len() == 36 && !id.is_nil());
    parsed.ok_or_else(|| {
        FieldError::new(Reason::InvalidFormat, "must be a UUID, as 01890a5d-ac96-774b-bcce-b302099a8057")
    })
}

/// A message that must be set.
pub fn required<T>(value: Option<T>) -> Result<T, FieldError> {
    value.ok_or_else(FieldError::required)
}

/// An enum that must be set to a value that this server knows.
pub fn known_enum<E: TryFrom<i32> + Default + PartialEq>(value: i32) -> Result<E, FieldError> {
    let invalid = || FieldError::new(Reason::InvalidEnum, "must be one of the named values");
    let parsed = E::try_from(value).map_err(|_| invalid())?;
    if parsed == E::default() { Err(invalid()) } else { Ok(parsed) }
}

/// `page_size`: 0 means 50, more than 1000 means 1000, below 0 is refused.
pub fn page_size(value: i32) -> Result<i64, FieldError> {
    match value {
        i32::MIN..=-1 => Err(FieldError::new(Reason::OutOfBounds, "must be 0 or more")),
        0 => Ok(50),
        _ => Ok(i64::from(value.min(1000))),
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt;

    use super::*;

    #[test]
    fn every_bad_field_is_named_with_its_path() {
        let mut check = Check::new();
        let name = check.field("name", text("", 1..=10));
        let lines = check
            .list("lines", &[1_i64, -5, 7, 0], 10, |check, quantity| check.field("quantity", within(*quantity, 1..=9)));
        let invalid = check.finish(|| Some((name?, lines?))).unwrap_err();
        let named: Vec<(&str, Reason)> = invalid.violations().iter().map(|(f, e)| (f.as_str(), e.reason)).collect();
        assert_eq!(
            named,
            [
                ("name", Reason::Required),
                ("lines[1].quantity", Reason::OutOfBounds),
                ("lines[3].quantity", Reason::OutOfBounds)
            ]
        );
    }

    #[test]
    fn a_mask_names_fields_that_can_be_changed_each_once() {
        let wrong = |paths: &[&str]| -> Vec<(String, Reason)> {
            let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
            let mut check = Check::new();
            check.mask(&paths, &["name", "price"], &["sku"]);
            let checked = check.finish(|| Some(()));
            let violations = checked.err().map(|invalid| invalid.violations().to_vec()).unwrap_or_default();
            violations.into_iter().map(|(field, error)| (field, error.reason)).collect()
        };
        assert_eq!(wrong(&["name", "price"]), []);
        assert_eq!(wrong(&[]), [("update_mask".to_owned(), Reason::Required)]);
        let expected = [(0, Reason::Immutable), (1, Reason::UnknownFieldPath)];
        assert_eq!(wrong(&["sku", "Name"]), expected.map(|(i, reason)| (format!("update_mask.paths[{i}]"), reason)));
        assert_eq!(wrong(&["name", "name"]), [("update_mask.paths[1]".to_owned(), Reason::Duplicate)]);
        assert_eq!(wrong(&["name"; 4]), [("update_mask".to_owned(), Reason::TooMany)]);
    }

    #[test]
    fn a_violation_goes_out_with_its_reason() {
        let status = Status::from(InvalidRequest::one("sku", FieldError::required()));
        let sent = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!((sent[0].field.as_str(), sent[0].reason.as_str()), ("sku", "REQUIRED"));
    }

    #[test]
    fn a_list_is_bounded_before_its_entries_are_read() {
        let mut check = Check::new();
        let parsed = check.list("lines", &vec![0_i64; 10_000], 100, |_, _| -> Option<()> { panic!("read an entry") });
        assert_eq!(parsed, None);
        let invalid = check.finish(|| None::<()>).unwrap_err();
        assert_eq!(invalid.violations()[0].1.reason, Reason::TooMany);
    }

    #[test]
    fn text_is_counted_in_characters_and_never_trimmed() {
        assert!(text("äöü", 1..=3).is_ok());
        assert_eq!(text("abcd", 1..=3).unwrap_err().reason, Reason::TooLong);
        assert_eq!(text(" a", 1..=3).unwrap_err().reason, Reason::InvalidFormat);
        assert_eq!(text("a\u{0}", 1..=3).unwrap_err().reason, Reason::InvalidFormat);
        assert_eq!(text("", 0..=3).unwrap(), "");
    }

    #[test]
    fn a_uuid_is_taken_in_one_form_only() {
        assert!(uuid("01890a5d-ac96-774b-bcce-b302099a8057").is_ok());
        for bad in [
            "01890a5dac96774bbcceb302099a8057",
            "{01890a5d-ac96-774b-bcce-b302099a8057}",
            "x",
            "00000000-0000-0000-0000-000000000000",
        ] {
            assert_eq!(uuid(bad).unwrap_err().reason, Reason::InvalidFormat, "{bad}");
        }
    }
}
