//! How is guessing made slow, without locking anybody out of their own account?
//!
//! The counts are in PostgreSQL and not in Redis: a login asks the database anyway, so a second server would only add
//! a second way to fail, and beside the hash a row costs nothing.

use std::net::{IpAddr, Ipv6Addr};

use sha2::{Digest, Sha256};

use crate::email::Email;

/// How many failures are free, before each further one has to be waited for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of one account, from everywhere together where its owner has never been.
    pub per_account: i32,
    /// Of one client, over all accounts. More, since a whole office may be behind one address.
    pub per_client: i32,
}

/// The names under which one attempt is counted. Hashes, so that they are of one size; whoever can read them can
/// still test a guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The account, whether or not there is one of that name: an unknown address is slowed down just as a known one.
    pub account: [u8; 32],
    /// The client.
    pub client: [u8; 32],
    /// The account as seen from this client. It is counted by this name where the account has been logged in from, so
    /// that an attacker elsewhere, however busy, does not keep the owner out.
    pub account_from_client: [u8; 32],
}

impl Attempt {
    /// An attempt on this account from this address.
    pub fn new(email: &Email, client: IpAddr) -> Self {
        let client = network(client).to_string();
        Self {
            account: name("account", email.as_str(), ""),
            client: name("client", "", &client),
            account_from_client: name("both", email.as_str(), &client),
        }
    }
}

fn name(kind: &str, email: &str, client: &str) -> [u8; 32] {
    // Neither holds a space.
    Sha256::digest(format!("{kind} {email} {client}")).into()
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

    fn attempt(email: &str, client: &str) -> Attempt {
        Attempt::new(&Email::parse(email).unwrap(), client.parse().unwrap())
    }

    #[test]
    fn an_attempt_counts_for_its_account_and_for_its_client() {
        let (here, there) = (attempt("a@b", "192.0.2.1"), attempt("a@b", "192.0.2.2"));
        assert!(here.account == there.account && here.client != there.client);
        assert_ne!(here.account_from_client, there.account_from_client);
        let other = attempt("c@b", "192.0.2.1");
        assert!(here.account != other.account && here.client == other.client);
        assert_eq!(here, attempt("A@B", "::ffff:192.0.2.1"));
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_client() {
        let client = |address: &str| attempt("a@b", address).client;
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:0:0:1"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
    }
}
