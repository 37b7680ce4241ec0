//! Certificates and keys from PEM files, and seeing when the files change: for servers and for clients.
//!
//! Never: anything but ring, and whatever rustls holds safe by default (TLS 1.2 and 1.3).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use chrono::{DateTime, Utc};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use tracing::{info, warn};
use x509_parser::parse_x509_certificate;

use crate::kernel::Kernel;
use crate::story::story;

/// What TLS is reckoned with.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The certificates of a PEM text, in their order: one at least.
pub fn certificates(pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>()?;
    ensure!(!certificates.is_empty(), "there is no certificate in it");
    Ok(certificates)
}

/// The private key of a PEM text.
pub fn private_key(pem: &[u8]) -> anyhow::Result<PrivateKeyDer<'static>> {
    Ok(PrivateKeyDer::from_pem_slice(pem)?)
}

/// The certificates of a PEM text, as authorities: one at least.
pub fn authorities(pem: &[u8]) -> anyhow::Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(pem)? {
        store.add(certificate)?;
    }
    Ok(store)
}

/// When the first of `certificates` that ends ends.
pub fn expiry(certificates: &[CertificateDer<'_>]) -> anyhow::Result<DateTime<Utc>> {
    let mut first = DateTime::<Utc>::MAX_UTC;
    for certificate in certificates {
        let (_, certificate) = parse_x509_certificate(certificate)?;
        let end = DateTime::from_timestamp(certificate.validity().not_after.timestamp(), 0);
        first = first.min(end.unwrap_or(DateTime::<Utc>::MAX_UTC));
    }
    Ok(first)
}

/// Files that something is made of.
#[derive(Clone, Debug)]
pub struct Files {
    /// What is made, as metrics and logs name it: `order server`.
    pub name: String,
    /// Where they are. Each is read whole.
    pub paths: Vec<PathBuf>,
    /// So often it is seen whether they have changed.
    pub interval: Duration,
}

/// What `load` makes of the contents of `files`, in the order of their paths: now, and again whenever one of them has changed, until the
/// process ends. Where they cannot be used, an error now; later, what was made before stays, and the log and `tls_files_unusable` say so.
/// `load` says with what it makes when the first of its certificates ends, which stands in `tls_certificate_expiry_timestamp_seconds`.
pub fn watched<T: Send + Sync + 'static>(
    kernel: &Kernel,
    files: Files,
    load: impl Fn(&[&[u8]]) -> anyhow::Result<(T, DateTime<Utc>)> + Send + 'static,
) -> anyhow::Result<watch::Receiver<Arc<T>>> {
    let metrics = Metrics::new(kernel, &files.name);
    // Before anything is served there is nothing that reading could hold up.
    let contents = files.paths.iter().map(|path| Content::of(std::fs::read(path))).collect::<Vec<_>>();
    let (made, expiry) = make(&files, &contents, kernel.clock.now(), &load)?;
    metrics.expiry.set(expiry.timestamp());
    let (sender, receiver) = watch::channel(Arc::new(made));
    let clock = kernel.clock.clone();
    let watching = async move {
        let mut seen = contents;
        loop {
            clock.sleep(files.interval).await;
            let contents = read(&files.paths).await;
            if contents == seen {
                continue;
            }
            match make(&files, &contents, clock.now(), &load) {
                Ok((made, expiry)) => {
                    sender.send_replace(Arc::new(made));
                    metrics.reloads.inc();
                    metrics.unusable.set(0);
                    metrics.expiry.set(expiry.timestamp());
                    info!(of = files.name, %expiry, "certificates taken up");
                }
                Err(error) => {
                    metrics.unusable.set(1);
                    warn!(
                        of = files.name,
                        error = story(&*error),
                        "new certificates cannot be used: the old ones stay"
                    );
                }
            }
            seen = contents;
        }
    };
    kernel.tasks.spawn_until_shutdown("certificates", watching);
    Ok(receiver)
}

/// A file, or why it cannot be read: in a form that can be compared.
#[derive(PartialEq, Eq)]
enum Content {
    Bytes(Vec<u8>),
    Missing(io::ErrorKind),
}

impl Content {
    fn of(read: io::Result<Vec<u8>>) -> Self {
        read.map_or_else(|error| Self::Missing(error.kind()), Self::Bytes)
    }
}

async fn read(paths: &[PathBuf]) -> Vec<Content> {
    let mut contents = Vec::with_capacity(paths.len());
    for path in paths {
        contents.push(Content::of(tokio::fs::read(path).await));
    }
    contents
}

fn make<T>(
    files: &Files,
    contents: &[Content],
    now: DateTime<Utc>,
    load: impl Fn(&[&[u8]]) -> anyhow::Result<(T, DateTime<Utc>)>,
) -> anyhow::Result<(T, DateTime<Utc>)> {
    let mut read = Vec::with_capacity(contents.len());
    for (path, content) in files.paths.iter().zip(contents) {
        match content {
            Content::Bytes(bytes) => read.push(bytes.as_slice()),
            Content::Missing(why) => bail!("{} cannot be read: {why}", path.display()),
        }
    }
    let paths = || files.paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    let (made, expiry) = load(&read).with_context(|| format!("{} cannot be used for the {}", paths(), files.name))?;
    ensure!(now < expiry, "{} cannot be used for the {}: a certificate has ended at {expiry}", paths(), files.name);
    Ok((made, expiry))
}

struct Metrics {
    expiry: Gauge,
    reloads: Counter,
    unusable: Gauge,
}

impl Metrics {
    fn new(kernel: &Kernel, name: &str) -> Self {
        let of = [("of", name.to_owned())];
        let gauge = |name, help| kernel.metrics.register_labelled(name, help, &of);
        let reloads = "Times that changed certificates were taken up";
        Self {
            expiry: gauge("tls_certificate_expiry_timestamp_seconds", "When the first certificate in use ends"),
            reloads: kernel.metrics.register_labelled("tls_reloads", reloads, &of),
            unusable: gauge("tls_files_unusable", "1 while the files that lie there cannot be used"),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn certificates_end_with_the_first_of_them() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["order".to_owned()]).unwrap();
        params.not_after = date_time_ymd(2031, 2, 3);
        let pem = params.self_signed(&key).unwrap().pem();
        params.not_after = date_time_ymd(2030, 2, 3);
        let both = certificates((pem + &params.self_signed(&key).unwrap().pem()).as_bytes()).unwrap();
        assert_eq!(expiry(&both[..1]).unwrap().to_rfc3339(), "2031-02-03T00:00:00+00:00");
        assert_eq!(expiry(&both).unwrap().to_rfc3339(), "2030-02-03T00:00:00+00:00");
    }

    #[test]
    fn what_is_no_certificate_and_no_key_is_an_error() {
        let key = KeyPair::generate().unwrap().serialize_pem();
        for bad in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAA\n", &key] {
            assert!(certificates(bad.as_bytes()).is_err(), "{bad}");
            assert!(authorities(bad.as_bytes()).is_err(), "{bad}");
        }
        private_key(key.as_bytes()).unwrap();
        assert!(private_key(b"").is_err());
        assert!(expiry(&[CertificateDer::from(vec![1, 2, 3])]).is_err());
    }
}
