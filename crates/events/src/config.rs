//! The settings of the bus: which it is, and its bounds.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use souk_runtime::Secret;
use souk_runtime::config::{MS_MAX, check_bounds};

/// The bus of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BusConfig {
    /// memory: (within this process), or nats://host:port with further servers after commas; tls:// instead of nats:// demands TLS. One service
    /// in a process of its own does not start without it: in memory nobody would hear it.
    pub url: String,
    /// The user that NATS knows us as; empty: none.
    pub user: String,
    /// Their password.
    pub password: Secret,
    /// A token, where NATS asks for one instead.
    pub token: Secret,
    /// A credentials file (JWT and NKey), where NATS asks for one instead.
    pub credentials_file: PathBuf,
    /// TLS.
    pub tls: BusTls,
    /// What is kept on the bus.
    pub stream: StreamConfig,
    /// Connecting may take so many milliseconds; then the next server is tried, for ever.
    pub connect_timeout_ms: u64,
    /// The longest pause between two tries to connect, in milliseconds.
    pub reconnect_pause_max_ms: u64,
    /// The server is asked for a sign of life every so many milliseconds; after two without one the connection is given up.
    pub ping_interval_ms: u64,
    /// The bus must acknowledge an event, and answer whatever else it is asked, within so many milliseconds.
    pub publish_timeout_ms: u64,
    /// Events that are published and not yet acknowledged.
    pub publishes_in_flight_max: usize,
    /// A consumer that has not been heard of for so many milliseconds is dead, and its event another's. It is told while an event is handled.
    pub ack_wait_ms: u64,
    /// How far consumers are behind is asked for every so many milliseconds.
    pub lag_interval_ms: u64,
}

/// TLS between us and NATS. Files are read anew at every connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BusTls {
    /// Refuse a server without TLS.
    pub required: bool,
    /// PEM file of the authorities whose certificates are taken; empty: the machine's.
    pub ca_file: PathBuf,
    /// PEM file of our certificate; empty: none.
    pub certificate_file: PathBuf,
    /// PEM file of its key.
    pub key_file: PathBuf,
}

/// The stream that keeps events until every consumer has had them. It is made where there is none, and brought to these settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StreamConfig {
    /// How its name begins. Each stream that is ever made has an end of its own: by its name publishers tell that it is a new one.
    pub name: String,
    /// Servers that keep a copy: 1, 3 or 5.
    pub replicas: usize,
    /// An event that comes twice within so many milliseconds is kept once. Consumers tell later repetitions by themselves.
    pub duplicate_window_ms: u64,
    /// Events are kept for so many hours. A consumer that was away for longer has missed some: have them published again.
    pub keep_hours: u32,
    /// The most that is kept, in bytes. Full, the stream takes no more, and events wait in the outboxes.
    pub bytes_max: u64,
}

impl Default for BusConfig {
    fn default() -> Self {
        Self {
            url: MEMORY.to_owned(),
            user: String::new(),
            password: Secret::default(),
            token: Secret::default(),
            credentials_file: PathBuf::new(),
            tls: BusTls::default(),
            stream: StreamConfig::default(),
            connect_timeout_ms: 5_000,
            reconnect_pause_max_ms: 2_000,
            ping_interval_ms: 5_000,
            publish_timeout_ms: 5_000,
            publishes_in_flight_max: 256,
            ack_wait_ms: 10_000,
            lag_interval_ms: 5_000,
        }
    }
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            name: "SOUK".to_owned(),
            replicas: 1,
            duplicate_window_ms: 2 * 60_000,
            keep_hours: 24,
            bytes_max: 4 << 30,
        }
    }
}

/// The bus within one process.
const MEMORY: &str = "memory:";
/// Longer names make long subjects of the JetStream API.
const NAME_BYTES_MAX: usize = 32;
/// Publishes in flight: each holds its event in memory.
const IN_FLIGHT_MAX: u64 = 100_000;
/// A stream on a disk of our time.
const STREAM_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 50;

impl BusConfig {
    /// The settings for the bus at `url`, everything else as usual.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// None is named yet. For the processes of one service: a bus within one of them leads nowhere, and they must be told to have it.
    pub fn unnamed() -> Self {
        Self::at("")
    }

    /// It is the bus within this process.
    pub fn is_memory(&self) -> bool {
        self.url == MEMORY
    }

    /// The servers of NATS, each as a URL.
    pub(crate) fn servers(&self) -> Vec<String> {
        let scheme = self.url.split_once("://").map_or("nats", |(scheme, _)| scheme);
        let full =
            |server: &str| if server.contains("://") { server.to_owned() } else { format!("{scheme}://{server}") };
        self.url.split(',').map(|server| full(server.trim())).collect()
    }

    /// Notes what cannot be; `at` is where the settings stand.
    pub fn validate(&self, at: &str, problems: &mut Vec<String>) {
        self.validate_url(at, problems);
        let ways = [!self.user.is_empty(), !self.token.is_empty(), !self.credentials_file.as_os_str().is_empty()];
        if ways.into_iter().filter(|set| *set).count() > 1 {
            problems.push(format!("{at}.user, {at}.token and {at}.credentials_file are three ways: set one at most"));
        }
        if self.tls.certificate_file.as_os_str().is_empty() != self.tls.key_file.as_os_str().is_empty() {
            problems.push(format!("{at}.tls.certificate_file and {at}.tls.key_file belong together"));
        }
        let times = [
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("reconnect_pause_max_ms", self.reconnect_pause_max_ms),
            ("ping_interval_ms", self.ping_interval_ms),
            ("publish_timeout_ms", self.publish_timeout_ms),
            ("lag_interval_ms", self.lag_interval_ms),
        ];
        check_bounds(problems, at, 1..=MS_MAX, &times);
        // It is asked for signs of life three times within that.
        check_bounds(problems, at, 100..=MS_MAX, &[("ack_wait_ms", self.ack_wait_ms)]);
        let in_flight = [("publishes_in_flight_max", self.publishes_in_flight_max as u64)];
        check_bounds(problems, at, 1..=IN_FLIGHT_MAX, &in_flight);
        self.stream.validate(&format!("{at}.stream"), problems);
    }

    fn validate_url(&self, at: &str, problems: &mut Vec<String>) {
        let known = ["nats://", "tls://"];
        let is_server =
            |server: &String| known.iter().any(|scheme| server.len() > scheme.len() && server.starts_with(scheme));
        if self.url.contains('@') {
            problems.push(format!("{at}.url must be without credentials: they have settings of their own"));
        } else if !self.url.is_empty() && !self.is_memory() && !self.servers().iter().all(is_server) {
            problems.push(format!("{at}.url must be memory: or nats://host:port"));
        }
    }
}

impl StreamConfig {
    fn validate(&self, at: &str, problems: &mut Vec<String>) {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX || !self.name.chars().all(is_plain) {
            problems.push(format!("{at}.name must be 1 to {NAME_BYTES_MAX} of letters, digits, - and _"));
        }
        check_bounds(problems, at, 1..=5, &[("replicas", self.replicas as u64)]);
        check_bounds(problems, at, 1..=24 * 366, &[("keep_hours", self.keep_hours.into())]);
        check_bounds(problems, at, STREAM_BYTES, &[("bytes_max", self.bytes_max)]);
        let window = [("duplicate_window_ms", self.duplicate_window_ms)];
        check_bounds(problems, at, 100..=u64::from(self.keep_hours.max(1)) * 3_600_000, &window);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut BusConfig);

    fn problems(change: impl FnOnce(&mut BusConfig)) -> Vec<String> {
        let mut config = BusConfig::default();
        change(&mut config);
        let mut problems = Vec::new();
        config.validate("bus", &mut problems);
        problems
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let bad: [(&str, Change); 16] = [
            ("url", |config| config.url = "kafka://x".to_owned()),
            ("url", |config| config.url = "nats://".to_owned()),
            ("url", |config| config.url = "nats://user:word@x:4222".to_owned()),
            ("connect_timeout_ms", |config| config.connect_timeout_ms = 0),
            ("reconnect_pause_max_ms", |config| config.reconnect_pause_max_ms = 0),
            ("ping_interval_ms", |config| config.ping_interval_ms = MS_MAX + 1),
            ("publish_timeout_ms", |config| config.publish_timeout_ms = 0),
            ("publishes_in_flight_max", |config| config.publishes_in_flight_max = 0),
            ("ack_wait_ms", |config| config.ack_wait_ms = 99),
            ("lag_interval_ms", |config| config.lag_interval_ms = 0),
            ("stream.name", |config| config.stream.name = "a.b".to_owned()),
            ("stream.name", |config| config.stream.name = "x".repeat(33)),
            ("stream.replicas", |config| config.stream.replicas = 6),
            ("stream.keep_hours", |config| config.stream.keep_hours = 0),
            ("stream.bytes_max", |config| config.stream.bytes_max = 1_023),
            ("stream.duplicate_window_ms", |config| config.stream.duplicate_window_ms = 24 * 3_600_000 + 1),
        ];
        for (name, change) in bad {
            let problems = problems(change);
            assert_eq!(problems.len(), 1, "{name}: {problems:?}");
            assert!(problems[0].starts_with(&format!("bus.{name} must be ")), "{problems:?}");
            assert!(!problems[0].contains("word"), "a password is not told");
        }
        assert_eq!(problems(|_| ()), Vec::<String>::new());
    }

    #[test]
    fn there_is_one_way_to_prove_oneself_and_a_certificate_has_a_key() {
        let two = problems(|config| {
            config.user = "order".to_owned();
            config.token = Secret::new("word");
            config.tls.certificate_file = "order.crt".into();
        });
        assert_eq!(two.len(), 2, "{two:?}");
    }

    #[test]
    fn several_servers_stand_in_one_url() {
        assert_eq!(BusConfig::at("nats://a:4222").servers(), ["nats://a:4222"]);
        assert_eq!(BusConfig::at("tls://a:1, b:2,nats://c").servers(), ["tls://a:1", "tls://b:2", "nats://c"]);
        assert!(BusConfig::default().is_memory());
    }

    #[tokio::test]
    async fn a_bus_that_is_not_named_is_asked_for() {
        let kernel = souk_runtime::Kernel::new(souk_runtime::Clock::system());
        let refused = crate::Bus::connect(&kernel, &BusConfig::unnamed()).await.unwrap_err();
        assert!(refused.to_string().starts_with("bus.url must be set: "), "{refused}");
    }
}
