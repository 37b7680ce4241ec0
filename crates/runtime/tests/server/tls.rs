//! TLS: who is let in, and certificates that change while the server serves.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use souk_runtime::server::{ClientCertificate, ProxyProtocol, ServerConfig, ServerTls, bind, healthcheck, serve};
use souk_runtime::{Clock, Kernel};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tonic::service::Routes;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::harness::{Server, eventually, is_well, rude, soon};

/// The name in the server's certificates.
const NAME: &str = "souk.test";

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    /// Its certificates end with this year.
    year: i32,
}

/// A certificate and its key, as PEM.
struct Signed {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem, year: 2040 }
    }

    fn sign(&self, name: &str) -> Signed {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(self.year, 12, 31);
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Signed { certificate, key: key.serialize_pem() }
    }
}

/// A folder with the server's files.
struct Files(TempDir);

impl Files {
    fn new(signed: &Signed, client_ca: &Authority) -> Self {
        let files = Self(TempDir::with_prefix("souk-").unwrap());
        files.put("certificate.pem", &signed.certificate);
        files.put("key.pem", &signed.key);
        files.put("client-ca.pem", &client_ca.pem);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// At once, as tools that renew certificates do.
    fn put(&self, name: &str, text: &str) {
        fs::write(self.path("new"), text).unwrap();
        fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    fn config(&self, client_certificate: ClientCertificate) -> ServerConfig {
        let client_ca_file = match client_certificate {
            ClientCertificate::None => PathBuf::new(),
            ClientCertificate::Optional | ClientCertificate::Required => self.path("client-ca.pem"),
        };
        let (certificate_file, key_file) = (self.path("certificate.pem"), self.path("key.pem"));
        let tls = ServerTls { certificate_file, key_file, client_ca_file, client_certificate, reload_interval_ms: 100 };
        ServerConfig { tls, ..ServerConfig::default() }
    }
}

/// A client that trusts these authorities, with a certificate of its own or without.
fn client(server: &Server, trusted: &[&Authority], own: Option<&Signed>) -> HealthClient<Channel> {
    let authorities = trusted.iter().map(|authority| Certificate::from_pem(&authority.pem));
    let mut tls = ClientTlsConfig::new().ca_certificates(authorities).domain_name(NAME);
    if let Some(own) = own {
        tls = tls.identity(Identity::from_pem(&own.certificate, &own.key));
    }
    let endpoint = Endpoint::from_shared(format!("https://{}", server.address)).unwrap();
    HealthClient::new(endpoint.tls_config(tls).unwrap().connect_lazy())
}

async fn is_refused(mut client: HealthClient<Channel>) {
    soon(client.check(HealthCheckRequest::default())).await.unwrap_err();
}

#[tokio::test]
async fn who_speaks_plaintext_and_who_trusts_another_authority_is_not_served() {
    let (ours, other) = (Authority::new(), Authority::new());
    let files = Files::new(&ours.sign(NAME), &ours);
    let server = Server::start(files.config(ClientCertificate::None)).await;
    let mut good = client(&server, &[&ours], None);
    is_well(&mut good).await;
    is_refused(server.client()).await;
    assert_eq!(server.refused("tls"), 1);
    is_refused(client(&server, &[&other], None)).await;
    eventually("it is counted", async || server.refused("tls") >= 2).await;
    is_well(&mut good).await;
}

#[tokio::test]
async fn half_a_handshake_is_closed() {
    let ours = Authority::new();
    let files = Files::new(&ours.sign(NAME), &ours);
    let config = ServerConfig { handshake_timeout_ms: 300, ..files.config(ClientCertificate::None) };
    let server = Server::start(config).await;
    // The header of a record of 512 bytes, and the beginning of a ClientHello.
    for said in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        socket.write_all(said).await.unwrap();
        rude::is_closed(socket).await;
    }
    assert_eq!(server.refused("timeout"), 2);
    is_well(&mut client(&server, &[&ours], None)).await;
}

#[tokio::test]
async fn a_client_shows_a_certificate_where_it_must_and_a_bad_one_is_refused_anywhere() {
    let (ours, clients, other) = (Authority::new(), Authority::new(), Authority::new());
    let files = Files::new(&ours.sign(NAME), &clients);
    let (good, bad) = (clients.sign("order"), other.sign("order"));
    for (asked, without) in [(ClientCertificate::Required, false), (ClientCertificate::Optional, true)] {
        let server = Server::start(files.config(asked)).await;
        is_well(&mut client(&server, &[&ours], Some(&good))).await;
        is_refused(client(&server, &[&ours], Some(&bad))).await;
        // The server's own authority is not one of clients.
        is_refused(client(&server, &[&ours], Some(&ours.sign("order")))).await;
        assert_eq!(client(&server, &[&ours], None).check(HealthCheckRequest::default()).await.is_ok(), without);
    }
    let server = Server::start(files.config(ClientCertificate::None)).await;
    is_well(&mut client(&server, &[&ours], None)).await;
}

#[tokio::test]
async fn a_certificate_is_replaced_while_the_server_serves_and_no_call_fails() {
    let (old, new) = (Authority::new(), Authority { year: 2041, ..Authority::new() });
    let files = Files::new(&old.sign(NAME), &old);
    let server = Arc::new(Server::start(files.config(ClientCertificate::None)).await);
    assert_eq!(server.count(EXPIRY), 2_240_524_800); // 2040-12-31
    let over = Arc::new(AtomicBool::new(false));
    let lasting = client(&server, &[&old, &new], None);
    let trusted = Arc::new((old, new));
    // 64 calls in flight: of half of the callers each call has a connection of its own.
    let callers: Vec<_> = (0..64)
        .map(|caller| {
            let (server, over, trusted, lasting) = (server.clone(), over.clone(), trusted.clone(), lasting.clone());
            tokio::spawn(async move {
                let mut calls = 0;
                while !over.load(Ordering::Relaxed) {
                    let (old, new) = &*trusted;
                    let of_its_own = || client(&server, &[old, new], None);
                    is_well(&mut if caller % 2 == 0 { lasting.clone() } else { of_its_own() }).await;
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    let (old, new) = &*trusted;
    is_refused(client(&server, &[new], None)).await;
    let signed = new.sign(NAME);
    // As it happens: first one file, then the other.
    files.put("key.pem", &signed.key);
    eventually("the half is seen", async || server.count(UNUSABLE) == 1).await;
    is_well(&mut client(&server, &[old], None)).await;
    files.put("certificate.pem", &signed.certificate);
    eventually("the new one is shown", async || {
        client(&server, &[new], None).check(HealthCheckRequest::default()).await.is_ok()
    })
    .await;
    is_refused(client(&server, &[old], None)).await;
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        assert!(soon(caller).await.unwrap() > 0);
    }
    assert_eq!((server.count(UNUSABLE), server.count(RELOADS)), (0, 1));
    assert_eq!(server.count(EXPIRY), 2_272_060_800); // 2041-12-31
}

const EXPIRY: &str = "tls_certificate_expiry_timestamp_seconds{of=\"test server\"}";
const UNUSABLE: &str = "tls_files_unusable{of=\"test server\"}";
const RELOADS: &str = "tls_reloads_total{of=\"test server\"}";

#[tokio::test]
async fn a_broken_replacement_changes_nothing() {
    let mut ours = Authority::new();
    let files = Files::new(&ours.sign(NAME), &ours);
    let server = Server::start(files.config(ClientCertificate::Required)).await;
    let (own, good) = (ours.sign("order"), ours.sign(NAME));
    ours.year = 2020;
    let ended = ours.sign(NAME);
    let is_served = async || is_well(&mut client(&server, &[&ours], Some(&own))).await;
    let breaks: [(&str, &str); 4] = [
        ("certificate.pem", "nonsense"),
        ("certificate.pem", &good.certificate),
        ("key.pem", ""),
        ("client-ca.pem", ""),
    ];
    for (file, text) in breaks {
        let before = fs::read_to_string(files.path(file)).unwrap();
        files.put(file, text);
        eventually("it is seen", async || server.count(UNUSABLE) == 1).await;
        is_served().await;
        files.put(file, &before);
        eventually("it is well again", async || server.count(UNUSABLE) == 0).await;
        is_served().await;
    }
    files.put("certificate.pem", &ended.certificate);
    files.put("key.pem", &ended.key);
    eventually("it is seen", async || server.count(UNUSABLE) == 1).await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await; // they belong together, and still are not taken
    assert_eq!(server.count(UNUSABLE), 1);
    is_served().await;
    fs::remove_file(files.path("key.pem")).unwrap();
    eventually("it is missed", async || server.count(UNUSABLE) == 1).await;
    is_served().await;
}

#[tokio::test]
async fn authorities_of_clients_are_replaced_too() {
    let (old, new) = (Authority::new(), Authority::new());
    let files = Files::new(&old.sign(NAME), &old);
    let server = Server::start(files.config(ClientCertificate::Required)).await;
    let own = new.sign("order");
    is_refused(client(&server, &[&old], Some(&own))).await;
    files.put("client-ca.pem", &new.pem);
    eventually("it is let in", async || {
        client(&server, &[&old], Some(&own)).check(HealthCheckRequest::default()).await.is_ok()
    })
    .await;
    is_refused(client(&server, &[&old], Some(&old.sign("order")))).await;
}

#[tokio::test]
async fn what_cannot_be_used_keeps_the_server_from_starting() {
    let ours = Authority::new();
    let signed = ours.sign(NAME);
    for (file, text) in [("certificate.pem", ""), ("key.pem", ours.sign(NAME).key.as_str()), ("client-ca.pem", "x")] {
        let files = Files::new(&signed, &ours);
        files.put(file, text);
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let kernel = Kernel::new(Clock::system());
        let config = files.config(ClientCertificate::Required);
        let error = serve(&kernel, "test", listener, &config, Routes::default().prepare()).unwrap_err();
        let story = format!("{error:#}");
        assert!(story.contains(file) && !story.contains("PRIVATE"), "{story}");
    }
}

#[tokio::test]
async fn a_server_is_asked_for_its_health_in_the_form_in_which_it_listens() {
    let ours = Authority::new();
    let files = Files::new(&ours.sign(NAME), &ours);
    for asked in [ClientCertificate::None, ClientCertificate::Optional, ClientCertificate::Required] {
        for proxy_protocol in [ProxyProtocol::None, ProxyProtocol::Optional, ProxyProtocol::Required] {
            let config = ServerConfig { proxy_protocol, ..files.config(asked) };
            let server = Server::start(config.clone()).await;
            let config = ServerConfig { listen: server.address, ..config };
            soon(healthcheck(&config)).await.unwrap();
            assert!(server.kernel.tasks.stop(std::time::Duration::from_secs(10)).await);
            soon(healthcheck(&config)).await.unwrap_err();
        }
    }
    // One whose files have been replaced meanwhile is well.
    let server = Server::start(files.config(ClientCertificate::None)).await;
    let other = Files::new(&ours.sign(NAME), &ours);
    let config = ServerConfig { listen: server.address, ..other.config(ClientCertificate::None) };
    soon(healthcheck(&config)).await.unwrap();
    let plaintext = ServerConfig { listen: server.address, ..ServerConfig::default() };
    soon(healthcheck(&plaintext)).await.unwrap_err();
}
