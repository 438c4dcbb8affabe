//! Whose quota is it? A key says so, and does not show who the client is.
//!
//! Invariant: nothing that a client can make up buys it another key. Its address comes from
//! [`edge::client_address`], which believes only trusted proxies; an API key counts only if we gave it out.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use axum::{
    extract::ConnectInfo,
    http::{HeaderName, request::Parts},
};
use edge::client_address::{TrustedProxies, one_client};
use sha2::{Digest, Sha256};

/// A client, as the limiter knows it: 16 bytes of a digest, however long its API key is. A stolen copy of Redis holds
/// no API keys that could be used.
///
/// An address can be found again by hashing all addresses, because every process must hash in the same way. Therefore
/// keys expire, and are never logged.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(u128);

impl Key {
    /// The client at this address.
    pub fn address(address: IpAddr) -> Self {
        Self::of("address", one_client(address).to_string().as_bytes())
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

    /// A number below 256 that is spread evenly over clients.
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

/// Without the digest: what is printed while debugging ends up in a log.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// How to tell clients apart.
#[derive(Clone, Debug, Default)]
pub struct Clients {
    /// Proxies whose header about their client is believed.
    pub proxies: TrustedProxies,
    /// Who owns an API key, by the digest of the key.
    pub users: HashMap<Key, String>,
}

impl Clients {
    // ANCHOR: key
    /// Whose quota a request counts for: that of the API key's user, otherwise that of the address.
    ///
    /// An API key that we did not give out counts for nothing: a client that could invent keys would invent one for
    /// each request.
    pub fn key(&self, request: &Parts) -> Key {
        let api_key = request.headers.get(X_API_KEY).map(|key| Key::of("api-key", key.as_bytes()));
        match api_key.and_then(|key| self.users.get(&key)) {
            Some(user) => Key::of("user", user.as_bytes()),
            None => Key::address(self.address(request)),
        }
    }

    /// The address of the client, as far as it can be believed.
    fn address(&self, request: &Parts) -> IpAddr {
        // A router that is served without the peers' addresses has one quota for all.
        let peer = request.extensions.get::<ConnectInfo<SocketAddr>>();
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
        self.proxies.client_of(peer, &request.headers)
    }
    // ANCHOR_END: key
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
