//! TLS towards a peer: whom we trust, and what we prove ourselves with; both are taken up when their files change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, Utc};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use souk_runtime::Kernel;
use souk_runtime::tls::{self, Files};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use super::config::ClientTls;
use super::target::Target;

/// What new connections are made with.
pub(super) struct Tls {
    server_name: String,
    current: watch::Receiver<Arc<TlsConnector>>,
}

impl Tls {
    /// Reads the files, and watches them from now on.
    pub(super) fn load(kernel: &Kernel, peer: &str, settings: &ClientTls) -> anyhow::Result<Self> {
        let identity = [&settings.certificate_file, &settings.key_file];
        let identity = identity.into_iter().filter(|file| !file.as_os_str().is_empty());
        let files = Files {
            name: format!("{peer} client"),
            paths: std::iter::once(&settings.ca_file).chain(identity).map(PathBuf::clone).collect(),
            interval: Duration::from_millis(settings.reload_interval_ms),
        };
        Ok(Self { server_name: settings.server_name.clone(), current: tls::watched(kernel, files, connector)? })
    }

    pub(super) fn connector(&self) -> Arc<TlsConnector> {
        self.current.borrow().clone()
    }

    /// The name that the certificate of `target` must have.
    pub(super) fn server_name(&self, target: &Target) -> anyhow::Result<ServerName<'static>> {
        let name = if self.server_name.is_empty() { &target.host } else { &self.server_name };
        ServerName::try_from(name.clone()).with_context(|| format!("{name} is no name that a server can have"))
    }
}

/// Of the authorities; and our certificate and key, if we have them. And when the first certificate of all ends.
fn connector(files: &[&[u8]]) -> anyhow::Result<(TlsConnector, DateTime<Utc>)> {
    let (ca, identity) = files.split_first().context("there are no authorities")?;
    let builder = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(tls::authorities(ca)?);
    let mut certificates = tls::certificates(ca)?;
    let mut config = match identity {
        [certificate, key] => {
            let chain = tls::certificates(certificate)?;
            certificates.extend(chain.iter().cloned());
            builder.with_client_auth_cert(chain, tls::private_key(key)?)?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok((TlsConnector::from(Arc::new(config)), tls::expiry(&certificates)?))
}
