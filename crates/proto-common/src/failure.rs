//! One failure, and the one place where it becomes a `tonic::Status` with `google.rpc` details.
//!
//! A service maps its own errors to a [`Failure`] in its `error.rs`; nothing else in Souk builds a `Status` by hand.

use std::collections::HashMap;
use std::fmt::Display;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, PreconditionViolation, QuotaViolation, StatusExt};

use crate::google_rpc;
use crate::v1::Reason;

/// `google.rpc.ErrorInfo.domain` of every error.
pub const DOMAIN: &str = "souk.dev";
/// At most this many violations are named in one error; the rest are counted in the metadata as `violations_omitted`.
pub const VIOLATIONS_MAX: usize = 20;
/// And so many bytes of them: the details travel in a header, whose size clients bound (often to 8 KiB, in base64).
const VIOLATIONS_BYTES_MAX: usize = 3 * 1_024;
/// A text that came from the caller is cut to this many characters before it goes into an error.
const ECHO_CHARS_MAX: usize = 100;

/// Why a call failed, ready to be told to the caller. Holds nothing of SQL, paths or stacks.
#[derive(Clone, Debug)]
pub struct Failure {
    code: Code,
    reason: Reason,
    message: String,
    metadata: HashMap<String, String>,
    /// Boxed, as a result that may be a failure is passed through every layer.
    details: Box<ErrorDetails>,
}

impl Failure {
    /// `message` is for people: lowercase, what failed.
    pub fn new(code: Code, reason: Reason, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), metadata: HashMap::new(), details: Box::default() }
    }

    /// INTERNAL: a bug of ours. `call_id` is what the log has it under.
    pub fn internal(call_id: impl Into<String>) -> Self {
        let mut failure = Self::new(Code::Internal, Reason::Internal, "internal error");
        failure.details.set_request_info(call_id, "");
        failure
    }

    /// NOT_FOUND with `ResourceInfo`: `not_found(Reason::OrderNotFound, "souk.order.v1.Order", id)`.
    pub fn not_found(reason: Reason, resource_type: &str, name: impl AsRef<str>) -> Self {
        Self::new(Code::NotFound, reason, format!("{} not found", short(resource_type)))
            .resource(resource_type, name.as_ref())
    }

    /// ALREADY_EXISTS with `ResourceInfo`.
    pub fn already_exists(reason: Reason, resource_type: &str, name: impl AsRef<str>) -> Self {
        Self::new(Code::AlreadyExists, reason, format!("{} exists already", short(resource_type)))
            .resource(resource_type, name.as_ref())
    }

    /// UNAVAILABLE with `RetryInfo`.
    pub fn unavailable(reason: Reason, message: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(Code::Unavailable, reason, message).retry_after(retry_after)
    }

    /// Adds a pair to `ErrorInfo.metadata`.
    #[must_use]
    pub fn metadata(mut self, key: &str, value: impl Display) -> Self {
        self.metadata.insert(key.to_owned(), echo(&format!("{value}")));
        self
    }

    /// Adds `RetryInfo`.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.details.set_retry_info(Some(delay));
        self
    }

    /// Adds `ResourceInfo`.
    #[must_use]
    pub fn resource(mut self, resource_type: &str, name: &str) -> Self {
        self.details.set_resource_info(resource_type, echo(name), "", "");
        self
    }

    /// Adds `BadRequest` violations, the first [`VIOLATIONS_MAX`] of them.
    #[must_use]
    pub fn field_violations(mut self, violations: impl IntoIterator<Item = FieldViolation>) -> Self {
        let kept = self.first(violations.into_iter().collect(), |violation: &FieldViolation| {
            violation.field.len() + violation.description.len() + violation.reason.len()
        });
        self.details.set_bad_request(kept);
        self
    }

    /// Adds `PreconditionFailure` violations, the first [`VIOLATIONS_MAX`] of them.
    #[must_use]
    pub fn precondition_violations(mut self, violations: impl IntoIterator<Item = PreconditionViolation>) -> Self {
        let kept = self.first(violations.into_iter().collect(), |violation: &PreconditionViolation| {
            violation.r#type.len() + violation.subject.len() + violation.description.len()
        });
        self.details.set_precondition_failure(kept);
        self
    }

    /// Adds a `QuotaFailure` violation.
    #[must_use]
    pub fn quota_violation(mut self, subject: impl Into<String>, description: impl Into<String>) -> Self {
        self.details.set_quota_failure(vec![QuotaViolation::new(subject, description)]);
        self
    }

    /// The status code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The reason.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    fn first<T>(&mut self, mut violations: Vec<T>, bytes: impl Fn(&T) -> usize) -> Vec<T> {
        let mut left = VIOLATIONS_BYTES_MAX;
        let fits = |violation: &&T| {
            let rest = left.checked_sub(bytes(violation));
            left = rest.unwrap_or(0);
            rest.is_some()
        };
        let kept = violations.iter().take(VIOLATIONS_MAX).take_while(fits).count().max(1);
        if violations.len() > kept {
            self.metadata.insert("violations_omitted".to_owned(), (violations.len() - kept).to_string());
            violations.truncate(kept);
        }
        violations
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let Failure { code, reason, message, metadata, mut details } = failure;
        details.set_error_info(reason.wire_name(), DOMAIN, metadata);
        Self::with_error_details(code, message, *details)
    }
}

/// A status as a field of a message: the outcome of one row of a stream.
impl From<&Status> for google_rpc::Status {
    fn from(status: &Status) -> Self {
        let with_details = <Self as prost::Message>::decode(status.details()).ok();
        // A status without details has no bytes, which are a message of code 0.
        with_details.filter(|decoded| decoded.code != 0).unwrap_or_else(|| Self {
            code: status.code().into(),
            message: status.message().to_owned(),
            details: Vec::new(),
        })
    }
}

/// The status that stood in a message, as its RPC of its own would have sent it.
impl From<google_rpc::Status> for Status {
    fn from(told: google_rpc::Status) -> Self {
        let details = prost::Message::encode_to_vec(&told);
        Self::with_details(Code::from(told.code), told.message, details.into())
    }
}

/// The reason that a status of a Souk server carries, if it carries one that we know.
pub fn reason_of(status: &Status) -> Option<Reason> {
    let info = status.get_details_error_info()?;
    if info.domain != DOMAIN {
        return None;
    }
    Reason::from_str_name(&format!("REASON_{}", info.reason))
}

impl Reason {
    /// The text of `ErrorInfo.reason`: `INSUFFICIENT_STOCK`.
    pub fn wire_name(self) -> &'static str {
        let name = self.as_str_name();
        name.strip_prefix("REASON_").unwrap_or(name)
    }
}

/// A caller's text, cut and without control characters, fit to stand in an error.
pub fn echo(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(ECHO_CHARS_MAX).collect()
}

/// `souk.order.v1.Order` -> `order`
fn short(resource_type: &str) -> String {
    resource_type.rsplit('.').next().unwrap_or(resource_type).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_carries_its_reason_and_domain() {
        let status = Status::from(Failure::not_found(Reason::OrderNotFound, "souk.order.v1.Order", "42"));
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(status.message(), "order not found");
        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("ORDER_NOT_FOUND", "souk.dev"));
        assert_eq!(reason_of(&status), Some(Reason::OrderNotFound));
        assert_eq!(status.get_details_resource_info().unwrap().resource_name, "42");
    }

    #[test]
    fn violations_past_the_limit_are_counted_not_sent() {
        let violations = (0..50).map(|i| FieldViolation::new(format!("lines[{i}]"), "bad"));
        let failure =
            Failure::new(Code::InvalidArgument, Reason::InvalidRequest, "bad request").field_violations(violations);
        let status = Status::from(failure);
        assert_eq!(status.get_details_bad_request().unwrap().field_violations.len(), VIOLATIONS_MAX);
        assert_eq!(status.get_details_error_info().unwrap().metadata["violations_omitted"], "30");
    }

    #[test]
    fn an_error_fits_into_a_header() {
        let violations = (0..20).map(|i| FieldViolation::new(format!("attributes[{i}{}]", "ж".repeat(100)), "bad"));
        let failure =
            Failure::new(Code::InvalidArgument, Reason::InvalidRequest, "bad request").field_violations(violations);
        let status = Status::from(failure);
        assert!(status.details().len() <= 4 * 1_024, "{}", status.details().len());
        let named = status.get_details_bad_request().unwrap().field_violations.len();
        let omitted = &status.get_details_error_info().unwrap().metadata["violations_omitted"];
        assert_eq!(named + omitted.parse::<usize>().unwrap(), 20);
    }

    #[test]
    fn a_callers_text_is_cut_and_cleaned() {
        let name = format!("a\u{0}\n{}", "x".repeat(500));
        let echoed = echo(&name);
        assert_eq!(echoed.chars().count(), ECHO_CHARS_MAX);
        assert!(!echoed.contains('\n'));
    }
}
