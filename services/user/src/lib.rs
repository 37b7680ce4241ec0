//! The user service: accounts, logins, and the tokens that prove them.

pub mod domain;
pub mod store;
