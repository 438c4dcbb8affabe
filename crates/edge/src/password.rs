//! How are passwords hashed and compared, so that a flood of logins takes neither all cores nor all memory, and an unknown
//! account takes as long as a known one?

use std::{error::Error, num::NonZero, sync::Arc, time::Duration};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use crate::secret::Secret;

/// How long a login waits for its turn. In a flood it is better to turn some away than to let all wait.
const TURN: Duration = Duration::from_secs(2);
/// The least that OWASP's cheat sheet asks of Argon2id, with one lane: 19 MiB, and two passes.
const COST: (u32, u32) = (19_456, 2);

/// Why no password was compared.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Others are hashed, and it took too long until its turn came.
    #[error("too many logins at once")]
    Busy,
    /// Our own fault.
    #[error("a password cannot be hashed")]
    Internal(#[source] Box<dyn Error + Send + Sync>),
}

fn internal(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Refusal {
    Refusal::Internal(cause.into())
}

/// Hashes and compares, a few at a time.
pub struct Passwords {
    argon2: Argon2<'static>,
    /// Half as many as there are cores: the other half answers everybody else. Each takes 19 MiB.
    turns: Arc<Semaphore>,
    /// For accounts that nobody has.
    dummy: String,
}

impl Passwords {
    /// With OWASP's cost.
    pub fn new() -> Result<Self, Refusal> {
        let params = Params::new(COST.0, COST.1, 1, None).map_err(internal)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let turns = Arc::new(Semaphore::new(cores.div_ceil(2)));
        let mut this = Self { argon2, turns, dummy: String::new() };
        this.dummy = this.hash(&Secret::new("the password of nobody"))?;
        Ok(this)
    }

    /// The hash to keep, with its parameters and a salt of its own. It blocks.
    pub fn hash(&self, password: &Secret) -> Result<String, Refusal> {
        let hash = self.argon2.hash_password(password.expose().as_bytes());
        Ok(hash.map_err(internal)?.to_string())
    }

    /// Whether this is the password of the hash. Without a hash, since nobody has the account, it takes as long, and the
    /// answer is no. Limit the length of a password before.
    pub async fn verify(&self, password: Secret, hash: Option<&str>) -> Result<bool, Refusal> {
        let turn = timeout(TURN, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.map_err(|_| Refusal::Busy)?.map_err(internal)?;
        let known = PasswordHash::new(hash.unwrap_or(&self.dummy)).map_err(internal)?;
        let argon2 = self.argon2.clone();
        // The turn goes with the work: a client that hangs up gives its place to nobody while the hash is computed.
        let matches =
            move || (argon2.verify_password(password.expose().as_bytes(), &known).is_ok(), turn).0;
        Ok(spawn_blocking(matches).await.map_err(internal)? && hash.is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

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
    }

    #[tokio::test]
    async fn for_nobody_a_hash_is_computed_too() {
        let passwords = Passwords::new().unwrap();
        let hash = passwords.hash(&Secret::new("seven quiet otters")).unwrap();
        let turns = u32::try_from(passwords.turns.available_permits()).unwrap();
        let all = passwords.turns.acquire_many(turns).await.unwrap();
        // Whoever has an answer while no hash can be computed has not computed one.
        for known in [Some(hash.as_str()), None] {
            let answer = pin!(passwords.verify(Secret::new("seven quiet otters"), known));
            let answer = answer.poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(answer, Poll::Pending), "{known:?} is answered without a hash");
        }
        drop(all);
        assert!(!passwords.verify(Secret::new("seven quiet otters"), None).await.unwrap());
    }
}
