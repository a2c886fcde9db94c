//! Which addresses may be reached.

use std::net::{IpAddr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Url;

/// The address of a URL that has it written out.
pub(crate) fn literal(url: &Url) -> Option<IpAddr> {
    url.host_str().and_then(|host| host.trim_matches(['[', ']']).parse().ok())
}

/// The name resolves to addresses that apps may not name.
#[derive(Debug, thiserror::Error)]
#[error("resolves to no public address")]
pub(crate) struct NotPublic;

/// The system's resolver; with `public`, private and loopback addresses are left out, so a name cannot smuggle one in
/// between the check and the connection.
pub(crate) struct Guarded {
    pub(crate) public: bool,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let public = self.public;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let kept: Vec<SocketAddr> = found.filter(|at| !public || is_public(at.ip())).collect();
            if kept.is_empty() {
                return Err(Box::new(NotPublic).into());
            }
            Ok(Box::new(kept.into_iter()) as Addrs)
        })
    }
}

/// Whether an address belongs to the public internet: not loopback, private, link-local (cloud metadata), shared,
/// multicast, reserved, or one of these mapped into IPv6.
#[must_use]
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let benchmark = a == 198 && (b == 18 || b == 19);
            !(ip.is_loopback()
                || ip.is_private()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_documentation()
                || shared
                || benchmark
                || a == 0
                || a >= 240
                || (a == 192 && b == 0))
        }
        IpAddr::V6(ip) => {
            if let Some(v4) = ip.to_ipv4() {
                return is_public(IpAddr::V4(v4));
            }
            let [first, second, ..] = ip.segments();
            let nat64 = ip.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0];
            // Teredo and documentation, 6to4: each carries an IPv4 address that nobody checks, or none.
            let wrapped = (first == 0x2001 && (second == 0 || second == 0xdb8)) || first == 0x2002;
            let special = ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || nat64 || wrapped;
            let local = ip.is_unique_local() || ip.is_unicast_link_local();
            !(special || local)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_seen_through_disguises() {
        for private in [
            "127.0.0.1",
            "127.9.9.9",
            "10.1.1.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "::1",
            "::",
            "fc00::1",
            "fe80::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
        ] {
            assert!(!is_public(private.parse().expect(private)), "{private}");
        }
        for public in ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "2001:4860:4860::8888"] {
            assert!(is_public(public.parse().expect(public)), "{public}");
        }
    }
}
