//! The generated traits: accept, call the operation, reply.

mod auth;
mod user;

pub use auth::AuthGrpc;
pub use user::UserGrpc;
