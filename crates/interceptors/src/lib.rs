//! What happens around a call: on the server before and after the handler, on the client around the network.
//!
//! The order of the layers stands in one place for each side: [`server::stack`] and [`client::connect`]. Never: anything of one service;
//! its keys and tokens come in as closures.

pub mod caller;
pub mod client;
pub mod context;
mod middleware;
mod rpc;
pub mod server;
pub mod token;

use souk_proto_common::InvalidRequest;
use tonic::{Request, Status};

pub use caller::{Caller, CallerKind};
pub use context::CallContext;

/// Marks an error that a Souk server decided before anything took effect: `souk-outcome: definite`.
pub const OUTCOME: &str = "souk-outcome";

/// The first line of every handler: who calls, and what for. A request that is no command is INVALID_ARGUMENT, every bad field named.
pub fn accept<P, C>(request: Request<P>) -> Result<(Caller, C), Status>
where
    C: TryFrom<P, Error = InvalidRequest>,
{
    let caller = request.extensions().get::<Caller>().cloned().unwrap_or_default();
    Ok((caller, C::try_from(request.into_inner())?))
}
