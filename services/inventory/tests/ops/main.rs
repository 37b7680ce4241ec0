//! Operations on SQLite with a fake clock, and those that two replicas must agree on also on PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod catalog;
mod holds;
mod remembered;
mod replicas;
mod shop;
mod watch;
