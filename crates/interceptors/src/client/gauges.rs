//! What is measured of a peer, by its name.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use souk_runtime::Kernel;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPeer {
    peer: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InState {
    peer: &'static str,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCause {
    peer: &'static str,
    cause: &'static str,
}

/// Why an address gets no calls any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// It does not answer.
    Unreachable,
    /// It says that it does not serve.
    NotServing,
    /// Calls fail there.
    Outlier,
}

/// The handles of one peer. Two clients of one peer in a process add up.
pub(super) struct Gauges {
    peer: &'static str,
    pub(super) known: Gauge,
    pub(super) healthy: Gauge,
    pub(super) in_flight: Gauge,
    ejections: Family<ByCause, Counter>,
    pub(super) refused: Counter,
    pub(super) retries: Counter,
    pub(super) resolve_failures: Counter,
}

impl Gauges {
    pub(super) fn new(kernel: &Kernel, peer: &'static str) -> Self {
        let metrics = &kernel.metrics;
        let addresses = "Addresses of a peer: known ones, and those that calls go to";
        let in_state = |state| metrics.register_labelled("grpc_client_addresses", addresses, &InState { peer, state });
        let in_flight = "Calls to a peer that have not ended, streams included";
        let counter = |name, help| metrics.register_labelled(name, help, &OfPeer { peer });
        Self {
            peer,
            known: in_state("known"),
            healthy: in_state("healthy"),
            in_flight: metrics.register_labelled("grpc_client_calls_in_flight", in_flight, &OfPeer { peer }),
            ejections: metrics.register("grpc_client_ejections", "Addresses that were taken out, by cause"),
            refused: counter("grpc_client_refused", "Calls that were not made because no address of the peer answered"),
            retries: counter("grpc_client_retries", "Second and later tries of calls"),
            resolve_failures: counter("grpc_client_resolve_failures", "Names of a peer that could not be looked up"),
        }
    }

    pub(super) fn ejected(&self, cause: Cause) {
        let cause = match cause {
            Cause::Unreachable => "unreachable",
            Cause::NotServing => "not_serving",
            Cause::Outlier => "outlier",
        };
        self.ejections.get_or_create(&ByCause { peer: self.peer, cause }).inc();
    }
}
