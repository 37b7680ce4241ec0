//! TLS of a server: its certificate, those of its clients, and both anew when the files change.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tracing::debug;

use super::config::{ClientCertificate, ServerTls};
use super::metrics::Refused;
use super::replay::Replay;
use crate::kernel::Kernel;
use crate::tls::{self, Files};

/// What HTTP is spoken over: plaintext, or TLS.
pub(super) type Transport = Either<Replay<TcpStream>, Box<TlsStream<Replay<TcpStream>>>>;

/// The settings of TLS as they are now.
#[derive(Debug)]
pub(super) struct Tls(watch::Receiver<Arc<rustls::ServerConfig>>);

impl Tls {
    /// `None`, if there is to be none. From now on changes of the files are seen.
    pub(super) fn new(kernel: &Kernel, name: &str, config: &ServerTls) -> anyhow::Result<Option<Self>> {
        if !config.is_on() {
            return Ok(None);
        }
        let mut paths = vec![config.certificate_file.clone(), config.key_file.clone()];
        if config.client_certificate != ClientCertificate::None {
            paths.push(config.client_ca_file.clone());
        }
        let files =
            Files { name: format!("{name} server"), paths, interval: Duration::from_millis(config.reload_interval_ms) };
        let client_certificate = config.client_certificate;
        tls::watched(kernel, files, move |contents| load(client_certificate, contents)).map(Self).map(Some)
    }

    /// The handshake.
    pub(super) async fn accept(&self, socket: Replay<TcpStream>) -> Result<Transport, Refused> {
        let config = self.0.borrow().clone();
        let stream = TlsAcceptor::from(config).accept(socket).await.map_err(|error| refused(&error))?;
        Ok(Either::Right(Box::new(stream)))
    }
}

fn refused(error: &io::Error) -> Refused {
    debug!(%error, "tls handshake failed");
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Refused::Gone,
        _ => Refused::Tls,
    }
}

fn load(
    client_certificate: ClientCertificate,
    contents: &[&[u8]],
) -> anyhow::Result<(rustls::ServerConfig, DateTime<Utc>)> {
    let (chain, key) = (tls::certificates(contents[0])?, tls::private_key(contents[1])?);
    let expiry = tls::expiry(&chain)?;
    let provider = tls::provider();
    let builder =
        rustls::ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let verifier = |contents: &[u8]| {
        anyhow::Ok(WebPkiClientVerifier::builder_with_provider(tls::authorities(contents)?.into(), provider))
    };
    let builder = match client_certificate {
        ClientCertificate::None => builder.with_no_client_auth(),
        ClientCertificate::Optional => {
            builder.with_client_cert_verifier(verifier(contents[2])?.allow_unauthenticated().build()?)
        }
        ClientCertificate::Required => builder.with_client_cert_verifier(verifier(contents[2])?.build()?),
    };
    let mut config = builder.with_single_cert(chain, key)?; // and they must belong together
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((config, expiry))
}
