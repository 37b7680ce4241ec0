//! What the spans of both sides of a call say, by OpenTelemetry's conventions for RPC.
//!
//! <https://opentelemetry.io/docs/specs/semconv/rpc/grpc/>

use tonic::Code;
use tracing::Span;

use crate::server::code_name;

/// The name of the span of a call to `path`: without the slash that it begins with.
pub(crate) fn name(path: &'static str) -> &'static str {
    if path.is_empty() { "unknown" } else { path.trim_start_matches('/') }
}

/// Notes how a call ended.
pub(crate) fn end(span: &Span, code: Code, is_error: bool) {
    span.record("rpc.grpc.status_code", code as i64);
    if code != Code::Ok {
        span.record("error.type", code_name(code));
    }
    if is_error {
        span.record("otel.status_code", "ERROR");
    }
}

/// Of a server's answers these tell of a fault in it; the others are what the caller has asked for.
pub(crate) fn is_servers_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}
