//! How does somebody come in, stay in, and leave?

use std::{net::IpAddr, time::Duration};

use edge::email::Email;
use serde::Serialize;
use uuid::Uuid;

use crate::{
    claims::Claims,
    deny::DenyList,
    error::{Error, Result},
    issuer::{Issuer, Signer},
    keyring::STALE_FOR,
    password::{Password, Passwords},
    refresh::{RefreshToken, Verdict},
    store::{
        Account, Store,
        throttle::{Attempt, Limits},
    },
};

/// By how many seconds longer a session is denied than its last token should live: that token is perhaps being signed just now,
/// lives to the end of a whole second, and ends by a verifier's clock and not by ours. Denied too long harms nobody.
const DENIED_LONGER: u64 = 10;

/// What a client gets (RFC 6749, section 5.1): an access token to show to everybody, and a refresh token to keep.
#[derive(Serialize)]
pub struct Tokens {
    access_token: String,
    token_type: &'static str,
    expires_in: u64,
    refresh_token: String,
}

/// Accounts and their sessions.
pub struct Sessions {
    /// The database.
    pub store: Store,
    /// Makes access tokens.
    pub issuer: Issuer,
    /// Hashes.
    pub passwords: Passwords,
    /// Slow guessing down.
    pub limits: Limits,
    /// How long a session lives if it is not refreshed, and if it is.
    pub lives: [Duration; 2],
    /// How far apart two uses of a refresh token may be.
    pub grace: Duration,
    /// Where sessions and keys are denied, if anywhere.
    pub deny: Option<DenyList>,
}

impl Sessions {
    /// A new account.
    pub async fn register(&self, email: &Email, new: Password, client: IpAddr) -> Result<Account> {
        self.store.charge(&Attempt::registration(client, self.limits)).await?;
        let hash = self.passwords.hash(new).await?;
        self.store.insert_user(email, &hash).await
    }

    // ANCHOR: login
    /// Opens a session if the password is right. All failures are alike, in words and in time.
    ///
    /// Run it in a task of its own, so that it ends properly if the client hangs up or the request times out: whether
    /// the attempt counts must not depend on that.
    pub async fn login(&self, email: &Email, given: Password, client: IpAddr) -> Result<Tokens> {
        let attempt = Attempt::login(email, client, self.limits);
        self.store.charge(&attempt).await?;
        let account = match self.account(email, given).await {
            Ok(account) => account.ok_or(Error::WrongCredentials)?,
            // Nothing was compared, so nobody has learned anything, and nobody has to wait for it.
            Err(error) => return self.store.take_back(&attempt, false).await.and(Err(error)),
        };
        self.store.take_back(&attempt, true).await?;
        let (signer, token) = (self.issuer.signer().await?, RefreshToken::generate()?);
        let session = self.store.open_session(account.id, token.hash(), self.lives).await?;
        self.tokens(&signer, &account, session, &token)
    }

    /// The account of this address, if this is its password.
    async fn account(&self, email: &Email, given: Password) -> Result<Option<Account>> {
        let found = self.store.credentials(email).await?;
        let hash = found.as_ref().map(|(_, hash)| hash.as_str());
        // This hashes in any case, also without an account.
        let right = self.passwords.verify(given, hash).await?;
        Ok(found.filter(|_| right).map(|(account, _)| account))
    }
    // ANCHOR_END: login

    // ANCHOR: refresh
    /// A new pair for a refresh token. One that was used before ends its session.
    pub async fn refresh(&self, presented: &RefreshToken) -> Result<Tokens> {
        // Before anything is written: if there is no key, the client must be able to come again with this very token.
        let signer = self.issuer.signer().await?;
        let next = RefreshToken::generate()?;
        let (presented, hash) = (presented.hash(), next.hash());
        let found = self.store.refresh(presented, hash, [self.lives[0], self.grace]).await?;
        let (verdict, found) = found.ok_or(Error::InvalidRefreshToken)?;
        let (user, session) = (found.account.id, found.session);
        match verdict {
            Verdict::Advance | Verdict::Join => {
                return self.tokens(&signer, &found.account, session, &next);
            }
            Verdict::Reuse => {
                tracing::warn!(%user, %session, "a refresh token was used twice: a thief?");
                self.deny(&[session]).await?;
            }
            // Deny it once more: the first time, Redis may have been away.
            Verdict::Revoked => self.deny(&[session]).await?,
            Verdict::Expired => {}
        }
        Err(Error::InvalidRefreshToken)
    }
    // ANCHOR_END: refresh

    // ANCHOR: logout
    /// Ends this session. A client may repeat it: that does no harm, and mends what a failure left undone.
    pub async fn logout(&self, claims: &Claims) -> Result<()> {
        self.store.revoke_session(claims.sid).await?;
        self.deny(&[claims.sid]).await
    }

    /// Ends all sessions of the user.
    pub async fn logout_everywhere(&self, claims: &Claims) -> Result<()> {
        let sessions = self.store.revoke_user(claims.sub).await?;
        self.deny(&sessions).await
    }

    /// With a deny-list, the access tokens of a revoked session end as well. Without one they live on.
    async fn deny(&self, sessions: &[Uuid]) -> Result<()> {
        let Some(deny) = &self.deny else { return Ok(()) };
        let sessions: Vec<_> = sessions.iter().map(Uuid::to_string).collect();
        let schedule = self.issuer.schedule;
        let life = schedule.access_seconds + 2 * schedule.leeway_seconds + DENIED_LONGER;
        deny.add(&sessions, Duration::from_secs(life)).await
    }
    // ANCHOR_END: logout

    // ANCHOR: withdraw
    /// Takes out a key that was stolen, and makes another one sign at once. Returns whether the key was there.
    ///
    /// A verifier with a deny-list refuses its tokens from now on. Another one refuses them when it next fetches the key
    /// set, or after an hour if it cannot; and an hour later still, if it last asked a process of ours that was itself
    /// cut off from the database.
    pub async fn withdraw(&self, kid: &str) -> Result<bool> {
        let found = self.store.withdraw_key(kid).await?;
        self.issuer.keyring.load().await?;
        if let Some(deny) = &self.deny {
            let life = 2 * STALE_FOR + self.issuer.schedule.key_set_max_age;
            deny.add(&[kid.to_owned()], life).await?;
        }
        Ok(found)
    }
    // ANCHOR_END: withdraw

    fn tokens(&self, by: &Signer, of: &Account, sid: Uuid, next: &RefreshToken) -> Result<Tokens> {
        Ok(Tokens {
            access_token: by.sign(of, sid, &self.issuer)?,
            token_type: "Bearer",
            expires_in: self.issuer.schedule.access_seconds,
            refresh_token: next.reveal(),
        })
    }
}
