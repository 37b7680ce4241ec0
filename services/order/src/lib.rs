//! The order service: placed once, priced by the server, driven to its end whatever breaks on the way.

pub mod domain;
pub mod store;
