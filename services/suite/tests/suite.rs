//! The journeys in one process, on SQLite and the bus in memory.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use souk_testkit::form::Form;

mod journeys;

const FORM: Form = Form::Suite;
