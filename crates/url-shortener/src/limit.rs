//! How many links may one client make?
//!
//! Addresses live here for a minute, in memory, and are written nowhere.

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use governor::{
    DefaultKeyedRateLimiter, Quota,
    clock::{Clock, DefaultClock},
};
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use crate::error::Error;

const FORGET_EVERY: Duration = Duration::from_mins(1);

/// A rate limiter with a state for each client.
pub struct Limit {
    limiter: DefaultKeyedRateLimiter<IpAddr>,
    clock: DefaultClock,
}

impl Limit {
    /// So many links a second; twice as many at once after a rest.
    pub fn new(per_second: NonZeroU32) -> Self {
        let burst = per_second.saturating_add(per_second.get());
        let quota = Quota::per_second(per_second).allow_burst(burst);
        Self { limiter: DefaultKeyedRateLimiter::keyed(quota), clock: DefaultClock::default() }
    }

    /// Counts one link.
    pub fn check(&self, client: IpAddr) -> Result<(), Error> {
        self.limiter.check_key(&network(client)).map_err(|not_until| Error::TooManyRequests {
            retry_after: not_until.wait_time_from(self.clock.now()),
        })
    }

    /// Forgets, until it is told to stop, the clients that have rested: a new state would be the same.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = interval(FORGET_EVERY);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
        }
    }
}

/// Whoever has one IPv6 address has all 2⁶⁴ of its network, and must not get a limit for each.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(per_second: u32) -> Limit {
        Limit::new(NonZeroU32::new(per_second).unwrap())
    }

    #[test]
    fn a_burst_is_twice_the_rate_and_then_the_client_must_wait() {
        let limit = limit(1);
        let client = "192.0.2.1".parse().unwrap();
        assert!(limit.check(client).is_ok());
        assert!(limit.check(client).is_ok());
        let Err(Error::TooManyRequests { retry_after }) = limit.check(client) else {
            panic!("the third in a second was allowed");
        };
        assert!(retry_after <= Duration::from_secs(1), "{retry_after:?}");
        assert!(limit.check("192.0.2.2".parse().unwrap()).is_ok());
    }

    #[test]
    fn addresses_of_one_ipv6_network_share_a_limit() {
        let network = |client: &str| network(client.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:0:0:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
    }
}
