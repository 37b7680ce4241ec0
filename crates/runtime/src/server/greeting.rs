//! What comes before the first request: who is there, and what they speak. All of it within one time.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio_util::either::Either;

use super::budget::PREFACE;
use super::config::{ProxyProtocol, ServerConfig};
use super::metrics::Refused;
use super::peer::Peer;
use super::places::{Place, Places};
use super::replay::Replay;
use super::tls::{Tls, Transport};

/// A connection that has said what it speaks.
pub(super) struct Greeted {
    pub(super) peer: Peer,
    pub(super) version: Version,
    pub(super) stream: Replay<Transport>,
    /// Of its peer's connections.
    pub(super) place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Http1,
    Http2,
}

/// Hears who is there. Bounded in time by whoever calls.
pub(super) async fn greet(
    config: &ServerConfig,
    tls: Option<&Tls>,
    peers: &Arc<Places>,
    socket: TcpStream,
    address: SocketAddr,
) -> Result<Greeted, Refused> {
    let (socket, address) = told_by_proxy(config, socket, address).await?;
    let place = peers.take(address.ip()).ok_or(Refused::Peer)?;
    let stream = match tls {
        Some(tls) => tls.accept(socket).await?,
        None => Either::Left(socket),
    };
    let (version, stream) = version(stream).await.map_err(|_| Refused::Gone)?;
    Ok(Greeted { peer: Peer { address }, version, stream, place })
}

/// The PROXY header of version 1 or 2, if there is to be one: <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>
async fn told_by_proxy(
    config: &ServerConfig,
    mut socket: TcpStream,
    address: SocketAddr,
) -> Result<(Replay<TcpStream>, SocketAddr), Refused> {
    let mut read = BytesMut::new();
    if config.proxy_protocol == ProxyProtocol::None {
        return Ok((Replay::of(read, socket), address));
    }
    let parse = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    loop {
        if socket.read_buf(&mut read).await.map_err(|_| Refused::Gone)? == 0 {
            return Err(Refused::Gone);
        }
        if config.proxy_protocol == ProxyProtocol::Optional && !may_become_proxy_header(&read) {
            return Ok((Replay::of(read, socket), address));
        }
        match ProxyHeader::parse(&read, parse) {
            Ok((header, length)) => {
                // The balancer itself, as it looks whether we are well, has no other address than its own.
                let told = header.proxied_address().map_or(address, |told| told.source);
                return Ok((Replay::of(read.split_off(length), socket), told));
            }
            Err(proxy_header::Error::BufferTooShort) if read.len() < PROXY_HEADER_BYTES_MAX => {}
            Err(_) => return Err(Refused::ProxyHeader),
        }
    }
}

/// Neither TLS nor any version of HTTP begins like one.
fn may_become_proxy_header(read: &[u8]) -> bool {
    let begins: [&[u8]; 2] = [b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"];
    begins.iter().any(|begin| read.iter().zip(*begin).all(|(read, expected)| read == expected))
}

/// Balancers add names and ids to the addresses; none has been seen to say more.
const PROXY_HEADER_BYTES_MAX: usize = 2 * 1_024;

/// HTTP/2 has a preface; whatever begins in another way is HTTP/1, or is found by hyper to be neither.
async fn version<T: AsyncRead + Unpin>(mut stream: T) -> std::io::Result<(Version, Replay<T>)> {
    let mut begin = BytesMut::with_capacity(PREFACE.len());
    while begin.len() < PREFACE.len() {
        let rest = PREFACE.len() - begin.len();
        if (&mut stream).take(rest as u64).read_buf(&mut begin).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if !PREFACE.starts_with(&begin) {
            return Ok((Version::Http1, Replay::of(begin, stream)));
        }
    }
    Ok((Version::Http2, Replay::of(begin, stream)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_version_is_known_by_how_it_begins() {
        let cases: [(&[u8], Option<Version>); 6] = [
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Version::Http2)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nand more", Some(Version::Http2)),
            (b"POST / HTTP/1.1\r\n", Some(Version::Http1)),
            (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", Some(Version::Http1)),
            (b"PRI * HT", None),
            (b"", None),
        ];
        for (bytes, expected) in cases {
            let mut pieces = tokio_test_io(bytes);
            let found = version(&mut pieces).await;
            assert_eq!(found.as_ref().ok().map(|(version, _)| *version), expected, "{bytes:?}");
            let Ok((_, mut replay)) = found else { continue };
            let mut all = Vec::new();
            replay.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, bytes);
        }
    }

    /// The bytes, one at a time.
    fn tokio_test_io(bytes: &[u8]) -> impl AsyncRead + Unpin {
        let pieces: Vec<_> =
            bytes.iter().map(|byte| Ok::<_, std::io::Error>(bytes::Bytes::from(vec![*byte]))).collect();
        tokio_util::io::StreamReader::new(futures::stream::iter(pieces))
    }
}
