//! How are passwords kept, so that whoever steals the table does not have them?

use std::{sync::Arc, time::Duration};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
    time::timeout,
};
use unicode_normalization::UnicodeNormalization;

use crate::error::{Error, Result};

/// Characters. NIST SP 800-63B-4 asks for at least 15 where the password is the only factor, as it is here.
const LENGTH: [usize; 2] = [15, 128];
/// How long a request waits for its turn to hash. In a flood of logins it is better to turn some away than to let
/// all of them run out of time.
const TURN: Duration = Duration::from_secs(2);

/// One on each line, in lower case.
const COMMON: &str = include_str!("common_passwords.txt");

/// A password; or what is wrong with it, in words for its owner.
pub type Parsed = std::result::Result<Password, &'static str>;

/// A password that somebody typed. It has no `Debug`, so that no log can show it.
pub struct Password(String);

impl Password {
    // ANCHOR: parse_password
    /// Parses a password that is to be kept. Every character counts as one, and none is demanded: rules about
    /// capitals and digits make passwords alike (NIST SP 800-63B-4, section 3.1.1.2).
    pub fn parse_new(input: &str) -> Parsed {
        let Self(password) = Self::parse_given(input)?;
        if password.chars().count() < LENGTH[0] {
            return Err("must be 15 to 128 characters");
        }
        // No keyboard types one, and the next program that this password passes through may stop at a NUL.
        if password.chars().any(char::is_control) {
            return Err("must not hold control characters");
        }
        let folded = password.to_lowercase();
        if COMMON.lines().any(|common| common == folded) {
            return Err("is among the passwords that are guessed first");
        }
        Ok(Self(password))
    }

    /// Parses a password that is to be compared. Only what is too long to be hashed is refused: the rules may have
    /// been others when it was made. One keyboard sends `ö` as one character, another as `o` and two dots: it is one
    /// password.
    pub fn parse_given(input: &str) -> Parsed {
        let password: String = input.nfc().collect();
        let fits = password.chars().count() <= LENGTH[1];
        if fits { Ok(Self(password)) } else { Err("must be 128 characters at most") }
    }
    // ANCHOR_END: parse_password
}

/// How much work a guess shall be.
#[derive(clap::Args, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Memory for Argon2id, in KiB
    #[arg(long = "argon2-memory", default_value_t = OWASP.memory_kib)]
    pub memory_kib: u32,
    /// Passes of Argon2id over it
    #[arg(long = "argon2-passes", default_value_t = OWASP.passes)]
    pub passes: u32,
}

/// The least that OWASP's Password Storage Cheat Sheet asks of Argon2id, with one lane.
pub const OWASP: Cost = Cost { memory_kib: 19_456, passes: 2 };

/// Hashes and compares, a few at a time.
pub struct Passwords {
    argon2: Argon2<'static>,
    /// As many as there are cores: more would only make each slower, and take 19 MiB each.
    turns: Arc<Semaphore>,
    /// Only one registration at a time may ask for a turn, so a flood of them delays a login by one hash at most.
    registrations: Arc<Semaphore>,
    /// For addresses that nobody has. Made with the same parameters as every new hash.
    dummy: String,
}

impl Passwords {
    /// Hashes with this cost. The error is a cost that Argon2 does not know.
    pub fn new(cost: Cost) -> Result<Self> {
        let params = Params::new(cost.memory_kib, cost.passes, 1, None).map_err(Error::internal)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let nobody = argon2.hash_password(b"the password of nobody").map_err(Error::internal)?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self {
            argon2,
            turns: Arc::new(Semaphore::new(cores)),
            registrations: Arc::new(Semaphore::new(1)),
            dummy: nobody.to_string(),
        })
    }

    /// The hash to keep, with its parameters and a salt of its own.
    pub async fn hash(&self, password: Password) -> Result<String> {
        let argon2 = self.argon2.clone();
        let one = turn(&self.registrations).await?;
        let work = move || (argon2.hash_password(password.0.as_bytes()), one).0;
        Ok(self.in_turn(work).await?.map_err(Error::internal)?.to_string())
    }

    // ANCHOR: verify_password
    /// Whether this is the password of the hash. Without a hash, since nobody has the address, it takes as long and
    /// the answer is no.
    pub async fn verify(&self, password: Password, hash: Option<&str>) -> Result<bool> {
        let known = PasswordHash::new(hash.unwrap_or(&self.dummy)).map_err(Error::internal)?;
        let argon2 = self.argon2.clone();
        // The parameters are those in the hash, whatever ours are by now.
        let matches = move || argon2.verify_password(password.0.as_bytes(), &known).is_ok();
        Ok(self.in_turn(matches).await? && hash.is_some())
    }
    // ANCHOR_END: verify_password

    // ANCHOR: in_turn
    /// Runs the work on a thread that may be blocked, when its turn has come.
    ///
    /// The turn goes with the work and not with the request: a client that hangs up gives its place to nobody
    /// while its hash is still being computed.
    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let turn = turn(&self.turns).await?;
        let work = spawn_blocking(move || (work(), turn).0);
        work.await.map_err(Error::internal)
    }
    // ANCHOR_END: in_turn
}

async fn turn(turns: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit> {
    let turn = timeout(TURN, Arc::clone(turns).acquire_owned()).await;
    turn.map_err(|_| Error::Unavailable("too many logins at once"))?.map_err(Error::internal)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const CHEAP: Cost = Cost { memory_kib: 64, passes: 1 };

    fn password(text: &str) -> Password {
        Password::parse_new(text).unwrap()
    }

    #[test]
    fn a_password_has_fifteen_to_128_characters_whatever_they_are() {
        for good in ["15 characters!!", "🦀🦞🦐🦑🐙🐚🐟🐠🐡🦈🐬🐳🐋🦭🦆", "пароль из двух слов"]
        {
            assert!(Password::parse_new(good).is_ok(), "{good}");
        }
        for bad in ["", "14 characters!", "with a \0 NUL inside", "with a\nline inside it"] {
            assert!(Password::parse_new(bad).is_err(), "{bad:?}");
        }
        let long: String = ('\u{4e00}'..).take(129).collect();
        assert!(Password::parse_new(&long).is_err());
        assert!(Password::parse_new(long.trim_start_matches('\u{4e00}')).is_ok());
    }

    #[test]
    fn what_is_guessed_first_is_refused_however_it_is_capitalised() {
        for bad in ["Correct Horse Battery Staple", "passwordPASSWORD", "1QAZ2wsx3edc4rfv"] {
            assert!(Password::parse_new(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_password_is_the_same_composed_and_decomposed() {
        let passwords = Passwords::new(CHEAP).unwrap();
        let hash = passwords.hash(password("ein schönes passörd")).await.unwrap();
        let decomposed = Password::parse_given("ein scho\u{308}nes passo\u{308}rd").unwrap();
        assert!(passwords.verify(decomposed, Some(&hash)).await.unwrap());
    }

    #[tokio::test]
    async fn only_the_same_password_matches_and_each_hash_has_its_own_salt() {
        let passwords = Passwords::new(CHEAP).unwrap();
        let hash = passwords.hash(password("seven quiet otters")).await.unwrap();
        let again = passwords.hash(password("seven quiet otters")).await.unwrap();
        assert_ne!(hash, again);
        assert!(passwords.verify(password("seven quiet otters"), Some(&hash)).await.unwrap());
        assert!(!passwords.verify(password("seven quiet others"), Some(&hash)).await.unwrap());
        // Nobody's password is the dummy's.
        assert!(!passwords.verify(password("the password of nobody"), None).await.unwrap());
    }

    #[tokio::test]
    async fn for_nobody_a_hash_is_computed_too_and_waits_for_its_turn() {
        let passwords = Passwords::new(CHEAP).unwrap();
        let hash = passwords.hash(password("seven quiet otters")).await.unwrap();
        let cores = u32::try_from(passwords.turns.available_permits()).unwrap();
        let all = passwords.turns.acquire_many(cores).await.unwrap();
        // Whoever has an answer while no hash can be computed has not computed one.
        for kept in [Some(hash.as_str()), None] {
            let answer = passwords.verify(password("seven quiet otters"), kept).now_or_never();
            assert!(answer.is_none(), "{kept:?} is answered without a hash");
        }
        drop(all);
        assert!(!passwords.verify(password("seven quiet otters"), None).await.unwrap());
    }

    #[tokio::test]
    async fn registrations_queue_among_themselves_and_not_before_logins() {
        let passwords = Passwords::new(CHEAP).unwrap();
        let one = turn(&passwords.registrations).await.unwrap();
        // As when a registration is hashed just now: another one waits, a login does not.
        let other = passwords.hash(password("seven quiet otters"));
        assert!(timeout(Duration::from_millis(300), other).await.is_err(), "it does not wait");
        assert!(!passwords.verify(password("seven quiet otters"), None).await.unwrap());
        drop(one);
        assert!(passwords.hash(password("seven quiet otters")).await.is_ok());
    }

    #[tokio::test]
    async fn a_hash_says_with_what_it_was_made() {
        let (old, new) = (Passwords::new(CHEAP).unwrap(), Passwords::new(OWASP).unwrap());
        let hash = old.hash(password("seven quiet otters")).await.unwrap();
        assert!(new.verify(password("seven quiet otters"), Some(&hash)).await.unwrap());
        assert!(new.dummy.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", new.dummy);
    }
}
