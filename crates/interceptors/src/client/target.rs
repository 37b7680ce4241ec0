//! What stands in `addresses`: a name or an IP address, a port, and whether it is spoken to under TLS.

use std::net::{IpAddr, SocketAddr};

use http::Uri;
use http::uri::{Authority, Scheme};

/// One of the configured addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// `https://`.
    pub(super) is_secure: bool,
    /// A name, or an IP address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// What calls have as their origin.
    pub(super) origin: Uri,
}

impl Target {
    /// Reads `http://inventory:50053`; the error is for people.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.contains('@') {
            return Err("an address must be a host and a port, and no more: there is an @ in it".to_owned()); // and perhaps a password
        }
        let no_address = || format!("{text} is no address");
        let uri: Uri = text.parse().map_err(|_| no_address())?;
        let is_secure = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err(format!("{text} must begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(no_address)?;
        if uri.path() != "/" || uri.query().is_some() {
            return Err(format!("{text} must be a host and a port, and no more"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = match (authority.port_u16(), is_secure) {
            // As `name:` or `name:70000`, which the authority lets through.
            (None, _) if has_port(authority) => return Err(no_address()),
            (Some(0), _) => return Err(no_address()),
            (Some(port), _) => port,
            (None, false) => 80,
            (None, true) => 443,
        };
        Ok(Self { is_secure, host, port, origin: uri })
    }

    /// The address itself, if it needs no looking up.
    pub(super) fn literal(&self) -> Option<SocketAddr> {
        let ip: IpAddr = self.host.parse().ok()?;
        Some(SocketAddr::new(ip, self.port))
    }
}

fn has_port(authority: &Authority) -> bool {
    authority.as_str().len() > authority.host().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_scheme_a_host_and_a_port() {
        let read = |text| Target::parse(text).map(|target| (target.is_secure, target.host.clone(), target.port));
        assert_eq!(read("http://inventory:50053"), Ok((false, "inventory".into(), 50_053)));
        assert_eq!(read("https://inventory.shop.example"), Ok((true, "inventory.shop.example".into(), 443)));
        assert_eq!(read("http://[::1]:1/"), Ok((false, "::1".into(), 1)));
        for bad in [
            "",
            "inventory",
            "inventory:50053",
            "ftp://inventory:1",
            "http://",
            "http://a:1/path",
            "http://a:1?query",
            "http://a:0",
            "http://a:65536",
            "http://me@a:1",
            "http://a b:1",
        ] {
            assert!(read(bad).is_err(), "{bad}: {:?}", read(bad));
        }
        for secret in ["http://me:sesame@a:1", "me:sesame@a"] {
            assert!(!read(secret).unwrap_err().contains("sesame"));
        }
    }

    #[test]
    fn only_an_ip_address_needs_no_looking_up() {
        let literal = |text| Target::parse(text).unwrap().literal();
        assert_eq!(literal("http://127.0.0.1:7"), Some(([127, 0, 0, 1], 7).into()));
        assert_eq!(literal("http://[::1]:7"), Some("[::1]:7".parse().unwrap()));
        assert_eq!(literal("http://localhost:7"), None);
    }
}
