//! Whether the caller may: the rule that the contract has for the RPC. No rule, no entry.

use http::{Request, Response};
use souk_proto_common::{Access, Failure, Method, Reason};
use tonic::Code;
use tonic::body::Body;

use super::context;
use crate::caller::Caller;
use crate::context::Target;
use crate::middleware::{Middleware, Next};

#[derive(Clone)]
pub(super) struct Authorize;

impl<S: Next<Error = Failure>> Middleware<S> for Authorize {
    async fn call(&self, request: &mut Request<Body>, next: &S) -> Result<Response<Body>, Failure> {
        let context = context(request);
        match context.target {
            Target::Known(method) => permit(method, &context.caller)?,
            Target::Infrastructure(_) => {}
            Target::Unknown => return Err(Failure::new(Code::Unimplemented, Reason::UnknownMethod, "no such method")),
        }
        next.call(request).await
    }
}

fn permit(method: &Method, caller: &Caller) -> Result<(), Failure> {
    match method.access {
        Access::Public => Ok(()),
        Access::SignedIn if !caller.is_anonymous() => Ok(()),
        Access::Scope(scope) if caller.has_scope(scope) => Ok(()),
        // `auth` has refused those already; should it ever not, this one does.
        Access::SignedIn => {
            Err(Failure::new(Code::Unauthenticated, Reason::TokenMissing, "this call needs an access token"))
        }
        Access::Scope(scope) => {
            let message = format!("the access token lacks the scope {scope}");
            Err(Failure::new(Code::PermissionDenied, Reason::ScopeMissing, message).metadata("scope", scope))
        }
    }
}

#[cfg(test)]
mod tests {
    use souk_proto_common::Shape;

    use super::*;

    fn reason(access: Access, caller: &Caller) -> Option<Reason> {
        let method = Method { path: "/a/B", access, shape: Shape::Unary, read_only: true, keyed: false };
        permit(&method, caller).err().map(|failure| failure.reason())
    }

    #[test]
    fn a_rule_lets_in_who_it_names_and_nobody_else() {
        let with = |scope: &str| Caller::proven("alice", [scope.to_owned()].into(), None);
        assert_eq!(reason(Access::Public, &Caller::anonymous()), None);
        assert_eq!(reason(Access::SignedIn, &Caller::anonymous()), Some(Reason::TokenMissing));
        assert_eq!(reason(Access::SignedIn, &with("any")), None);
        assert_eq!(reason(Access::Scope("orders.read"), &with("orders.read")), None);
        assert_eq!(reason(Access::Scope("orders.read"), &with("orders.read_all")), Some(Reason::ScopeMissing));
        assert_eq!(reason(Access::Scope("orders.read"), &Caller::anonymous()), Some(Reason::ScopeMissing));
    }
}
