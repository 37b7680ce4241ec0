//! What a container without a shell asks itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::ServerConfig;

/// Asks the server that listens as `config` says for its gRPC health; an error says why it does not serve. How long that may take is the
/// caller's business.
pub async fn healthcheck(config: &ServerConfig) -> anyhow::Result<()> {
    let channel = Endpoint::from_shared(format!("http://{}", reached(config.listen)))?.connect().await?;
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
