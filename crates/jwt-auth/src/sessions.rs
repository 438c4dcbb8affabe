//! How does somebody come in, stay in, and leave?

use std::{net::IpAddr, sync::Arc, time::Duration};

use uuid::Uuid;

use crate::{
    claims::Claims,
    deny::DenyList,
    email::Email,
    error::Error,
    issuer::Issuer,
    password::{Password, Passwords},
    refresh::RefreshToken,
    store::{Account, NewToken, Refreshed, Revoked, Store},
    throttle::{Attempt, Limits},
};

/// How much longer an access token is denied than it should live: it is signed some time after its row is written, lives
/// to the end of a whole second, and ends by a verifier's clock and not by ours. Denied too long it harms nobody; too
/// short, and a token that was taken back would be believed again.
const DENIED_LONGER: Duration = Duration::from_secs(10);

/// What a client gets: an access token to show, and a refresh token to keep.
#[derive(Debug)]
pub struct Pair {
    /// Short-lived, believed by everyone who has the public keys.
    pub access_token: String,
    /// How long that is.
    pub expires_in: Duration,
    /// Long-lived, shown to us only, and used once.
    pub refresh_token: RefreshToken,
}

/// How a client shows which session it wants to end.
#[derive(Debug)]
pub enum Proof {
    /// By a refresh token: also when the access token has ended.
    Refresh(RefreshToken),
    /// By an access token.
    Access(Claims),
}

/// Accounts and their sessions.
pub struct Sessions {
    /// The database.
    pub store: Arc<Store>,
    /// Makes access tokens.
    pub issuer: Issuer,
    /// Hashes.
    pub passwords: Passwords,
    /// Slows guessing down.
    pub limits: Limits,
    /// By how much clocks may differ: so much longer than its life an access token is believed.
    pub leeway: Duration,
    /// How long a refresh token lives if it is not used.
    pub refresh_life: Duration,
    /// How far apart two uses of a refresh token may be.
    pub grace: Duration,
    /// Where access tokens are denied, if anywhere.
    pub deny: Option<DenyList>,
}

impl Sessions {
    /// A new account.
    pub async fn register(&self, email: &Email, password: Password) -> Result<Account, Error> {
        let hash = self.passwords.hash(password).await?;
        self.store.insert_user(email, &hash).await
    }

    // ANCHOR: login
    /// A new session, for who knows the password. All who do not are treated alike, in words and in time.
    pub async fn login(
        &self,
        email: &Email,
        password: Password,
        client: IpAddr,
    ) -> Result<Pair, Error> {
        let attempt = Attempt::new(email, client);
        self.store.charge(&attempt, self.limits).await?;
        let found = self.store.credentials(email).await?;
        let hash = found.as_ref().map(|found| found.password_hash.as_str());
        // Hashes also for nobody. `?` for who is not found comes after it, never before.
        let right = match self.passwords.verify(password.clone(), hash).await {
            // Nothing was compared, so nobody has learned anything, and nobody has to wait for it.
            Err(error) => {
                self.store.take_back(&attempt).await?;
                return Err(error);
            }
            Ok(right) => right,
        };
        let found = found.filter(|_| right).ok_or(Error::WrongCredentials)?;

        self.store.refund(&attempt).await?;
        if self.passwords.is_outdated(&found.password_hash) {
            let hash = self.passwords.hash(password).await?;
            self.store.replace_hash(found.account.id, &found.password_hash, &hash).await?;
        }
        let (refresh_token, row) = self.new_token()?;
        let family = self.store.open_family(found.account.id, row).await?;
        self.pair(&found.account, family, row.access_jti, refresh_token).await
    }
    // ANCHOR_END: login

    // ANCHOR: refresh
    /// A new pair for a refresh token. One that was used before ends its whole family.
    pub async fn refresh(&self, presented: &RefreshToken) -> Result<Pair, Error> {
        let (refresh_token, row) = self.new_token()?;
        match self.store.refresh(presented.hash(), row, self.grace).await? {
            Refreshed::Done { account, family } => {
                self.pair(&account, family, row.access_jti, refresh_token).await
            }
            Refreshed::Reused(revoked) => {
                tracing::warn!("a refresh token was used twice: its family is revoked");
                self.deny(&revoked).await?;
                Err(Error::InvalidRefreshToken)
            }
            // Told to the deny-list again: the first time, Redis may have been away.
            Refreshed::Revoked(revoked) => {
                self.deny(&revoked).await?;
                Err(Error::InvalidRefreshToken)
            }
            Refreshed::Refused => Err(Error::InvalidRefreshToken),
        }
    }
    // ANCHOR_END: refresh

    /// Ends this session. To do it again does no harm, and mends what a failure may have left undone.
    pub async fn logout(&self, proof: Proof) -> Result<(), Error> {
        let family = match proof {
            Proof::Access(claims) => claims.sid,
            Proof::Refresh(token) => self.session(&token).await?.family,
        };
        self.deny(&self.store.revoke_family(family).await?).await
    }

    /// Ends all sessions of the user. A token that is itself over must not be able to.
    pub async fn logout_everywhere(&self, proof: Proof) -> Result<(), Error> {
        let user = match proof {
            Proof::Access(claims) => claims.sub,
            Proof::Refresh(token) => {
                let session = self.session(&token).await?;
                if !session.alive {
                    return Err(Error::InvalidRefreshToken);
                }
                session.user
            }
        };
        self.deny(&self.store.revoke_user(user).await?).await
    }

    async fn session(&self, token: &RefreshToken) -> Result<crate::store::Session, Error> {
        self.store.session(token.hash()).await?.ok_or(Error::InvalidRefreshToken)
    }

    /// With a deny-list, a revoked session's access tokens end as well. Without one they live on.
    async fn deny(&self, revoked: &Revoked) -> Result<(), Error> {
        match &self.deny {
            Some(deny) => deny.add(revoked).await,
            None => Ok(()),
        }
    }

    fn new_token(&self) -> Result<(RefreshToken, NewToken), Error> {
        let token = RefreshToken::generate()?;
        let row = NewToken {
            hash: token.hash(),
            life: self.refresh_life,
            access_jti: Uuid::new_v4(),
            access_life: self.issuer.token_life() + self.leeway * 2 + DENIED_LONGER,
        };
        Ok((token, row))
    }

    async fn pair(
        &self,
        account: &Account,
        family: Uuid,
        jti: Uuid,
        refresh_token: RefreshToken,
    ) -> Result<Pair, Error> {
        let access_token = self.issuer.sign(account, family, jti).await?;
        Ok(Pair { access_token, expires_in: self.issuer.token_life(), refresh_token })
    }
}
