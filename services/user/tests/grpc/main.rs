//! Journeys through real clients.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accounts;
mod bad_fields;
mod concurrency;
mod harness;
mod in_flight;
mod sessions;
mod users;
