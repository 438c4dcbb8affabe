//! Who may make links, and who may change them?
//!
//! Addresses live here for a while, in memory, and are written nowhere.

use std::{
    net::IpAddr,
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering},
};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header::AUTHORIZATION, request::Parts},
};
use edge::client_address::{ProxyHeader, TrustedProxies, TrustedProxy, one_client};
use governor::{DefaultKeyedRateLimiter, Quota, clock::Clock};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::Error;

/// Creates after which the clients that have rested are forgotten.
const FORGET_EVERY: u64 = 10_000;

/// How many links each client may make.
pub struct Limit {
    limiter: DefaultKeyedRateLimiter<IpAddr>,
    checks: AtomicU64,
    proxies: TrustedProxies,
}

impl Limit {
    /// So many links a second; twice as many at once after a rest. Behind a load balancer that is not trusted, all
    /// clients share one limit.
    pub fn new(per_second: NonZeroU32, trusted: Vec<TrustedProxy>) -> Self {
        let burst = per_second.saturating_add(per_second.get());
        let quota = Quota::per_second(per_second).allow_burst(burst);
        Self {
            limiter: DefaultKeyedRateLimiter::keyed(quota),
            checks: AtomicU64::new(0),
            proxies: TrustedProxies::new(trusted, ProxyHeader::XForwardedFor),
        }
    }

    /// Counts one link.
    pub fn check(&self, peer: IpAddr, headers: &HeaderMap) -> Result<(), Error> {
        let client = one_client(self.proxies.client_of(peer, headers));
        if self.checks.fetch_add(1, Ordering::Relaxed).is_multiple_of(FORGET_EVERY) {
            // A client that has rested is as good as a new one.
            self.limiter.retain_recent();
        }
        self.limiter.check_key(&client).map_err(|not_until| {
            Error::TooManyRequests(not_until.wait_time_from(self.limiter.clock().now()))
        })
    }
}

// ANCHOR: edit_token
/// What is kept of an edit token. A token has 128 random bits, so nobody can try them all, and a quick hash is enough.
/// A stolen copy of the database gives away no token.
pub type TokenHash = [u8; 32];

/// A secret that only the answer to a creation shows. Whoever has it may change and delete the link.
#[derive(Serialize)]
pub struct EditToken(String);

impl EditToken {
    /// A new one.
    pub fn generate() -> Result<Self, Error> {
        let mut bits = [0; 16];
        getrandom::fill(&mut bits).map_err(Error::internal)?;
        Ok(Self(base62::encode(u128::from_be_bytes(bits))))
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
    use std::time::Duration;

    use super::*;

    fn check(limit: &Limit, peer: &str) -> Result<(), Error> {
        limit.check(peer.parse().unwrap(), &HeaderMap::new())
    }

    #[test]
    fn a_burst_is_twice_the_rate_and_then_the_client_must_wait() {
        let limit = Limit::new(NonZeroU32::MIN, Vec::new());
        assert!(check(&limit, "192.0.2.1").is_ok());
        assert!(check(&limit, "192.0.2.1").is_ok());
        let Err(Error::TooManyRequests(retry_after)) = check(&limit, "192.0.2.1") else {
            panic!("the third in a second was allowed");
        };
        assert!(retry_after <= Duration::from_secs(1), "{retry_after:?}");
        assert!(check(&limit, "192.0.2.2").is_ok());
    }

    #[test]
    fn addresses_of_one_ipv6_network_share_a_limit() {
        let limit = Limit::new(NonZeroU32::MIN, Vec::new());
        assert!(check(&limit, "2001:db8::1").is_ok());
        assert!(check(&limit, "2001:db8::2").is_ok());
        assert!(check(&limit, "2001:db8::ffff:0:0:3").is_err());
        assert!(check(&limit, "2001:db8:0:1::3").is_ok());
    }
}
