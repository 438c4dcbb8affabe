//! Who is asking? The one way from a token to its claims.

use std::sync::Arc;

use crate::{
    claims::{Claims, Policy},
    deny::DenyList,
    error::Error,
    keyring::Keyring,
};

/// Verifies access tokens. Any service that knows where the key set is published can have one: it needs neither the
/// issuer's database nor its secrets.
#[derive(Clone)]
pub struct Verifier {
    policy: Arc<Policy>,
    keyring: Arc<Keyring>,
    /// Without it, a token is valid until it ends, whatever happens.
    deny: Option<DenyList>,
}

impl Verifier {
    /// Verifies by these keys, and asks the deny-list if there is one.
    pub fn new(policy: Arc<Policy>, keyring: Arc<Keyring>, deny: Option<DenyList>) -> Self {
        Self { policy, keyring, deny }
    }

    // ANCHOR: verify
    /// The claims of the token, if it is to be believed.
    pub async fn verify(&self, token: &str) -> Result<Claims, Error> {
        let key = self.keyring.get(&Policy::key_id(token)?).await?;
        let claims = self.policy.claims(token, &key)?;
        // Last, so that only tokens that we made cost a question.
        if let Some(deny) = &self.deny
            && deny.holds(claims.jti).await?
        {
            return Err(Error::InvalidToken("denied"));
        }
        Ok(claims)
    }
    // ANCHOR_END: verify

    /// Whether it can verify at all.
    pub async fn ready(&self) -> Result<(), Error> {
        self.keyring.public().await?;
        match &self.deny {
            Some(deny) => deny.ping().await,
            None => Ok(()),
        }
    }
}
