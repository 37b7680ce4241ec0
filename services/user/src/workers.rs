//! What goes on beside the calls: the rotation of keys, tidying up, and telling whether the service can serve.

use std::time::Duration;

use souk_runtime::{Check, Kernel};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::warn;

use crate::config::Config;
use crate::ops::{self, App};

/// Starts the rotation of keys and the sweeper; they end with the process.
pub(crate) fn start(app: &App, kernel: &Kernel, config: &Config) {
    let interval = Duration::from_millis(config.keys.check_interval_ms);
    kernel.tasks.spawn("token keys", until_shutdown(app.clone(), maintain_keys(app.clone(), interval)));
    kernel.tasks.spawn("user sweeper", until_shutdown(app.clone(), sweep(app.clone())));
}

/// Says whether the service can serve, to orchestrators (readiness) and to clients (gRPC health): while the database answers.
pub(crate) fn watch_health(app: &App, kernel: &Kernel, health: HealthReporter) {
    let (app, readiness) = (app.clone(), kernel.readiness.clone());
    kernel.tasks.spawn("user health", async move {
        let interval = Duration::from_millis(app.limits.health_interval_ms);
        while !app.shutdown.is_cancelled() {
            let well = app.db.ping().await.is_ok();
            let check = if well { Check::Ready } else { Check::NotReady("the database does not answer".to_owned()) };
            readiness.set("user", check);
            tell(&health, if well { ServingStatus::Serving } else { ServingStatus::NotServing }).await;
            tokio::select! {
                () = app.clock.sleep(interval) => {}
                () = app.shutdown.cancelled() => {}
            }
        }
        tell(&health, ServingStatus::NotServing).await;
    });
}

async fn tell(health: &HealthReporter, status: ServingStatus) {
    for name in crate::SERVICE_NAMES.iter().chain(&[""]) {
        health.set_service_status(name, status).await;
    }
}

async fn until_shutdown(app: App, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        () = app.shutdown.cancelled() => {}
    }
}

/// Every replica looks; one at a time, by lease, changes something.
async fn maintain_keys(app: App, interval: Duration) {
    loop {
        app.clock.sleep(interval).await;
        if let Err(error) = ops::maintain_keys(&app).await {
            warn!(error = &error as &dyn std::error::Error, "keys cannot be maintained");
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
                    warn!(error = &error as &dyn std::error::Error, "sweep failed");
                    break;
                }
            }
        }
    }
}
