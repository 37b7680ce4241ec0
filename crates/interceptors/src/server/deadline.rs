//! Deadlines: the caller's (`grpc-timeout`), within bounds; a call that has reached its own is dropped, with everything that it does.

use std::time::Duration;

use http::{HeaderMap, Request, Response};
use prometheus_client::metrics::counter::Counter;
use souk_proto_common::{Failure, Reason};
use souk_runtime::Kernel;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::body::Body;

use super::{StackConfig, amend, body, context, panic};
use crate::context::Target;
use crate::middleware::{Middleware, Next};

#[derive(Clone)]
pub(super) struct Deadline {
    default: Duration,
    max: Duration,
    panics: Counter,
    shutdown: CancellationToken,
}

impl Deadline {
    pub(super) fn new(kernel: &Kernel, config: &StackConfig) -> Self {
        Self {
            default: Duration::from_millis(config.default_deadline_ms),
            max: Duration::from_millis(config.deadline_max_ms),
            panics: panic::counter(kernel),
            shutdown: kernel.tasks.shutdown().clone(),
        }
    }

    /// How long the call may take; a stream, as long as its caller likes.
    fn granted(&self, asked: Option<Duration>, streams: bool) -> Option<Duration> {
        if streams { asked } else { Some(asked.unwrap_or(self.default).min(self.max)) }
    }
}

/// So much before the caller's own deadline the call is given up, so that the caller still hears why: its own timer only tells it that
/// nothing came. Nobody but this layer ends a call in the server.
fn head_start(asked: Duration) -> Duration {
    (asked / 10).min(HEAD_START_MAX)
}

const HEAD_START_MAX: Duration = Duration::from_millis(10);

/// DEADLINE_EXCEEDED.
pub(super) fn exceeded(target: Target) -> Failure {
    let message = match target.method() {
        Some(method) if method.keyed => "the deadline passed; the outcome is unknown: repeat with the same request_id",
        Some(method) if !method.read_only => "the deadline passed; the outcome is unknown",
        _ => "the deadline passed",
    };
    Failure::new(Code::DeadlineExceeded, Reason::DeadlineExceeded, message)
}

impl<S: Next<Error = Failure>> Middleware<S> for Deadline {
    async fn call(&self, request: &mut Request<Body>, next: &S) -> Result<Response<Body>, Failure> {
        let target = context(request).target;
        let asked = asked(request.headers()).map(|asked| asked.saturating_sub(head_start(asked)));
        let granted = self.granted(asked, target.is_stream());
        // A deadline past the end of time is none.
        let deadline = granted.and_then(|granted| Instant::now().checked_add(granted));
        amend(request, |context| context.deadline = deadline);
        let known = context(request).clone();
        let call = next.call(request);
        let response = match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, call).await.map_err(|_| exceeded(target))??,
            None => call.await?,
        };
        // A watch of health never ends by itself, and nobody needs it to.
        let until = matches!(target, Target::Infrastructure(_)).then(|| self.shutdown.clone().cancelled_owned());
        Ok(body::guarded(response, known, self.panics.clone(), until))
    }
}

/// `grpc-timeout`: up to eight digits and a unit. One that is malformed is none.
fn asked(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3_600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn timeout(text: &'static str) -> Option<Duration> {
        asked(&[("grpc-timeout".parse().unwrap(), HeaderValue::from_static(text))].into_iter().collect())
    }

    #[test]
    fn a_timeout_is_digits_and_a_unit() {
        assert_eq!(timeout("50m"), Some(Duration::from_millis(50)));
        assert_eq!(timeout("99999999H"), Some(Duration::from_hours(99_999_999)));
        assert_eq!(timeout("1n"), Some(Duration::from_nanos(1)));
        for bad in ["", "m", "50", "50x", "-1m", "123456789m", "5 m", "+5m"] {
            assert_eq!(timeout(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_call_is_granted_a_bounded_time_and_a_stream_what_it_asks() {
        let (default, max) = (Duration::from_secs(10), Duration::from_mins(1));
        let deadline = Deadline { default, max, panics: Counter::default(), shutdown: CancellationToken::new() };
        let hour = Some(Duration::from_hours(1));
        assert_eq!(deadline.granted(None, false), Some(Duration::from_secs(10)));
        assert_eq!(deadline.granted(hour, false), Some(Duration::from_mins(1)));
        assert_eq!(deadline.granted(None, true), None);
        assert_eq!(deadline.granted(hour, true), hour);
    }
}
