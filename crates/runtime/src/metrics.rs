//! The metrics of a process, in Prometheus' form.

mod executor;
#[cfg(target_os = "linux")]
mod process;
mod readiness;
mod scrape;

use std::any::Any;
use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry};

use crate::readiness::Readiness;

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

    /// The one of a family's metrics that has these labels.
    pub fn register_labelled<M, L>(&self, name: &str, help: &str, labels: &L) -> M
    where
        M: EncodeMetric + TypedMetric + Clone + Debug + Default + Send + Sync + 'static,
        L: EncodeLabelSet + Clone + Debug + Hash + Eq + Send + Sync + 'static,
    {
        let family: Family<L, M> = self.register(name, help);
        family.get_or_create(labels).clone()
    }

    /// A collector is asked at each scrape, and must not come back here.
    fn register_collector(&self, collector: impl Collector) {
        let mut registered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        registered.registry.register_collector(Box::new(collector));
    }

    /// Registers what is to be told of the process `binary` itself, once: what it is, what it takes of the machine, how busy its runtime
    /// is, and whether it is ready.
    pub(crate) fn register_process(&self, binary: &'static str, readiness: &Readiness) {
        let labels = [("service", binary), ("version", env!("CARGO_PKG_VERSION"))];
        self.register_labelled::<Gauge, _>("souk_build_info", "What runs: always 1", &labels).set(1);
        #[cfg(target_os = "linux")]
        self.register_collector(process::ProcessMetrics);
        self.register_collector(executor::TokioMetrics::new());
        self.register_collector(readiness::ReadinessMetrics(readiness.clone()));
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

    #[tokio::test]
    async fn the_process_is_described_at_each_scrape() {
        let metrics = Metrics::default();
        let readiness = Readiness::new(crate::Clock::system());
        metrics.register_process("souk-test", &readiness);
        readiness.set("test.database", crate::Check::Ready);
        readiness.set_optional("test.bus", crate::Check::NotReady("no answer".to_owned()));
        let text = metrics.encode();
        let build = format!("souk_build_info{{service=\"souk-test\",version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
        let ready = [
            build.as_str(),
            "souk_ready 1",
            "souk_dependency_ready{dependency=\"test.bus\",required=\"false\"} 0",
            "souk_dependency_ready{dependency=\"test.database\",required=\"true\"} 1",
            "tokio_workers 1",
        ];
        for line in ready {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        readiness.set("test.database", crate::Check::NotReady("no answer".to_owned()));
        assert!(metrics.encode().contains("souk_ready 0"));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_the_system_says_of_the_process_is_so() {
        let metrics = Metrics::default();
        metrics.register_process("souk-test", &Readiness::new(crate::Clock::system()));
        let value = |name: &str| -> f64 {
            let text = metrics.encode();
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name}\n{text}")).parse().unwrap()
        };
        let before = value("process_open_fds");
        let files: Vec<_> = (0..20).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        assert!(value("process_open_fds") >= before + 15.0, "other tests may close some");
        drop(files);
        assert!(value("process_max_fds") >= before);
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_cpu_seconds_total") >= 0.0);
        let (resident, mapped) = (value("process_resident_memory_bytes"), value("process_virtual_memory_bytes"));
        assert!(resident > 1_000_000.0 && mapped > resident, "{resident} {mapped}");
        let age = f64::from(u32::try_from(crate::Clock::system().now().timestamp()).unwrap())
            - value("process_start_time_seconds");
        assert!((-2.0..3_600.0).contains(&age), "{age}");
    }
}
