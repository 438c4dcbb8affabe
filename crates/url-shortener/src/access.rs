//! Who may make links, and who may change them?
//!
//! The clients' addresses are kept in memory for some seconds, and are written nowhere.

use std::{net::IpAddr, num::NonZeroU32, sync::Arc, time::Duration};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, request::Parts},
};
use edge::{
    client_address::{ProxyHeader, TrustedProxies, TrustedProxy, one_client},
    header::bearer,
};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter, clock::Clock};
use moka::future::Cache;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::Error;

/// Forget a client that made no link for this long. By then it may make a full burst again, like a new client.
const RESTED: Duration = Duration::from_secs(10);
/// Clients that are remembered, about 300 bytes each. If there are more, some of them get a fresh limit too early.
const CLIENTS: u64 = 100_000;

/// How many links each client may make.
pub struct Limit {
    quota: Quota,
    clients: Cache<IpAddr, Arc<DefaultDirectRateLimiter>>,
    proxies: TrustedProxies,
}

impl Limit {
    /// Allows each client this many links a second, and twice as many at once after a pause. Behind a load balancer
    /// that is not trusted, all clients share one limit.
    pub fn new(per_second: NonZeroU32, trusted: Vec<TrustedProxy>) -> Self {
        let burst = per_second.saturating_add(per_second.get());
        Self {
            quota: Quota::per_second(per_second).allow_burst(burst),
            clients: Cache::builder().max_capacity(CLIENTS).time_to_idle(RESTED).build(),
            proxies: TrustedProxies::new(trusted, ProxyHeader::XForwardedFor),
        }
    }

    /// Counts one link of this client.
    pub async fn check(&self, peer: IpAddr, headers: &HeaderMap) -> Result<(), Error> {
        let client = one_client(self.proxies.client_of(peer, headers));
        let limiter = async { Arc::new(RateLimiter::direct(self.quota)) };
        let limiter = self.clients.get_with(client, limiter).await;
        limiter.check().map_err(|it| Error::TooMany(it.wait_time_from(limiter.clock().now())))
    }
}

// ANCHOR: edit_token
/// What is kept of an edit token. A token has 128 random bits, so nobody can try them all, and a quick hash is enough.
/// A stolen copy of the database gives away no token.
pub type TokenHash = [u8; 32];

/// A secret that only the answer to a creation shows. Anybody who has it may change and delete the link.
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
        bearer(&parts.headers).map(|token| Self(token.to_owned())).ok_or(Error::NoToken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(limit: &Limit, peer: &str) -> Result<(), Error> {
        limit.check(peer.parse().unwrap(), &HeaderMap::new()).await
    }

    #[tokio::test]
    async fn a_burst_is_twice_the_rate_and_then_the_client_must_wait() {
        let limit = Limit::new(NonZeroU32::MIN, Vec::new());
        assert!(check(&limit, "192.0.2.1").await.is_ok());
        assert!(check(&limit, "192.0.2.1").await.is_ok());
        let Err(Error::TooMany(retry_after)) = check(&limit, "192.0.2.1").await else {
            panic!("the third in a second was allowed");
        };
        assert!(retry_after <= Duration::from_secs(1), "{retry_after:?}");
        assert!(check(&limit, "192.0.2.2").await.is_ok());
    }

    #[tokio::test]
    async fn addresses_of_one_ipv6_network_share_a_limit() {
        let limit = Limit::new(NonZeroU32::MIN, Vec::new());
        assert!(check(&limit, "2001:db8::1").await.is_ok());
        assert!(check(&limit, "2001:db8::2").await.is_ok());
        assert!(check(&limit, "2001:db8::ffff:0:0:3").await.is_err());
        assert!(check(&limit, "2001:db8:0:1::3").await.is_ok());
    }
}
