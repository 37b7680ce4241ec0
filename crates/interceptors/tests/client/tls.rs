//! TLS towards a peer: who is trusted, by which name, what we prove ourselves with, and all of it replaced in the middle of calls.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use chrono::{DateTime, Datelike, TimeDelta, Utc};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use souk_interceptors::client::ClientConfig;
use souk_runtime::Clock;
use souk_runtime::server::bind;
use souk_testkit::eventually;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::probe::{self, ADD, READ, message};
use crate::replica::{Client, Name, at, counting, service};

/// Who signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
struct Signed {
    certificate: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn sign(&self, name: &str) -> Signed {
        self.sign_until(name, Clock::system().now() + TimeDelta::days(3_650))
    }

    fn sign_until(&self, name: &str, end: DateTime<Utc>) -> Signed {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after =
            date_time_ymd(end.year(), u8::try_from(end.month()).unwrap(), u8::try_from(end.day()).unwrap());
        let key = KeyPair::generate().unwrap();
        Signed { certificate: params.signed_by(&key, &self.0).unwrap().pem(), key: key.serialize_pem() }
    }
}

/// A server under TLS.
struct Secure {
    address: SocketAddr,
    served: Arc<AtomicUsize>,
    health: HealthReporter,
    end: CancellationToken,
    serving: JoinHandle<()>,
}

impl Secure {
    async fn start(address: SocketAddr, signed: &Signed, clients_of: Option<&str>) -> Self {
        let served = Arc::<AtomicUsize>::default();
        let (service, health) = service(counting(served.clone(), |_| Ok(Bytes::new()))).await;
        let listener = bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tls = ServerTlsConfig::new().identity(Identity::from_pem(&signed.certificate, &signed.key));
        if let Some(ca) = clients_of {
            tls = tls.client_ca_root(Certificate::from_pem(ca));
        }
        let end = CancellationToken::new();
        let serving = Server::builder().tls_config(tls).unwrap().serve_with_incoming_shutdown(
            service,
            TcpListenerStream::new(listener),
            end.clone().cancelled_owned(),
        );
        let serving = tokio::spawn(async move { serving.await.unwrap() });
        Self { address, served, health, end, serving }
    }

    async fn stop(mut self) {
        self.health.set_service_status("", ServingStatus::NotServing).await;
        self.health.clear_service_status("").await;
        self.end.cancel();
        self.serving.await.unwrap();
    }
}

/// The client's files.
struct Files(TempDir);

impl Files {
    fn new(ca: &str) -> Self {
        let files = Self(TempDir::with_prefix("souk-tls-").unwrap());
        files.put("ca.pem", ca);
        files
    }

    fn put(&self, name: &str, pem: &str) {
        // As a careful operator does: nobody reads half of it.
        std::fs::write(self.0.path().join("new"), pem).unwrap();
        std::fs::rename(self.0.path().join("new"), self.0.path().join(name)).unwrap();
    }

    fn put_identity(&self, signed: &Signed) {
        self.put("client.pem", &signed.certificate);
        self.put("client.key", &signed.key);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A client of `replicas`, which are at `addresses`.
    fn client(&self, addresses: &[SocketAddr], amend: impl FnOnce(&mut ClientConfig)) -> Client {
        Name::of(addresses.iter().copied()).client(|config| {
            config.addresses = vec!["https://replicas:1".to_owned()];
            config.tls.ca_file = self.path("ca.pem");
            config.tries_max = 1;
            amend(config);
        })
    }

    fn prove(&self, config: &mut ClientConfig) {
        config.tls.certificate_file = self.path("client.pem");
        config.tls.key_file = self.path("client.key");
    }
}

fn anywhere() -> SocketAddr {
    at(0, 0)
}

async fn is_refused(client: &Client, server: &Secure) {
    let status = probe::call(client.channel.clone(), READ, message()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(server.served.load(Ordering::Relaxed), 0);
}

async fn is_answered(client: &Client) {
    probe::call(client.channel.clone(), READ, message()).await.unwrap();
}

#[tokio::test]
async fn a_server_must_have_the_name_of_the_address_and_whoever_signs_must_be_trusted() {
    let (trusted, other) = (Authority::new("trusted"), Authority::new("other"));
    let files = Files::new(&trusted.pem());
    let server = Secure::start(anywhere(), &trusted.sign("replicas"), None).await;
    is_answered(&files.client(&[server.address], |_| ())).await;
    let expired = trusted.sign_until("replicas", Clock::system().now() - TimeDelta::days(2));
    for bad in [other.sign("replicas"), trusted.sign("elsewhere"), expired] {
        let server = Secure::start(anywhere(), &bad, None).await;
        is_refused(&files.client(&[server.address], |_| ()), &server).await;
    }
}

#[tokio::test]
async fn another_name_can_be_asked_for() {
    let trusted = Authority::new("trusted");
    let files = Files::new(&trusted.pem());
    let named = |name: &str| {
        let name = name.to_owned();
        move |config: &mut ClientConfig| config.tls.server_name = name
    };
    let server = Secure::start(anywhere(), &trusted.sign("elsewhere"), None).await;
    is_refused(&files.client(&[server.address], named("nowhere")), &server).await;
    is_answered(&files.client(&[server.address], named("elsewhere"))).await;
}

#[tokio::test]
async fn an_address_without_a_name_is_its_own() {
    let trusted = Authority::new("trusted");
    let files = Files::new(&trusted.pem());
    let server = Secure::start(anywhere(), &trusted.sign("127.0.0.1"), None).await;
    let to_ip = |config: &mut ClientConfig| config.addresses = vec![format!("https://{}", server.address)];
    is_answered(&files.client(&[], to_ip)).await;
    is_refused_by_name(&files, &trusted).await;
}

async fn is_refused_by_name(files: &Files, trusted: &Authority) {
    let server = Secure::start(anywhere(), &trusted.sign("127.0.0.2"), None).await;
    let to_ip = |config: &mut ClientConfig| config.addresses = vec![format!("https://{}", server.address)];
    is_refused(&files.client(&[], to_ip), &server).await;
}

#[tokio::test]
async fn where_the_server_asks_for_a_certificate_we_have_one() {
    let trusted = Authority::new("trusted");
    let files = Files::new(&trusted.pem());
    let server = Secure::start(anywhere(), &trusted.sign("replicas"), Some(&trusted.pem())).await;
    is_refused(&files.client(&[server.address], |_| ()), &server).await;
    files.put_identity(&trusted.sign("client"));
    is_answered(&files.client(&[server.address], |config| files.prove(config))).await;
}

#[tokio::test]
async fn files_that_cannot_be_used_are_an_error_at_the_start_and_later_change_nothing() {
    let trusted = Authority::new("trusted");
    let files = Files::new("no PEM");
    let config = ClientConfig { addresses: vec!["https://replicas:1".to_owned()], ..ClientConfig::default() };
    let kernel = crate::peer::kernel();
    for ca_file in [files.path("ca.pem"), files.path("missing.pem")] {
        let mut config = config.clone();
        config.tls.ca_file = ca_file.clone();
        let error = souk_interceptors::client::connect(&kernel, "peer", &config, &[], None).unwrap_err();
        assert!(format!("{error:#}").contains(ca_file.to_str().unwrap()), "{error:#}");
    }
    files.put("ca.pem", &trusted.pem());
    let server = Secure::start(anywhere(), &trusted.sign("replicas"), None).await;
    let client = files.client(&[server.address], |_| ());
    is_answered(&client).await;
    files.put("ca.pem", "no PEM");
    eventually("it is noticed", async || {
        client.later();
        client.has_unusable_files()
    })
    .await;
    let address = server.address;
    server.stop().await;
    let _again = Secure::start(address, &trusted.sign("replicas"), None).await;
    eventually("it is back", async || probe::call(client.channel.clone(), READ, message()).await.is_ok()).await;
}

#[tokio::test]
async fn authorities_and_certificates_are_replaced_and_no_call_fails() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let files = Files::new(&old.pem());
    files.put_identity(&old.sign("client"));
    let mut servers = vec![Secure::start(anywhere(), &old.sign("replicas"), Some(&old.pem())).await];
    servers.push(Secure::start(at(1, servers[0].address.port()), &old.sign("replicas"), Some(&old.pem())).await);
    let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
    let client = files.client(&addresses, |config| {
        config.tries_max = 4;
        files.prove(config);
    });
    eventually("both are well", async || client.healthy() == 2).await;
    let ended = Arc::new(AtomicBool::new(false));
    let (channel, is_ended) = (client.channel.clone(), ended.clone());
    let calling = tokio::spawn(async move {
        while !is_ended.load(Ordering::Relaxed) {
            probe::call(channel.clone(), ADD, message()).await.unwrap();
        }
    });
    // First all trust both, then all prove themselves by the new one.
    files.put("ca.pem", &format!("{}{}", old.pem(), new.pem()));
    files.put_identity(&new.sign("client"));
    for _ in 0..2 {
        let server = servers.remove(0);
        let address = server.address;
        server.stop().await;
        servers.push(Secure::start(address, &new.sign("replicas"), Some(&new.pem())).await);
        let calls = servers[1].served.clone();
        eventually("it is back under the new one", async || {
            client.later();
            calls.load(Ordering::Relaxed) > 0
        })
        .await;
    }
    ended.store(true, Ordering::Relaxed);
    calling.await.unwrap();
}
