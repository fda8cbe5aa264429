//! Which addresses webhooks may go to.
//!
//! A URL may come from a stranger, and the daemon stands where the stranger does not: what it can reach is asked for by
//! address, after the name has been resolved, and the connection goes to that very address, so that a name which
//! resolves to something else the next time gains nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// How far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The internet: no loopback, no private networks.
    Public,
    /// These too, but nothing that a cloud serves its machines' credentials from.
    Private,
    /// Everything.
    All,
}

impl Reach {
    /// As they are written.
    pub(crate) const NAMES: [&str; 3] = ["public", "private", "all"];

    /// Whether it goes so far.
    pub(crate) fn covers(self, address: IpAddr) -> bool {
        let address = match address {
            IpAddr::V4(v4) => v4,
            IpAddr::V6(v6) => match embedded(v6) {
                Some(v4) => v4,
                None => return self.covers_v6(v6),
            },
        };
        self.covers_v4(address)
    }

    fn covers_v4(self, address: Ipv4Addr) -> bool {
        let [a, b, ..] = address.octets();
        let no_host = address.is_unspecified() || a == 0 || address.is_multicast() || a >= 240;
        // Alibaba's and Oracle's metadata stand in ranges of other use.
        let metadata = address.is_link_local()
            || address == Ipv4Addr::new(100, 100, 100, 200)
            || address == Ipv4Addr::new(192, 0, 0, 192);
        let private = address.is_loopback()
            || address.is_private()
            || (a == 100 && (64..128).contains(&b))
            || (a == 192 && b == 0 && address.octets()[2] == 0)
            || (a == 198 && (b & 0xfe) == 18)
            || address.is_documentation();
        self == Self::All || !(no_host || metadata || (self == Self::Public && private))
    }

    fn covers_v6(self, address: Ipv6Addr) -> bool {
        let first = address.segments()[0];
        let no_host = address.is_unspecified() || address.is_multicast();
        let metadata =
            address.is_unicast_link_local() || address == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
        let private = address.is_loopback() || address.is_unique_local() || (first & 0xe000) != 0x2000;
        self == Self::All || !(no_host || metadata || (self == Self::Public && private))
    }
}

/// The address that a translator makes of it.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let bytes = address.octets();
    let four = |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(four(12)),
        [0x2002, ..] => Some(four(2)),
        _ => None,
    }
}

impl FromStr for Reach {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "public" => Ok(Self::Public),
            "private" => Ok(Self::Private),
            "all" => Ok(Self::All),
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let far = |text: &str| {
            let address = text.parse().unwrap();
            [Reach::Public, Reach::Private, Reach::All].map(|reach| reach.covers(address))
        };
        for public in ["1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"] {
            assert_eq!(far(public), [true, true, true], "{public}");
        }
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.1",
            "172.16.0.1",
            "100.64.0.1",
            "::1",
            "fd12::1",
            "::ffff:127.0.0.1",
        ] {
            assert_eq!(far(private), [false, true, true], "{private}");
        }
        for metadata in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "fe80::1",
            "fd00:ec2::254",
            "100.100.100.200",
            "0.0.0.0",
            "0.1.2.3",
            "255.255.255.255",
            "224.0.0.1",
            "::",
            "ff02::1",
        ] {
            assert_eq!(far(metadata), [false, false, true], "{metadata}");
        }
    }
}
