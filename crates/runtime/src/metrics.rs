//! The metrics of a process, in Prometheus' form.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::{Metric, Registry};

/// Where metrics are registered, once each, and read. The hot path holds the metrics themselves and never comes here. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Mutex<Registered>>);

#[derive(Debug, Default)]
struct Registered {
    registry: Registry,
    by_name: HashMap<String, Box<dyn Any + Send>>,
}

impl Metrics {
    /// The metric of that name: a new one, or the one that another service of this process has registered (labels tell them apart).
    pub fn register<M: Metric + Clone + Default>(&self, name: &str, help: &str) -> M {
        self.register_with(name, help, M::default)
    }

    /// As [`register`](Self::register), for a metric that has no default, as a histogram.
    pub fn register_with<M: Metric + Clone>(&self, name: &str, help: &str, make: impl FnOnce() -> M) -> M {
        let mut registered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metric) = registered.by_name.get(name) {
            return metric.downcast_ref::<M>().expect("a name stands for one type of metric").clone();
        }
        let metric = make();
        registered.registry.register(name, help, metric.clone());
        registered.by_name.insert(name.to_owned(), Box::new(metric.clone()));
        metric
    }

    /// Every metric, as `/metrics` shows it.
    pub fn encode(&self) -> String {
        let registered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        encode(&mut text, &registered.registry).expect("writing to a string cannot fail");
        text
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn one_name_is_one_metric() {
        let metrics = Metrics::default();
        metrics.register::<Counter>("orders", "Orders").inc();
        metrics.register::<Counter>("orders", "Orders").inc();
        let text = metrics.encode();
        assert!(text.contains("orders_total 2"), "{text}");
        assert_eq!(text.matches("# TYPE orders counter").count(), 1);
    }
}
