//! What both sides of a call know of it: its method, and what its span says, by OpenTelemetry's conventions for RPC.
//!
//! <https://opentelemetry.io/docs/specs/semconv/rpc/grpc/>

use std::collections::HashMap;
use std::sync::Arc;

use souk_proto_common::Method;
use tonic::Code;
use tracing::Span;

use crate::server::code_name;

/// The methods that are known, by their path. Cheap to clone.
pub(crate) type Methods = Arc<HashMap<&'static str, &'static Method>>;

pub(crate) fn by_path(tables: &[&'static [Method]]) -> Methods {
    Arc::new(tables.iter().flat_map(|table| table.iter()).map(|method| (method.path, method)).collect())
}

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
