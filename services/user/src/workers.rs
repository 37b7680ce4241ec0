//! What goes on beside the calls: the rotation of keys, and tidying up.

use std::time::Duration;

use souk_runtime::{Kernel, story};
use tracing::warn;

use crate::config::Config;
use crate::ops::{self, App};

/// Starts the rotation of keys and the sweeper; they end with the process.
pub(crate) fn start(app: &App, kernel: &Kernel, config: &Config) {
    let interval = Duration::from_millis(config.keys.check_interval_ms);
    kernel.tasks.spawn_until_shutdown("token keys", maintain_keys(app.clone(), interval));
    kernel.tasks.spawn_until_shutdown("user sweeper", sweep(app.clone()));
}

/// Every replica looks; one at a time, by lease, changes something.
async fn maintain_keys(app: App, interval: Duration) {
    loop {
        app.clock.sleep(interval).await;
        if let Err(error) = ops::maintain_keys(&app).await {
            warn!(error = story(&error), "keys cannot be maintained");
        }
    }
}

/// Nobody waits for it: it only keeps the tables tidy. Replicas that do the same find nothing left.
async fn sweep(app: App) {
    let interval = Duration::from_millis(app.limits.sweep_interval_ms);
    loop {
        app.clock.sleep(interval).await;
        loop {
            match ops::sweep(&app).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    warn!(error = story(&error), "sweep failed");
                    break;
                }
            }
        }
    }
}
