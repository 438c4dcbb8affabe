//! How is guessing made slow, without keeping an account's owner out?

use std::net::IpAddr;

use edge::{client_address::one_client, email::Email};
use sha2::{Digest, Sha256};

/// How many attempts there may be in a quarter of an hour.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Limits {
    /// Logins to one account from one client in a quarter of an hour
    #[arg(long = "logins-per-account", default_value_t = 10)]
    pub per_account: i32,
    /// Logins of one client in a quarter of an hour, to whatever accounts
    #[arg(long = "logins-per-client", default_value_t = 100)]
    pub per_client: i32,
}

/// A count of attempts: its key, and how many there may be.
pub type Count = (Vec<u8>, i32);

impl Limits {
    // ANCHOR: counts
    /// The counts that an attempt belongs to. An account is counted for each client apart, so that a stranger does not keep
    /// its owner out; and for all clients together, for an attacker with many addresses.
    pub fn counts(self, email: &Email, client: IpAddr) -> [Count; 3] {
        let (email, client) = (email.key(), one_client(client));
        let key = |name: String| Sha256::digest(name).to_vec();
        [
            (key(format!("client {client}")), self.per_client),
            (key(format!("both {email} {client}")), self.per_account),
            (key(format!("account {email}")), self.per_account.saturating_mul(10)),
        ]
    }
    // ANCHOR_END: counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_counted_for_each_client_apart_and_for_all_together() {
        let limits = Limits { per_account: 3, per_client: 5 };
        let counts = |email: &str, client: &str| {
            limits.counts(&Email::parse(email).unwrap(), client.parse().unwrap())
        };
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|ip| counts("ada@acme.example", ip));
        assert_ne!(one[0], other[0]);
        assert_ne!(one[1], other[1]);
        assert_eq!(one[2], other[2]);
        assert_eq!(one[2].1, 30);
        assert_eq!(one, counts("ADA@acme.example", "::ffff:192.0.2.1"));
    }
}
