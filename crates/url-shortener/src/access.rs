//! Who may make links, and who may change them?
//!
//! Addresses live here for a minute, in memory, and are written nowhere.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    time::Duration,
};

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{header::AUTHORIZATION, request::Parts},
};
use governor::{
    DefaultKeyedRateLimiter, Quota,
    clock::{Clock, DefaultClock},
};
use ipnet::IpNet;
use sha2::{Digest, Sha256};

use crate::error::Error;

/// How often clients that have rested are forgotten.
pub const FORGET_EVERY: Duration = Duration::from_mins(1);

/// How many links each client may make.
pub struct Limit {
    limiter: DefaultKeyedRateLimiter<IpAddr>,
    clock: DefaultClock,
    /// Load balancers whose word about the client counts.
    trusted: Vec<IpNet>,
}

impl Limit {
    /// So many links a second; twice as many at once after a rest.
    pub fn new(per_second: NonZeroU32, trusted: Vec<IpNet>) -> Self {
        let burst = per_second.saturating_add(per_second.get());
        let quota = Quota::per_second(per_second).allow_burst(burst);
        let limiter = DefaultKeyedRateLimiter::keyed(quota);
        Self { limiter, clock: DefaultClock::default(), trusted }
    }

    /// Counts one link.
    pub fn check(&self, request: &Parts) -> Result<(), Error> {
        let client = network(self.client(request));
        self.limiter.check_key(&client).map_err(|not_until| Error::TooManyRequests {
            retry_after: not_until.wait_time_from(self.clock.now()),
        })
    }

    /// Forgets the clients that have rested: a new state would be the same.
    pub fn forget_rested(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }

    // ANCHOR: client
    /// The address of the client. Each proxy appends whom it saw to `X-Forwarded-For`, so the header is read from the
    /// right, and only as far as trusted proxies have written it. What stands further left is the client's own.
    fn client(&self, request: &Parts) -> IpAddr {
        // If nobody tells the router the addresses, all clients share one limit.
        let peer = request.extensions.get::<ConnectInfo<SocketAddr>>();
        let mut client = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
        let headers: Vec<_> = request.headers.get_all("x-forwarded-for").iter().collect();
        let lines = headers.into_iter().rev().map(|line| line.to_str().unwrap_or_default());
        for hop in lines.flat_map(|line| line.rsplit(',')) {
            client = client.to_canonical();
            match hop.trim().parse() {
                Ok(hop) if self.trusted.iter().any(|it| it.contains(&client)) => client = hop,
                _ => break,
            }
        }
        client.to_canonical()
    }
    // ANCHOR_END: client
}

/// A client that has one IPv6 address has all 2⁶⁴ of its network, and must not get a limit for each.
fn network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// A network or an address of `--trusted-proxy`. Addresses are compared as IPv4 where they can be, so a network written
/// as `::ffff:10.0.0.0/104` would never match.
pub fn parse_network(text: &str) -> Result<IpNet, String> {
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    match network.map_err(|_| "not an address or a network such as 10.0.0.0/8".to_owned())? {
        IpNet::V6(network) if network.addr().to_ipv4_mapped().is_some() => {
            Err("write this network as IPv4".to_owned())
        }
        network => Ok(network),
    }
}

// ANCHOR: edit_token
/// What is kept of an edit token. A token has 128 random bits, so nobody can try them all, and a quick hash is enough.
/// A stolen copy of the database gives away no token.
pub type TokenHash = [u8; 32];

/// A secret that only the answer to a creation shows. Whoever has it may change and delete the link.
pub struct EditToken(String);

impl EditToken {
    /// A new one.
    pub fn generate() -> Result<Self, Error> {
        let mut bits = [0; 16];
        getrandom::fill(&mut bits).map_err(Error::internal)?;
        Ok(Self(base62::encode(u128::from_be_bytes(bits))))
    }

    /// The token itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What the database keeps.
    pub fn hash(&self) -> TokenHash {
        Sha256::digest(&self.0).into()
    }
}
// ANCHOR_END: edit_token

/// `Authorization: Bearer …`
impl<S: Sync> FromRequestParts<S> for EditToken {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let header = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let (scheme, token) = header.and_then(|it| it.split_once(' ')).ok_or(Error::NoToken)?;
        let is_bearer = scheme.eq_ignore_ascii_case("bearer");
        is_bearer.then(|| Self(token.trim().to_owned())).ok_or(Error::NoToken)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn request(peer: &str, forwarded: &[&str]) -> Parts {
        let mut request = Request::builder();
        for line in forwarded {
            request = request.header("x-forwarded-for", *line);
        }
        let peer: IpAddr = peer.parse().unwrap();
        let request = request.extension(ConnectInfo(SocketAddr::new(peer, 1)));
        request.body(()).unwrap().into_parts().0
    }

    fn limit(per_second: u32, trusted: &[&str]) -> Limit {
        let trusted = trusted.iter().map(|it| parse_network(it).unwrap()).collect();
        Limit::new(NonZeroU32::new(per_second).unwrap(), trusted)
    }

    #[test]
    fn a_burst_is_twice_the_rate_and_then_the_client_must_wait() {
        let limit = limit(1, &[]);
        let client = request("192.0.2.1", &[]);
        assert!(limit.check(&client).is_ok());
        assert!(limit.check(&client).is_ok());
        let Err(Error::TooManyRequests { retry_after }) = limit.check(&client) else {
            panic!("the third in a second was allowed");
        };
        assert!(retry_after <= Duration::from_secs(1), "{retry_after:?}");
        assert!(limit.check(&request("192.0.2.2", &[])).is_ok());
    }

    #[test]
    fn addresses_of_one_ipv6_network_share_a_limit() {
        let network = |client: &str| network(client.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:0:0:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
    }

    #[test]
    fn a_header_counts_only_as_far_as_trusted_proxies_have_written_it() {
        let limit = limit(1, &["10.0.0.0/8", "::1"]);
        let client = |peer, lines: &[&str]| limit.client(&request(peer, lines)).to_string();
        assert_eq!(client("192.0.2.1", &["1.1.1.1"]), "192.0.2.1");
        assert_eq!(client("10.0.0.1", &["1.1.1.1, 192.0.2.1"]), "192.0.2.1");
        assert_eq!(client("10.0.0.1", &["192.0.2.1", "10.0.0.2"]), "192.0.2.1");
        assert_eq!(client("::ffff:10.0.0.1", &["::ffff:192.0.2.1"]), "192.0.2.1");
        assert_eq!(client("::1", &["192.0.2.1, unknown"]), "::1");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn a_network_that_would_never_match_is_refused() {
        for wrong in ["::ffff:10.0.0.0/104", "::ffff:10.0.0.1", "10.0.0.0/33", "somewhere", ""] {
            assert!(parse_network(wrong).is_err(), "{wrong}");
        }
    }
}
