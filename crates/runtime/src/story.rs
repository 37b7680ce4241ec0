//! An error as a log and a dead letter tell it: a field of a log line shows an error without its causes.

use std::error::Error;
use std::fmt::Write;

/// The error and all its causes, on one line.
pub fn story(error: &(dyn Error + 'static)) -> String {
    let mut story = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(story, ": {error}").expect("writing to a string cannot fail");
        cause = error.source();
    }
    story
}
