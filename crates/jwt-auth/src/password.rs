//! How are passwords kept, so that whoever steals the table does not have them?

use std::{collections::HashSet, fmt, sync::Arc, sync::LazyLock, time::Duration};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use crate::error::Error;

/// Characters, as people count them; NIST SP 800-63B asks for at least 64 to be allowed.
const LENGTH: std::ops::RangeInclusive<usize> = 8..=128;
/// How long a request waits for its turn to hash. Beyond it a client is told to come back: in a flood of logins
/// it is better to turn some away than to let all of them run out of time.
const TURN: Duration = Duration::from_secs(2);

static COMMON: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
    let lines = include_str!("common_passwords.txt").lines();
    lines.filter(|line| !line.starts_with('#')).collect()
});

/// A password that somebody typed. It is never shown, not even to a log.
#[derive(Clone)]
pub struct Password(String);

impl Password {
    // ANCHOR: parse_password
    /// Parses a password that is to be kept. Every character counts as one, and none is asked for: rules about
    /// capitals and digits make passwords alike (NIST SP 800-63B, section 5.1.1.2).
    pub fn parse_new(input: String) -> Result<Self, &'static str> {
        if !LENGTH.contains(&input.chars().count()) {
            return Err("must be 8 to 128 characters");
        }
        // No keyboard types one, and the next program that this password passes through may stop at a NUL.
        if input.chars().any(char::is_control) {
            return Err("must not hold control characters");
        }
        if COMMON.contains(input.to_lowercase().as_str()) {
            return Err("is among the passwords that everybody tries first");
        }
        Ok(Self(input))
    }
    // ANCHOR_END: parse_password

    /// Parses a password that is to be compared. Only what is too long to be hashed is refused: the rules may have
    /// been others when it was made.
    pub fn parse_given(input: String) -> Result<Self, &'static str> {
        if input.chars().count() > *LENGTH.end() {
            return Err("must be 128 characters at most");
        }
        Ok(Self(input))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// How much work a guess shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
}

/// The least that OWASP's Password Storage Cheat Sheet asks of Argon2id, with one lane.
pub const OWASP: Cost = Cost { memory_kib: 19_456, passes: 2 };

/// Hashes and compares, a few at a time.
pub struct Passwords {
    argon2: Argon2<'static>,
    /// As many as there are cores: more would only make each slower, and take 19 MiB each.
    turns: Arc<Semaphore>,
    /// For addresses that nobody has. Made with the same parameters as every new hash.
    dummy: String,
}

impl Passwords {
    /// Hashes with this cost from now on. The error is a cost that Argon2 does not know.
    pub fn new(cost: Cost) -> Result<Self, Error> {
        let params = Params::new(cost.memory_kib, cost.passes, 1, None).map_err(Error::internal)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let nobody = argon2.hash_password(b"the password of nobody").map_err(Error::internal)?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self { argon2, turns: Arc::new(Semaphore::new(cores)), dummy: nobody.to_string() })
    }

    /// The hash to keep, with its parameters and a salt of its own.
    pub async fn hash(&self, password: Password) -> Result<String, Error> {
        let argon2 = self.argon2.clone();
        let hash = self.in_turn(move || argon2.hash_password(password.0.as_bytes())).await?;
        Ok(hash.map_err(Error::internal)?.to_string())
    }

    // ANCHOR: verify_password
    /// Whether this is the password of the hash. Without a hash, since nobody has the address, it takes as long and
    /// the answer is no.
    pub async fn verify(&self, password: Password, hash: Option<&str>) -> Result<bool, Error> {
        let known = PasswordHash::new(hash.unwrap_or(&self.dummy)).map_err(Error::internal)?;
        let argon2 = self.argon2.clone();
        // The parameters are those in the hash, whatever ours are by now.
        let matches = move || argon2.verify_password(password.0.as_bytes(), &known).is_ok();
        Ok(self.in_turn(matches).await? && hash.is_some())
    }
    // ANCHOR_END: verify_password

    /// Whether a hash was made with other parameters than a new one would be.
    pub fn is_outdated(&self, hash: &str) -> bool {
        let Ok(hash) = PasswordHash::new(hash) else { return true };
        let ours = self.argon2.params();
        let ours = (ours.m_cost(), ours.t_cost(), ours.p_cost());
        hash.algorithm != Algorithm::Argon2id.ident()
            || !Params::try_from(&hash)
                .is_ok_and(|params| (params.m_cost(), params.t_cost(), params.p_cost()) == ours)
    }

    // ANCHOR: in_turn
    /// Runs the work on a thread that may be blocked, when its turn has come.
    ///
    /// The turn goes with the work and not with the request: a client that hangs up gives its place to nobody
    /// while its hash is still being computed.
    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let turn = timeout(TURN, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.map_err(|_| Error::Busy)?.map_err(Error::internal)?;
        let work = spawn_blocking(move || {
            let outcome = work();
            drop(turn);
            outcome
        });
        work.await.map_err(Error::internal)
    }
    // ANCHOR_END: in_turn
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const CHEAP: Cost = Cost { memory_kib: 64, passes: 1 };

    fn password(text: &str) -> Password {
        Password::parse_new(text.to_owned()).unwrap()
    }

    #[test]
    fn a_password_has_eight_to_128_characters_whatever_they_are() {
        for good in ["8 chars!", "🦀🦞🦐🦑🐙🐚🐟🐠", "пароль-пароль", &"x y".repeat(42)]
        {
            assert!(Password::parse_new(good.to_owned()).is_ok(), "{good}");
        }
        for bad in
            ["", "7 chars", "🦀🦞🦐🦑🐙🐚🐟", &"x".repeat(129), "with\0a NUL", "with\na line"]
        {
            assert!(Password::parse_new(bad.to_owned()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_everybody_uses_is_refused_however_it_is_capitalised() {
        assert!(COMMON.len() > 3_000);
        for bad in ["password", "PassWord1", "12345678", "QwertyUiop", "iloveyou", "football"] {
            assert!(Password::parse_new(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_log_shows_no_password() {
        assert_eq!(format!("{:?}", password("correct horse")), "Password(…)");
    }

    #[tokio::test]
    async fn only_the_same_password_matches_and_each_hash_has_its_own_salt() {
        let passwords = Passwords::new(CHEAP).unwrap();
        let hash = passwords.hash(password("correct horse")).await.unwrap();
        let again = passwords.hash(password("correct horse")).await.unwrap();
        assert_ne!(hash, again);
        assert!(passwords.verify(password("correct horse"), Some(&hash)).await.unwrap());
        assert!(!passwords.verify(password("correct house"), Some(&hash)).await.unwrap());
        // Nobody's password is the dummy's.
        assert!(!passwords.verify(password("the password of nobody"), None).await.unwrap());
    }

    #[tokio::test]
    async fn for_nobody_a_hash_is_computed_too_and_waits_for_its_turn() {
        let passwords = Passwords::new(CHEAP).unwrap();
        let hash = passwords.hash(password("correct horse")).await.unwrap();
        let cores = u32::try_from(passwords.turns.available_permits()).unwrap();
        let all = passwords.turns.acquire_many(cores).await.unwrap();
        // Whoever has an answer while no hash can be computed has not computed one.
        for kept in [Some(hash.as_str()), None] {
            let answer = passwords.verify(password("correct horse"), kept).now_or_never();
            assert!(answer.is_none(), "{kept:?} is answered without a hash");
        }
        drop(all);
        assert!(!passwords.verify(password("correct horse"), None).await.unwrap());
    }

    #[tokio::test]
    async fn a_hash_says_with_what_it_was_made() {
        let (old, new) = (Passwords::new(CHEAP).unwrap(), Passwords::new(OWASP).unwrap());
        let hash = old.hash(password("correct horse")).await.unwrap();
        assert!(new.is_outdated(&hash) && !old.is_outdated(&hash));
        assert!(new.verify(password("correct horse"), Some(&hash)).await.unwrap());
        assert!(new.dummy.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", new.dummy);
    }
}
