//! How is guessing made slow, and what does a failed login tell? Nothing: not by its words, and not by its time.

use std::{net::IpAddr, num::NonZero, sync::Arc, time::Duration};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use edge::{client_address::one_client, email::Email};
use sha2::{Digest, Sha256};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use crate::error::{Error, Result};
use crate::secret::Secret;

/// The longest password that is hashed.
const LONGEST: usize = 256;
/// How long a login waits for its turn. In a flood it is better to turn some away than to let all wait.
const TURN: Duration = Duration::from_secs(2);
/// The least that OWASP's cheat sheet asks of Argon2id, with one lane: 19 MiB, and two passes.
const COST: (u32, u32) = (19_456, 2);

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

/// Hashes and compares, a few at a time.
pub struct Passwords {
    argon2: Argon2<'static>,
    /// As many as there are cores: more would only make each slower, and take 19 MiB each.
    turns: Arc<Semaphore>,
    /// For addresses that nobody has.
    dummy: String,
}

impl Passwords {
    /// With OWASP's cost.
    pub fn new() -> Result<Self> {
        let params = Params::new(COST.0, COST.1, 1, None).map_err(Error::internal)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let turns = Arc::new(Semaphore::new(cores));
        let mut this = Self { argon2, turns, dummy: String::new() };
        this.dummy = this.hash(&Secret::new("the password of nobody"))?;
        Ok(this)
    }

    /// The hash to keep, with its parameters and a salt of its own. It blocks.
    pub fn hash(&self, password: &Secret) -> Result<String> {
        let hash = self.argon2.hash_password(password.expose().as_bytes());
        Ok(hash.map_err(Error::internal)?.to_string())
    }

    // ANCHOR: verify
    /// Whether this is the password of the hash. Without a hash, since nobody has the address, it takes as long, and the
    /// answer is no.
    pub async fn verify(&self, password: Secret, hash: Option<&str>) -> Result<bool> {
        if password.expose().len() > LONGEST {
            return Err(Error::invalid("password", "must be at most 256 bytes"));
        }
        let turn = timeout(TURN, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.map_err(|_| Error::NotNow("too many logins at once"))?;
        let turn = turn.map_err(Error::internal)?;
        let known = PasswordHash::new(hash.unwrap_or(&self.dummy)).map_err(Error::internal)?;
        let argon2 = self.argon2.clone();
        // The turn goes with the work: a client that hangs up gives its place to nobody while the hash is computed.
        let matches = move || {
            (argon2.verify_password(password.expose().as_bytes(), &known).is_ok(), turn).0
        };
        Ok(spawn_blocking(matches).await.map_err(Error::internal)? && hash.is_some())
    }
    // ANCHOR_END: verify
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_same_password_matches_and_nobodys_never_does() {
        let passwords = Passwords::new().unwrap();
        let hash = passwords.hash(&Secret::new("seven quiet otters")).unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let verify = async |text: &str, hash| passwords.verify(Secret::new(text), hash).await;
        assert!(verify("seven quiet otters", Some(&hash)).await.unwrap());
        assert!(!verify("seven quiet others", Some(&hash)).await.unwrap());
        assert!(!verify("the password of nobody", None).await.unwrap());
        assert!(verify(&"x".repeat(LONGEST + 1), None).await.is_err());
    }

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
