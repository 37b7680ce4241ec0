//! The settings of a server, and their bounds.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cors;
use crate::config::{MS_MAX, check_bounds};

/// How a service listens, and what a peer may take of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// The address of the service's gRPC.
    pub listen: SocketAddr,
    /// Whether it may listen beyond the loopback without TLS.
    pub plaintext: bool,
    /// Whether connections begin with a PROXY header (version 1 or 2), in which the load balancer in front says whose each is: none |
    /// optional | required. Nobody whom you do not trust may be able to connect past the balancer then: whoever can, can say what they like.
    pub proxy_protocol: ProxyProtocol,
    /// Connections at a time; more are closed at once.
    pub connections_max: usize,
    /// Connections at a time of one peer: an IPv4 address, or 64 bits of an IPv6 address; more are closed at once.
    pub connections_per_peer_max: usize,
    /// A connection has so many milliseconds until it has said what it speaks: TLS, PROXY header, HTTP's first bytes.
    pub handshake_timeout_ms: u64,
    /// The headers of a request over HTTP/1 must be there within so many milliseconds; the next request's, too.
    pub header_read_timeout_ms: u64,
    /// After about so many milliseconds a connection is ended (GOAWAY), so that clients come to know new replicas.
    pub connection_age_max_ms: u64,
    /// Then its calls have so many milliseconds to finish.
    pub connection_age_grace_ms: u64,
    /// A client that has no call, and has been told that its connection ends, has so many milliseconds to answer: what it has just sent is
    /// on its way.
    pub goodbye_timeout_ms: u64,
    /// A connection without a call for so many milliseconds, or at most twice as long, is ended.
    pub connection_idle_max_ms: u64,
    /// Streams (calls) that one connection may have open at a time.
    pub streams_per_connection_max: u32,
    /// Bytes of one stream that a peer may send before they are read.
    pub stream_window_bytes: u32,
    /// Bytes of all streams of a connection that a peer may send before they are read. Half of it bounds what small frames cost beyond their
    /// bytes (about 1 KiB each until they are read): too small, and a client that streams small messages fast is cut off.
    pub connection_window_bytes: u32,
    /// Bytes of headers that one request may have.
    pub header_bytes_max: u32,
    /// Bytes of one stream that we make before the peer reads; a message that is begun is made to its end.
    pub send_buffer_bytes_max: usize,
    /// Bytes of answers that one connection may leave unread; more end it.
    pub unread_bytes_max: usize,
    /// Bytes of answers that all connections may leave unread; past that, those end that leave more than 64 KiB.
    pub unread_bytes_total_max: usize,
    /// Streams that a peer may open and reset before they are accepted; more end the connection.
    pub pending_resets_max: usize,
    /// Streams that we may have to reset because of what the peer sends; more end the connection.
    pub local_resets_max: usize,
    /// Frames that a peer may send within a second and that serve no call, as PING and SETTINGS; more end the connection.
    pub control_frames_per_second_max: u64,
    /// A connection without traffic is asked for a sign of life after so many milliseconds.
    pub keepalive_interval_ms: u64,
    /// And closed if none comes within so many.
    pub keepalive_timeout_ms: u64,
    /// Origins whose pages may call by gRPC-Web, as `https://shop.example`; `*`: all.
    pub allowed_origins: Vec<String>,
    /// At the end, calls in flight have so many milliseconds to finish.
    pub drain_timeout_ms: u64,
    /// Its certificate, and those of its clients.
    pub tls: ServerTls,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            plaintext: false,
            proxy_protocol: ProxyProtocol::None,
            connections_max: 8_192,
            connections_per_peer_max: 1_024,
            handshake_timeout_ms: 10_000,
            header_read_timeout_ms: 10_000,
            connection_age_max_ms: 30 * 60_000,
            connection_age_grace_ms: 5 * 60_000,
            goodbye_timeout_ms: 2_000,
            connection_idle_max_ms: 10 * 60_000,
            streams_per_connection_max: 1_024,
            stream_window_bytes: 65_535,
            connection_window_bytes: 16 * 1_024 * 1_024,
            header_bytes_max: 8 * 1_024,
            send_buffer_bytes_max: 256 * 1_024,
            unread_bytes_max: 16 * 1_024 * 1_024,
            unread_bytes_total_max: 256 * 1_024 * 1_024,
            pending_resets_max: 64,
            local_resets_max: 1_024,
            control_frames_per_second_max: 1_000,
            keepalive_interval_ms: 30_000,
            keepalive_timeout_ms: 10_000,
            allowed_origins: Vec::new(),
            drain_timeout_ms: 10_000,
            tls: ServerTls::default(),
        }
    }
}

/// The server's certificate, and what it asks of its clients'. Without a certificate it speaks plaintext.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerTls {
    /// A PEM file with the certificate and those between it and its authority; empty: no TLS.
    pub certificate_file: PathBuf,
    /// A PEM file with the certificate's private key.
    pub key_file: PathBuf,
    /// A PEM file with the authorities of the clients' certificates.
    pub client_ca_file: PathBuf,
    /// Whether clients show a certificate: none | optional | required.
    pub client_certificate: ClientCertificate,
    /// Every so many milliseconds it is seen whether the files have changed.
    pub reload_interval_ms: u64,
}

impl Default for ServerTls {
    fn default() -> Self {
        Self {
            certificate_file: PathBuf::new(),
            key_file: PathBuf::new(),
            client_ca_file: PathBuf::new(),
            client_certificate: ClientCertificate::None,
            reload_interval_ms: 10_000,
        }
    }
}

/// Whether a connection begins with a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocol {
    /// It does not: one that begins so is not understood.
    None,
    /// It may: those of the balancer do, those of other services on the same network do not.
    Optional,
    /// Without one nobody is let in.
    Required,
}

/// Whether a client shows a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificate {
    /// It is not asked for one.
    None,
    /// It is asked; what it shows must be good.
    Optional,
    /// Without one it is not let in.
    Required,
}

impl ServerConfig {
    /// Notes what cannot be; `at` is where the settings stand.
    pub fn validate(&self, at: &str, problems: &mut Vec<String>) {
        let positive = [
            ("connections_max", self.connections_max as u64),
            ("connections_per_peer_max", self.connections_per_peer_max as u64),
            ("streams_per_connection_max", self.streams_per_connection_max.into()),
            ("stream_window_bytes", self.stream_window_bytes.into()),
            ("connection_window_bytes", self.connection_window_bytes.into()),
            ("header_bytes_max", self.header_bytes_max.into()),
            ("send_buffer_bytes_max", self.send_buffer_bytes_max as u64),
            ("unread_bytes_max", self.unread_bytes_max as u64),
            ("unread_bytes_total_max", self.unread_bytes_total_max as u64),
            ("pending_resets_max", self.pending_resets_max as u64),
            ("local_resets_max", self.local_resets_max as u64),
            ("control_frames_per_second_max", self.control_frames_per_second_max),
            ("keepalive_interval_ms", self.keepalive_interval_ms),
            ("keepalive_timeout_ms", self.keepalive_timeout_ms),
        ];
        check_bounds(problems, at, 1..=i32::MAX as u64, &positive);
        let times = [
            ("handshake_timeout_ms", self.handshake_timeout_ms),
            ("header_read_timeout_ms", self.header_read_timeout_ms),
            ("connection_age_max_ms", self.connection_age_max_ms),
            ("connection_age_grace_ms", self.connection_age_grace_ms),
            ("connection_idle_max_ms", self.connection_idle_max_ms),
            ("goodbye_timeout_ms", self.goodbye_timeout_ms),
        ];
        check_bounds(problems, at, 1..=MS_MAX, &times);
        check_bounds(problems, at, 0..=DRAIN_TIMEOUT_MS_MAX, &[("drain_timeout_ms", self.drain_timeout_ms)]);
        if let Err(error) = cors(&self.allowed_origins) {
            problems.push(format!("{at}.allowed_origins: {error}"));
        }
        self.tls.validate(&format!("{at}.tls"), problems);
        if self.plaintext && self.tls.is_on() {
            problems.push(format!("{at}.plaintext and {at}.tls exclude each other"));
        }
        if !self.plaintext && !self.tls.is_on() && !self.listen.ip().to_canonical().is_loopback() {
            problems.push(format!(
                "{at}.listen: beyond the loopback it needs a certificate ({at}.tls.certificate_file), or {at}.plaintext = true"
            ));
        }
    }

    /// The defaults, listening on this port of the loopback.
    pub fn on_port(port: u16) -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], port)), ..Self::default() }
    }
}

impl ServerTls {
    /// There is a certificate.
    pub fn is_on(&self) -> bool {
        !self.certificate_file.as_os_str().is_empty()
    }

    fn validate(&self, at: &str, problems: &mut Vec<String>) {
        check_bounds(problems, at, RELOAD_INTERVAL_MS_MIN..=MS_MAX, &[("reload_interval_ms", self.reload_interval_ms)]);
        let (key, client_ca) = (!self.key_file.as_os_str().is_empty(), !self.client_ca_file.as_os_str().is_empty());
        if self.is_on() != key {
            problems.push(format!("{at}.certificate_file and {at}.key_file need each other"));
        }
        // Authorities that nothing is checked against are a mistake that nobody would see.
        if client_ca != (self.client_certificate != ClientCertificate::None) {
            problems.push(format!("{at}.client_ca_file and {at}.client_certificate need each other"));
        }
        if client_ca && !self.is_on() {
            problems.push(format!("{at}.client_ca_file needs {at}.certificate_file"));
        }
    }
}

/// An orchestrator that waits longer than an hour has been forgotten.
pub(crate) const DRAIN_TIMEOUT_MS_MAX: u64 = 3_600_000;
/// Files are read each time.
const RELOAD_INTERVAL_MS_MIN: u64 = 100;

#[cfg(test)]
mod tests {
    use super::ClientCertificate::{None, Optional, Required};
    use super::*;

    fn problems(amend: impl FnOnce(&mut ServerConfig)) -> Vec<String> {
        let mut config = ServerConfig::default();
        amend(&mut config);
        let mut problems = Vec::new();
        config.validate("server", &mut problems);
        problems
    }

    fn short<N: TryFrom<u64, Error: std::fmt::Debug>>(number: u64) -> N {
        number.try_into().unwrap()
    }

    #[track_caller]
    fn assert_one(problems: &[String], part: &str) {
        assert!(problems.len() == 1 && problems[0].contains(part), "{part}: {problems:?}");
    }

    #[test]
    fn each_number_has_bounds_and_both_can_be_set() {
        type Set = fn(&mut ServerConfig, u64);
        let hour = 3_600_000;
        let int = i32::MAX as u64;
        let table: [(&str, u64, u64, Set); 22] = [
            ("server.streams_per_connection_max", 1, int, |c, n| c.streams_per_connection_max = short(n)),
            ("server.stream_window_bytes", 1, int, |c, n| c.stream_window_bytes = short(n)),
            ("server.connection_window_bytes", 1, int, |c, n| c.connection_window_bytes = short(n)),
            ("server.header_bytes_max", 1, int, |c, n| c.header_bytes_max = short(n)),
            ("server.pending_resets_max", 1, int, |c, n| c.pending_resets_max = short(n)),
            ("server.connections_max", 1, int, |c, n| c.connections_max = short(n)),
            ("server.connections_per_peer_max", 1, int, |c, n| c.connections_per_peer_max = short(n)),
            ("server.send_buffer_bytes_max", 1, int, |c, n| c.send_buffer_bytes_max = short(n)),
            ("server.unread_bytes_max", 1, int, |c, n| c.unread_bytes_max = short(n)),
            ("server.unread_bytes_total_max", 1, int, |c, n| c.unread_bytes_total_max = short(n)),
            ("server.local_resets_max", 1, int, |c, n| c.local_resets_max = short(n)),
            ("server.control_frames_per_second_max", 1, int, |c, n| c.control_frames_per_second_max = n),
            ("server.handshake_timeout_ms", 1, MS_MAX, |c, n| c.handshake_timeout_ms = n),
            ("server.header_read_timeout_ms", 1, MS_MAX, |c, n| c.header_read_timeout_ms = n),
            ("server.connection_age_max_ms", 1, MS_MAX, |c, n| c.connection_age_max_ms = n),
            ("server.connection_age_grace_ms", 1, MS_MAX, |c, n| c.connection_age_grace_ms = n),
            ("server.connection_idle_max_ms", 1, MS_MAX, |c, n| c.connection_idle_max_ms = n),
            ("server.goodbye_timeout_ms", 1, MS_MAX, |c, n| c.goodbye_timeout_ms = n),
            ("server.keepalive_interval_ms", 1, int, |c, n| c.keepalive_interval_ms = n),
            ("server.keepalive_timeout_ms", 1, int, |c, n| c.keepalive_timeout_ms = n),
            ("server.drain_timeout_ms", 0, hour, |c, n| c.drain_timeout_ms = n),
            ("server.tls.reload_interval_ms", 100, MS_MAX, |c, n| c.tls.reload_interval_ms = n),
        ];
        for (name, min, max, set) in table {
            for good in [min, max] {
                assert_eq!(problems(|config| set(config, good)), Vec::<String>::new(), "{name} = {good}");
            }
            for bad in min.checked_sub(1).into_iter().chain([max + 1]) {
                assert_one(&problems(|config| set(config, bad)), &format!("{name} must be {min} to {max}"));
            }
        }
    }

    #[test]
    fn plaintext_beyond_the_loopback_must_be_asked_for() {
        for inside in ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(problems(|config| config.listen = inside.parse().unwrap()), Vec::<String>::new(), "{inside}");
        }
        for beyond in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
            let listen = |config: &mut ServerConfig| config.listen = beyond.parse().unwrap();
            assert_one(&problems(listen), "server.plaintext = true");
            let asked = |config: &mut ServerConfig| (listen(config), config.plaintext = true).1;
            assert_eq!(problems(asked), Vec::<String>::new());
            let secured = |config: &mut ServerConfig| {
                listen(config);
                (config.tls.certificate_file, config.tls.key_file) = ("c.pem".into(), "k.pem".into());
            };
            assert_eq!(problems(secured), Vec::<String>::new());
            assert_one(&problems(|config| (secured(config), config.plaintext = true).1), "exclude each other");
        }
    }

    #[test]
    fn files_that_need_each_other_are_named() {
        let tls = |certificate: &str, key: &str, client_ca: &str, client_certificate| {
            problems(|config| {
                config.tls.certificate_file = certificate.into();
                config.tls.key_file = key.into();
                config.tls.client_ca_file = client_ca.into();
                config.tls.client_certificate = client_certificate;
            })
        };
        for (client_ca, client_certificate) in [("", None), ("ca", Optional), ("ca", Required)] {
            assert_eq!(tls("c", "k", client_ca, client_certificate), Vec::<String>::new());
        }
        for (certificate, key) in [("c", ""), ("", "k")] {
            assert_one(&tls(certificate, key, "", None), "key_file need each other");
        }
        for (client_ca, client_certificate) in [("ca", None), ("", Optional), ("", Required)] {
            assert_one(&tls("c", "k", client_ca, client_certificate), "client_certificate need each other");
        }
        assert_one(&tls("", "", "ca", Required), "client_ca_file needs");
    }
}
