//! The inventory service: what the shop sells, how much of it there is, and for whom it is set aside.

pub mod domain;
pub mod store;
pub mod wire;
