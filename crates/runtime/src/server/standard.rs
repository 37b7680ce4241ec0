//! What every server has beside its own services: gRPC health and reflection.

use std::time::Duration;

use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::kernel::Kernel;
use crate::readiness::Check;

/// What a server says of itself.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Its name, with which its dependencies' names begin.
    pub name: &'static str,
    /// The full names of its gRPC services, under which health is told.
    pub services: &'static [&'static str],
    /// The encoded descriptors of its contracts.
    pub descriptors: &'static [&'static [u8]],
    /// It is asked whether it is well so often.
    pub health_interval: Duration,
}

/// Adds health and reflection to `routes`. Health follows `database`: as long as it says yes, the service can serve, and orchestrators
/// (readiness) and clients (gRPC health) are told so.
pub async fn with_health_and_reflection<Answer>(
    kernel: &Kernel,
    about: About,
    routes: Routes,
    database: impl Fn() -> Answer + Send + Sync + 'static,
) -> anyhow::Result<Routes>
where
    Answer: Future<Output = bool> + Send + 'static,
{
    let (reporter, health) = tonic_health::server::health_reporter();
    tell(&reporter, about, ServingStatus::NotServing).await; // so that the names are known from the first call on
    kernel.tasks.spawn("health", watch(kernel.clone(), about, reporter, database));
    let described = || {
        let ours = tonic_reflection::server::Builder::configure();
        let add = |builder: tonic_reflection::server::Builder<'static>, set| {
            builder.register_encoded_file_descriptor_set(set)
        };
        about
            .descriptors
            .iter()
            .fold(ours, |builder, set| add(builder, set))
            // Without these, tools show the details of an error as bytes.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // Older tools know only the alpha.
    let routes = routes
        .add_service(health.max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(described().build_v1()?.max_decoding_message_size(REQUEST_BYTES_MAX));
    Ok(routes.add_service(described().build_v1alpha()?.max_decoding_message_size(REQUEST_BYTES_MAX)).prepare())
}

/// They are asked for names.
const REQUEST_BYTES_MAX: usize = 4 * 1_024;

async fn watch<Answer>(kernel: Kernel, about: About, reporter: HealthReporter, database: impl Fn() -> Answer)
where
    Answer: Future<Output = bool>,
{
    let shutdown = kernel.tasks.shutdown();
    while !shutdown.is_cancelled() && !kernel.leaving.is_cancelled() {
        let (check, status) = if database().await {
            (Check::Ready, ServingStatus::Serving)
        } else {
            (Check::NotReady("the database does not answer".to_owned()), ServingStatus::NotServing)
        };
        kernel.readiness.set(format!("{}.database", about.name), check);
        tell(&reporter, about, status).await;
        tokio::select! {
            () = kernel.clock.sleep(about.health_interval) => {}
            () = shutdown.cancelled() => {}
            () = kernel.leaving.cancelled() => {}
        }
    }
    tell(&reporter, about, ServingStatus::NotServing).await;
}

async fn tell(reporter: &HealthReporter, about: About, status: ServingStatus) {
    for name in about.services.iter().chain(&[""]) {
        reporter.set_service_status(name, status).await;
    }
}
