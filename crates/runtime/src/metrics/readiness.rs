//! What `/readyz` says, over time.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::scrape::{Label, Scrape};
use crate::readiness::{Readiness, State};

#[derive(Debug)]
pub(super) struct ReadinessMetrics(pub(super) Readiness);

impl Collector for ReadinessMetrics {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut scrape = Scrape(encoder);
        scrape.gauge("souk_ready", "1 if the process can serve", u32::from(self.0.is_ready()))?;
        let dependencies = self.0.dependencies().into_iter().map(|(name, dependency)| {
            let labels: Vec<Label> = vec![("dependency", name), ("required", dependency.required.to_string())];
            (labels, u32::from(dependency.state == State::Ready))
        });
        scrape.gauges("souk_dependency_ready", "1 if what the process depends on is well", dependencies)
    }
}
