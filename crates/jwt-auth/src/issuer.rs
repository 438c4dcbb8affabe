//! Who signs, and with which key? Keys live in the database, so that every process has the same ones, and each has its
//! time: published first, then used, then kept until the last token that it signed has ended.
//!
//! Invariant: a key signs only after every verifier has had the time to fetch it, and it is published until no token of
//! its can be valid.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use ed25519_dalek::{SigningKey, pkcs8::EncodePrivateKey};
use futures_util::FutureExt;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use uuid::Uuid;

use crate::{
    claims::{CLIENT_ID, Claims, Policy, TYPE},
    error::Error,
    jwks::PublicKey,
    keyring::{COOLDOWN, Keyring, Load},
    schedule::Schedule,
    store::{Account, KeyRow, Store},
};

/// A private key, and from when on it signs.
struct Signer {
    kid: String,
    key: EncodingKey,
    from: Instant,
}

/// Makes access tokens.
pub struct Issuer {
    policy: Arc<Policy>,
    schedule: Schedule,
    /// The oldest first.
    signers: Arc<RwLock<Vec<Signer>>>,
    keyring: Arc<Keyring>,
}

impl Issuer {
    /// Signs with the keys of this database.
    pub fn new(store: Arc<Store>, policy: Arc<Policy>, schedule: Schedule) -> Self {
        let signers = Arc::new(RwLock::new(Vec::new()));
        let keyring = Arc::new(Keyring::new(load(store, schedule, Arc::clone(&signers))));
        Self { policy, schedule, signers, keyring }
    }

    /// The public halves of its keys.
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// How long its tokens live.
    pub fn token_life(&self) -> Duration {
        self.schedule.token_life
    }

    // ANCHOR: sign
    /// An access token for this user, with an id that the caller has chosen and written down.
    pub async fn sign(&self, account: &Account, sid: Uuid, jti: Uuid) -> Result<String, Error> {
        if self.signer().is_none() {
            self.keyring.load_unless_asked_within(COOLDOWN).await?;
        }
        let (kid, key) = self.signer().ok_or(Error::Away("the signing key"))?;
        let now = get_current_timestamp();
        let claims = Claims {
            iss: self.policy.issuer().to_owned(),
            aud: self.policy.audience().to_owned(),
            sub: account.id,
            client_id: CLIENT_ID.to_owned(),
            exp: now + self.schedule.token_life.as_secs(),
            nbf: now,
            iat: now,
            jti,
            sid,
            email: account.email.clone(),
        };
        let header =
            Header { typ: Some(TYPE.to_owned()), kid: Some(kid), ..Header::new(Algorithm::EdDSA) };
        encode(&header, &claims, &key).map_err(Error::internal)
    }

    /// The youngest key whose time has come.
    fn signer(&self) -> Option<(String, EncodingKey)> {
        let signers = self.signers.read().unwrap_or_else(PoisonError::into_inner);
        let signer = signers.iter().rev().find(|signer| signer.from <= Instant::now())?;
        Some((signer.kid.clone(), signer.key.clone()))
    }
    // ANCHOR_END: sign
}

/// Reads the keys, makes a new one if it is time for it, and keeps the private halves here.
fn load(store: Arc<Store>, schedule: Schedule, signers: Arc<RwLock<Vec<Signer>>>) -> Load {
    Box::new(move || {
        let (store, signers) = (Arc::clone(&store), Arc::clone(&signers));
        async move {
            // Before the question, since the database counts the seconds from some moment after it.
            let asked_at = Instant::now();
            let rows = store.rotate_keys(new_key()?, schedule).await?;
            let public = rows.iter().map(KeyRow::public).collect();
            let private = rows.into_iter().map(|row| Signer {
                kid: row.kid,
                key: EncodingKey::from_ed_der(&row.private_key),
                from: asked_at + Duration::from_secs_f64(row.seconds_until_it_signs.max(0.0)),
            });
            *signers.write().unwrap_or_else(PoisonError::into_inner) = private.collect();
            Ok(public)
        }
        .boxed()
    })
}

/// A private key in PKCS#8, and its public half.
fn new_key() -> Result<(Vec<u8>, PublicKey), Error> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(Error::internal)?;
    let key = SigningKey::from_bytes(&seed);
    let private = key.to_pkcs8_der().map_err(Error::internal)?.as_bytes().to_vec();
    Ok((private, PublicKey::new(key.verifying_key().to_bytes())))
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::DecodingKey;
    use serde_json::{Value, json};

    use super::*;

    const LEEWAY: u64 = 30;

    fn policy() -> Policy {
        Policy::new("https://auth.example", "https://api.example", Duration::from_secs(LEEWAY))
    }

    /// Signs these claims, and says what the policy makes of them.
    fn verdict(claims: &Value) -> bool {
        let (private, public) = new_key().unwrap();
        let header = Header {
            typ: Some(TYPE.to_owned()),
            kid: Some(public.kid.clone()),
            ..Header::new(Algorithm::EdDSA)
        };
        let token = encode(&header, claims, &EncodingKey::from_ed_der(&private)).unwrap();
        assert_eq!(Policy::key_id(&token).unwrap(), public.kid);
        policy().claims(&token, &DecodingKey::from_ed_der(&public.bytes)).is_ok()
    }

    fn good() -> Value {
        let now = get_current_timestamp();
        json!({
            "iss": "https://auth.example", "aud": "https://api.example", "sub": Uuid::nil(),
            "client_id": CLIENT_ID, "exp": now + 60, "nbf": now, "iat": now, "jti": Uuid::nil(),
            "sid": Uuid::nil(), "email": "a@b.example",
        })
    }

    #[test]
    fn every_claim_is_needed() {
        assert!(verdict(&good()));
        for claim in good().as_object().unwrap().keys() {
            let mut claims = good();
            claims.as_object_mut().unwrap().remove(claim);
            assert!(!verdict(&claims), "without {claim}");
            claims[claim] = json!([1]);
            assert!(!verdict(&claims), "with a wrong {claim}");
        }
    }

    #[test]
    fn clocks_may_differ_by_the_leeway_and_no_more() {
        let now = get_current_timestamp();
        // Five seconds for a slow machine between the two readings of the clock.
        for (claim, within, beyond) in [
            ("exp", now - LEEWAY + 5, now - LEEWAY - 1),
            ("nbf", now + LEEWAY, now + LEEWAY + 6),
            ("iat", now + LEEWAY, now + LEEWAY + 6),
        ] {
            for (time, expected) in [(within, true), (beyond, false)] {
                let mut claims = good();
                claims[claim] = time.into();
                assert_eq!(verdict(&claims), expected, "{claim} {time}");
            }
        }
    }
}
