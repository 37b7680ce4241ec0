//! What a container without a shell asks itself.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::either::Either;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::config::{ClientCertificate, ProxyProtocol, ServerConfig, ServerTls};
use crate::tls;

/// Asks the server that listens as `config` says for its gRPC health; an error says why it does not serve. How long that may take is the
/// caller's business.
///
/// Over TLS it trusts whoever listens there: what is asked is whether it serves, and a certificate that was just replaced, or cannot be
/// used, is no reason to end a process that does. Where clients must show a certificate it shows the configured one, which so must be one
/// for clients too, of an authority in `client_ca_file`.
pub async fn healthcheck(config: &ServerConfig) -> anyhow::Result<()> {
    let address = reached(config.listen);
    let connector = if config.tls.is_on() { Some(connector(&config.tls).await?) } else { None };
    let behind_proxy = config.proxy_protocol != ProxyProtocol::None;
    let dialled = tower::service_fn(move |_| dial(address, connector.clone(), behind_proxy));
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(dialled).await?;
    let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await?;
    let status = answer.into_inner().status();
    anyhow::ensure!(status == ServingStatus::Serving, "it says {}", status.as_str_name());
    Ok(())
}

/// Who listens on every address listens on the loopback.
fn reached(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

type Stream = Either<TcpStream, tokio_rustls::client::TlsStream<TcpStream>>;

async fn dial(address: SocketAddr, tls: Option<TlsConnector>, behind_proxy: bool) -> io::Result<TokioIo<Stream>> {
    let mut socket = TcpStream::connect(address).await?;
    if behind_proxy {
        socket.write_all(b"PROXY UNKNOWN\r\n").await?; // nobody's connection but the machine's own
    }
    let stream = match tls {
        Some(tls) => Either::Right(tls.connect(ServerName::IpAddress(address.ip().into()), socket).await?),
        None => Either::Left(socket),
    };
    Ok(TokioIo::new(stream))
}

async fn connector(config: &ServerTls) -> anyhow::Result<TlsConnector> {
    let read = async |path: &std::path::Path| {
        tokio::fs::read(path).await.with_context(|| format!("{} cannot be read", path.display()))
    };
    let provider = tls::provider();
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Whoever(provider)));
    let mut client = if config.client_certificate == ClientCertificate::Required {
        let chain = tls::certificates(&read(&config.certificate_file).await?)?;
        builder.with_client_auth_cert(chain, tls::private_key(&read(&config.key_file).await?)?)?
    } else {
        builder.with_no_client_auth()
    };
    client.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(client)))
}

/// Trusts every certificate; whoever shows it must have its key.
#[derive(Debug)]
struct Whoever(Arc<CryptoProvider>);

impl ServerCertVerifier for Whoever {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_reached_over_the_loopback() {
        for (listen, expected) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "[::1]:1"),
            ("10.0.0.1:1", "10.0.0.1:1"),
            ("[fd::1]:1", "[fd::1]:1"),
        ] {
            assert_eq!(reached(listen.parse().unwrap()), expected.parse().unwrap());
        }
    }
}
