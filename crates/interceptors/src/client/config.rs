//! How a peer is reached: the settings, and what cannot be.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use souk_runtime::config::{MS_MAX, check_bounds};

use super::target::Target;

/// How a service is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClientConfig {
    /// One or more addresses, as `http://10.0.0.1:50053` or `https://inventory:50053`; a name may stand for many. Calls are balanced over all
    /// of them.
    pub addresses: Vec<String>,
    /// What `https://` addresses are trusted by, and what we prove ourselves with.
    pub tls: ClientTls,
    /// Names are looked up again after so many milliseconds, a quarter more or less; and at once when connections fail.
    pub resolve_interval_ms: u64,
    /// An address must be connected, TLS included, and have said how it is, within so many milliseconds. A call waits no longer for the first
    /// that has.
    pub connect_timeout_ms: u64,
    /// The deadline of a call that is not made for another call, in milliseconds.
    pub timeout_ms: u64,
    /// Kept back of the caller's time, so that we can still answer, in milliseconds.
    pub margin_ms: u64,
    /// An idle connection is asked for a sign of life after so many milliseconds.
    pub keepalive_interval_ms: u64,
    /// And given up if none comes within so many.
    pub keepalive_timeout_ms: u64,
    /// An address that does not answer is tried again after so many milliseconds, half of it at random; twice as many after each failure.
    pub ejection_ms: u64,
    /// But no more than so many.
    pub ejection_max_ms: u64,
    /// An address is left alone for `outlier_ejection_ms` when so many calls in a row have failed there: UNAVAILABLE, no connection, no answer
    /// in time, if that was 250 ms or more.
    pub outlier_failures: u32,
    /// For so many milliseconds, as many again for each time in a row, up to ten times as many.
    pub outlier_ejection_ms: u64,
    /// Of all addresses, at most so many percent are left alone for failed calls.
    pub outlier_share_max_percent: u32,
    /// Tries of a call in all, where repeating it is safe.
    pub tries_max: u32,
    /// The pause before the second try, in milliseconds; it doubles with each.
    pub backoff_ms: u64,
    /// Retries in percent of the calls, in the long run: when everything fails, retries must not multiply the load.
    pub retry_budget_percent: u32,
}

/// TLS towards a peer. All of it is read again when the files change, without a restart: new connections use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClientTls {
    /// The file (PEM) with the certificates of those who may sign a server's; needed for `https://` addresses.
    pub ca_file: PathBuf,
    /// The file (PEM) with our certificate and those between it and its signer, for servers that ask for one. Empty: none.
    pub certificate_file: PathBuf,
    /// The file (PEM) with its private key.
    pub key_file: PathBuf,
    /// The name that a server's certificate must have. Empty: that of the address.
    pub server_name: String,
    /// The files are looked at so often, in milliseconds.
    pub reload_interval_ms: u64,
}

impl Default for ClientTls {
    fn default() -> Self {
        Self {
            ca_file: PathBuf::new(),
            certificate_file: PathBuf::new(),
            key_file: PathBuf::new(),
            server_name: String::new(),
            reload_interval_ms: 10_000,
        }
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            tls: ClientTls::default(),
            resolve_interval_ms: 5_000,
            connect_timeout_ms: 1_000,
            timeout_ms: 5_000,
            margin_ms: 10,
            keepalive_interval_ms: 10_000,
            keepalive_timeout_ms: 5_000,
            ejection_ms: 100,
            ejection_max_ms: 2_000,
            outlier_failures: 5,
            outlier_ejection_ms: 1_000,
            outlier_share_max_percent: 50,
            tries_max: 4,
            backoff_ms: 25,
            retry_budget_percent: 20,
        }
    }
}

/// No caller waits longer for a second try.
const BACKOFF_MS_MAX: u64 = 60_000;

impl ClientConfig {
    /// Notes what cannot be; `at` is where the settings stand.
    pub fn validate(&self, at: &str, problems: &mut Vec<String>) {
        self.validate_addresses(at, problems);
        self.tls.validate(&format!("{at}.tls"), problems);
        let positive = [
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("timeout_ms", self.timeout_ms),
            ("keepalive_interval_ms", self.keepalive_interval_ms),
            ("keepalive_timeout_ms", self.keepalive_timeout_ms),
            ("outlier_failures", self.outlier_failures.into()),
            ("tries_max", self.tries_max.into()),
        ];
        check_bounds(problems, at, 1..=i32::MAX as u64, &positive);
        check_bounds(problems, at, 100..=MS_MAX, &[("resolve_interval_ms", self.resolve_interval_ms)]);
        let pauses = [
            ("ejection_ms", self.ejection_ms),
            ("ejection_max_ms", self.ejection_max_ms),
            ("outlier_ejection_ms", self.outlier_ejection_ms),
        ];
        check_bounds(problems, at, 1..=3_600_000, &pauses);
        check_bounds(problems, at, 0..=BACKOFF_MS_MAX, &[("backoff_ms", self.backoff_ms)]);
        let shares = [
            ("outlier_share_max_percent", self.outlier_share_max_percent.into()),
            ("retry_budget_percent", self.retry_budget_percent.into()),
        ];
        check_bounds(problems, at, 0..=100, &shares);
        if self.margin_ms >= self.timeout_ms {
            problems.push(format!("{at}.margin_ms must be less than {at}.timeout_ms"));
        }
    }

    fn validate_addresses(&self, at: &str, problems: &mut Vec<String>) {
        if self.addresses.is_empty() {
            problems.push(format!("{at}.addresses must name at least one"));
        }
        let (targets, bad): (Vec<_>, Vec<_>) =
            self.addresses.iter().map(|address| Target::parse(address)).partition(Result::is_ok);
        problems.extend(bad.into_iter().filter_map(Result::err).map(|problem| format!("{at}.addresses: {problem}")));
        let targets: Vec<Target> = targets.into_iter().filter_map(Result::ok).collect();
        let secure = targets.iter().filter(|target| target.is_secure).count();
        if secure > 0 && secure < targets.len() {
            problems.push(format!("{at}.addresses must be all http:// or all https://"));
        } else if secure > 0 && is_empty(&self.tls.ca_file) {
            problems.push(format!("{at}.tls.ca_file must be set for https:// addresses"));
        } else if secure == 0 && !targets.is_empty() && self.tls.is_set() {
            problems.push(format!("{at}.tls must not be set for http:// addresses"));
        }
    }

    /// The defaults, for one address: `127.0.0.1:50053`.
    pub fn to(address: impl std::fmt::Display) -> Self {
        Self { addresses: vec![format!("http://{address}")], ..Self::default() }
    }
}

impl ClientTls {
    fn is_set(&self) -> bool {
        let files = [&self.ca_file, &self.certificate_file, &self.key_file];
        !self.server_name.is_empty() || files.iter().any(|file| !is_empty(file))
    }

    fn validate(&self, at: &str, problems: &mut Vec<String>) {
        if is_empty(&self.certificate_file) != is_empty(&self.key_file) {
            problems.push(format!("{at}.certificate_file and {at}.key_file must be set together"));
        }
        check_bounds(problems, at, 100..=MS_MAX, &[("reload_interval_ms", self.reload_interval_ms)]);
    }
}

fn is_empty(file: &Path) -> bool {
    file.as_os_str().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let usual = ClientConfig::to("127.0.0.1:50053");
        let too_long = i32::MAX as u64 + 1;
        let bad = [
            ("addresses", ClientConfig { addresses: Vec::new(), ..usual.clone() }),
            ("resolve_interval_ms", ClientConfig { resolve_interval_ms: 99, ..usual.clone() }),
            ("connect_timeout_ms", ClientConfig { connect_timeout_ms: 0, ..usual.clone() }),
            ("timeout_ms", ClientConfig { timeout_ms: too_long, ..usual.clone() }),
            ("margin_ms", ClientConfig { margin_ms: usual.timeout_ms, ..usual.clone() }),
            ("keepalive_interval_ms", ClientConfig { keepalive_interval_ms: 0, ..usual.clone() }),
            ("keepalive_timeout_ms", ClientConfig { keepalive_timeout_ms: too_long, ..usual.clone() }),
            ("ejection_ms", ClientConfig { ejection_ms: 0, ..usual.clone() }),
            ("ejection_max_ms", ClientConfig { ejection_max_ms: 3_600_001, ..usual.clone() }),
            ("outlier_failures", ClientConfig { outlier_failures: 0, ..usual.clone() }),
            ("outlier_ejection_ms", ClientConfig { outlier_ejection_ms: 0, ..usual.clone() }),
            ("outlier_share_max_percent", ClientConfig { outlier_share_max_percent: 101, ..usual.clone() }),
            ("tries_max", ClientConfig { tries_max: 0, ..usual.clone() }),
            ("backoff_ms", ClientConfig { backoff_ms: 60_001, ..usual.clone() }),
            ("retry_budget_percent", ClientConfig { retry_budget_percent: 101, ..usual.clone() }),
        ];
        for (name, config) in bad {
            assert!(problem(&config).starts_with(&format!("user.{name} must ")), "{name}: {}", problem(&config));
        }
        let least = ClientConfig { backoff_ms: 0, retry_budget_percent: 0, outlier_share_max_percent: 0, ..usual };
        assert_eq!(problems(&least), Vec::<String>::new());
    }

    #[test]
    fn tls_is_for_https_and_for_all_addresses() {
        let config = |addresses: &[&str], amend: fn(&mut ClientTls)| {
            let addresses = addresses.iter().map(|address| (*address).to_owned()).collect();
            let mut config = ClientConfig { addresses, ..ClientConfig::default() };
            amend(&mut config.tls);
            config
        };
        let with_ca = |tls: &mut ClientTls| tls.ca_file = "ca.pem".into();
        assert_eq!(problems(&config(&["https://inventory:50053", "https://[::1]:1"], with_ca)), Vec::<String>::new());
        let bad = [
            (config(&["https://a:1", "http://b:1"], with_ca), "user.addresses must be all http:// or all https://"),
            (config(&["https://a:1"], |_| ()), "user.tls.ca_file must be set for https:// addresses"),
            (config(&["http://a:1"], with_ca), "user.tls must not be set for http:// addresses"),
            (config(&["http://a:1"], |tls| tls.server_name = "b".into()), "user.tls must not be set for http:// "),
            (
                config(&["https://a:1"], |tls| (tls.ca_file, tls.key_file) = ("ca.pem".into(), "key.pem".into())),
                "user.tls.certificate_file and user.tls.key_file must be set together",
            ),
            (
                config(&["https://a:1"], |tls| (tls.ca_file, tls.reload_interval_ms) = ("ca.pem".into(), 99)),
                "user.tls.reload_interval_ms must be 100 to ",
            ),
        ];
        for (config, expected) in bad {
            assert!(problem(&config).starts_with(expected), "{}", problem(&config));
        }
    }

    fn problem(config: &ClientConfig) -> String {
        let [problem] = problems(config).try_into().unwrap();
        problem
    }

    fn problems(config: &ClientConfig) -> Vec<String> {
        let mut problems = Vec::new();
        config.validate("user", &mut problems);
        problems
    }
}
