//! The journeys as separate processes, several of each service, on PostgreSQL and NATS.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use souk_testkit::form::Form;

mod journeys;

const FORM: Form = Form::Cluster;
