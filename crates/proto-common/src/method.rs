//! What the descriptors say of an RPC, as a row that the interceptors obey. `build.rs` writes the rows.

/// Who may call an RPC: the option `souk.common.v1.rule` of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anyone; a bad token makes the caller anonymous.
    Public,
    /// Any caller with a valid token.
    SignedIn,
    /// A caller whose token carries this scope.
    Scope(&'static str),
}

/// Which sides of an RPC stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One request, one response.
    Unary,
    /// Many requests, one response.
    ClientStream,
    /// One request, many responses.
    ServerStream,
    /// Many of both.
    BidiStream,
}

/// One RPC of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// The HTTP/2 path: `/souk.order.v1.OrderService/PlaceOrder`.
    pub path: &'static str,
    /// Who may call it.
    pub access: Access,
    /// Which sides stream.
    pub shape: Shape,
    /// The contract says `idempotency_level = NO_SIDE_EFFECTS`.
    pub read_only: bool,
    /// The request carries an idempotency key, `request_id`; or the contract says `idempotency_level = IDEMPOTENT`, since the parts of the
    /// request do, or need none.
    pub keyed: bool,
}

impl Method {
    /// A call that may have taken effect can be repeated without harm.
    pub fn repeatable(&self) -> bool {
        self.read_only || self.keyed
    }

    /// `("souk.order.v1.OrderService", "PlaceOrder")`
    pub fn service_and_name(&self) -> (&'static str, &'static str) {
        let path = self.path.trim_start_matches('/');
        path.split_once('/').unwrap_or((path, ""))
    }
}
