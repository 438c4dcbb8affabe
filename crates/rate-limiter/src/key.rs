//! Whose quota is it? A key that says so, and gives nobody away.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use sha2::{Digest, Sha256};

/// A client, as the limiter knows it: 16 bytes of a digest. However long an API key is, it takes no more; and
/// neither a Redis nor a core dump that gets into wrong hands holds API keys that could be used.
///
/// An address can be found again by trying them all; so can whatever we might do to it that is the same in
/// every process. Keys therefore expire, and are never logged.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(u128);

impl Key {
    /// The client at this address. Whoever has one IPv6 address has all 2⁶⁴ of its network, and must not get
    /// a quota for each.
    pub fn address(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::of("address", &address.octets()),
            IpAddr::V6(address) => Self::of("network", &network(address).octets()),
        }
    }

    /// Any other name: of a user, of an API key. `kind` keeps those of different kinds apart.
    pub fn of(kind: &str, name: &[u8]) -> Self {
        // No kind holds a zero byte, so no two pairs are the same bytes.
        let digest =
            Sha256::new().chain_update(kind).chain_update([0]).chain_update(name).finalize();
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        Self(u128::from_be_bytes(key))
    }

    /// A number that is spread evenly over clients.
    pub(crate) fn spread(self) -> usize {
        usize::from(self.0.to_be_bytes()[0])
    }
}

/// In hexadecimal, as it stands in a Redis key.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Nothing of it: what is printed while debugging ends up in a log.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

fn network(address: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_ipv6_network_are_one_client() {
        let key = |client: &str| Key::address(client.parse().unwrap());
        assert!(key("2001:db8::1") == key("2001:db8::ffff:0:0:1"));
        assert!(key("2001:db8::1") != key("2001:db8:0:1::1"));
        assert!(key("::ffff:192.0.2.1") == key("192.0.2.1"));
        assert!(key("192.0.2.1") != key("192.0.2.2"));
    }

    #[test]
    fn a_user_is_no_api_key_of_the_same_name() {
        assert!(Key::of("user", b"ada") != Key::of("api-key", b"ada"));
        assert!(Key::of("user", b"ada") == Key::of("user", b"ada"));
    }
}
