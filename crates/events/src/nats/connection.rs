//! How NATS is connected: where, as whom, and again and again.

use std::path::Path;
use std::time::Duration;

use async_nats::{ConnectOptions, ServerAddr};

use crate::bus::BusError;
use crate::config::BusConfig;

/// The first pause after a connection was lost; it doubles up to the setting.
const RECONNECT_PAUSE_FIRST_MS: u64 = 20;

/// The options that the settings come to. It is tried for ever, from the first time on.
pub(super) fn options(config: &BusConfig) -> Result<ConnectOptions, BusError> {
    let mut options = ConnectOptions::new()
        .name("souk")
        .retry_on_initial_connect()
        .max_reconnects(None)
        .connection_timeout(Duration::from_millis(config.connect_timeout_ms))
        .request_timeout(Some(Duration::from_millis(config.publish_timeout_ms)))
        .ping_interval(Duration::from_millis(config.ping_interval_ms))
        .reconnect_delay_callback(pauses(config.reconnect_pause_max_ms));
    if !config.user.is_empty() {
        options = options.user_and_password(config.user.clone(), config.password.expose().to_owned());
    }
    if !config.token.is_empty() {
        options = options.token(config.token.expose().to_owned());
    }
    if is_set(&config.credentials_file) {
        options = options
            .credentials(&read(&config.credentials_file)?)
            .map_err(|error| settings(&config.credentials_file, &error))?;
    }
    Ok(with_tls(options, config))
}

fn with_tls(options: ConnectOptions, config: &BusConfig) -> ConnectOptions {
    let tls = &config.tls;
    let mut options = options.require_tls(tls.required);
    if is_set(&tls.ca_file) {
        options = options.add_root_certificates(tls.ca_file.clone());
    }
    if is_set(&tls.certificate_file) {
        options = options.add_client_certificate(tls.certificate_file.clone(), tls.key_file.clone());
    }
    options
}

/// The servers' addresses.
pub(super) fn addresses(config: &BusConfig) -> Result<Vec<ServerAddr>, BusError> {
    let parsed = config.servers().into_iter().map(|server| server.parse::<ServerAddr>());
    parsed.collect::<Result<_, _>>().map_err(|error| BusError::Settings(error.into()))
}

fn pauses(most_ms: u64) -> impl Fn(usize) -> Duration + Send + Sync + 'static {
    move |tries| {
        let doublings = u32::try_from(tries.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
        Duration::from_millis((RECONNECT_PAUSE_FIRST_MS << doublings).min(most_ms))
    }
}

fn is_set(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

fn read(path: &Path) -> Result<String, BusError> {
    std::fs::read_to_string(path).map_err(|error| settings(path, &error))
}

fn settings(path: &Path, error: &std::io::Error) -> BusError {
    BusError::Settings(std::io::Error::new(error.kind(), format!("{}: {error}", path.display())).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_little_to_the_longest() {
        let pause = pauses(1_000);
        let tries = [0, 1, 2, 3, 10, usize::MAX].map(|tries| pause(tries).as_millis());
        assert_eq!(tries, [20, 20, 40, 80, 1_000, 1_000]);
    }

    #[test]
    fn a_credentials_file_that_cannot_be_read_is_named() {
        let config = BusConfig { credentials_file: "/no/such.creds".into(), ..BusConfig::at("nats://x") };
        let error = options(&config).unwrap_err();
        assert!(souk_runtime::story(&error).contains("/no/such.creds"), "{error}");
    }
}
