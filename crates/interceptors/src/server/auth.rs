//! Who calls: the bearer token, verified. Where an RPC needs none, a bad one makes the caller anonymous, so that a client that always sends
//! its token can still refresh it.

use std::time::Duration;

use http::{HeaderMap, Request, Response, header};
use souk_proto_common::{Access, Failure, Reason};
use tonic::Code;
use tonic::body::Body;

use super::{amend, context};
use crate::caller::Caller;
use crate::context::{self, Target};
use crate::middleware::{Middleware, Next};
use crate::token::{Refused, Verifier};

#[derive(Clone)]
pub(super) struct Auth {
    verifier: Verifier,
}

impl Auth {
    pub(super) fn new(verifier: Verifier) -> Self {
        Self { verifier }
    }

    async fn caller(&self, headers: &HeaderMap, target: Target) -> Result<Caller, Failure> {
        let needed = match target {
            Target::Known(method) => method.access != Access::Public,
            Target::Infrastructure(_) => return Ok(Caller::anonymous()),
            Target::Unknown => false,
        };
        let refused = |reason, message| Err(Failure::new(Code::Unauthenticated, reason, message));
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            let message = "this call needs an access token: authorization: Bearer <token>";
            return if needed { refused(Reason::TokenMissing, message) } else { Ok(Caller::anonymous()) };
        };
        let verified = match bearer(value.to_str().unwrap_or_default()) {
            Some(token) if values.next().is_none() => self.verifier.verify(token).await,
            // Two are one too many: whoever stands between may have looked at the other.
            _ => Err(Refused::Invalid),
        };
        match verified {
            Ok(caller) => Ok(caller),
            Err(_) if !needed => Ok(Caller::anonymous()),
            Err(Refused::Invalid) => refused(Reason::TokenInvalid, "the access token is not valid"),
            Err(Refused::Expired) => refused(Reason::TokenExpired, "the access token has expired: refresh it"),
            Err(Refused::Unverifiable) => {
                let message = "access tokens cannot be verified at the moment";
                Err(Failure::unavailable(Reason::PeerUnavailable, message, Duration::from_secs(1)))
            }
        }
    }
}

/// The scheme is case-insensitive (RFC 9110).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl<S: Next<Error = Failure>> Middleware<S> for Auth {
    async fn call(&self, request: &mut Request<Body>, next: &S) -> Result<Response<Body>, Failure> {
        let caller = self.caller(request.headers(), context(request).target).await?;
        // The token has done its work: nothing below can log it or send it on.
        request.headers_mut().remove(header::AUTHORIZATION);
        amend(request, |context| context.caller = caller.clone());
        request.extensions_mut().insert(caller);
        // From here on, whatever the call does knows for whom and until when.
        let known = context(request).clone();
        context::scope(known, next.call(request)).await
    }
}
