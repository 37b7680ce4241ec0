//! What is going on, on the terminal: a bar, and beside it how many calls were answered. Nothing where there is no terminal.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;

use crate::load::{Live, Plan};

const TICK: Duration = Duration::from_millis(100);

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// A bar that shows nothing yet; with `quiet` it never will.
    pub(crate) fn new(quiet: bool) -> Self {
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
        let style = ProgressStyle::with_template("{bar:30} {msg}").expect("the template is a constant, and good");
        Self(bar.with_style(style))
    }

    /// What is done now, in so many steps.
    pub(crate) fn phase(&self, what: &'static str, steps: usize) {
        self.0.set_length(u64::try_from(steps).unwrap_or(u64::MAX));
        self.0.set_position(0);
        self.0.set_message(what);
    }

    /// One step is done.
    pub(crate) fn step(&self) {
        self.0.inc(1);
    }

    /// Follows a run to its end, or until what is returned is dropped.
    pub(crate) fn follow(&self, name: &str, plan: &Plan, live: Arc<Live>) -> Following {
        let (bar, name, whole) = (self.0.clone(), name.to_owned(), plan.warm_up + plan.window);
        bar.set_length(u64::try_from(whole.as_millis()).unwrap_or(u64::MAX));
        let began = tokio::time::Instant::now();
        Following(tokio::spawn(async move {
            loop {
                tokio::time::sleep(TICK).await;
                let (done, failed) = (live.done.load(Ordering::Relaxed), live.failed.load(Ordering::Relaxed));
                let seconds = began.elapsed().as_secs();
                bar.set_position(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
                bar.set_message(format!("{name}: {seconds} s, {done} answered, {failed} failed"));
            }
        }))
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

/// Ends with its value.
#[derive(Debug)]
pub(crate) struct Following(JoinHandle<()>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}
