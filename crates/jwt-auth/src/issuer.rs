//! Who signs, and with which key? Keys live in the database, so that every process has the same ones, and each has its
//! time: published first, then used, then kept until the last token that it signed has ended.
//!
//! Invariant: a key signs only after every verifier has had the time to fetch it, and it is published until no token of
//! its can be valid. Only in an emergency a new key signs at once.

use std::{sync::Arc, time::Duration};

use ed25519_dalek::{
    SigningKey,
    pkcs8::{DecodePrivateKey, EncodePrivateKey},
};
use futures_util::FutureExt;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use uuid::Uuid;

use crate::{
    claims::{CLIENT_ID, Claims, Names, TYPE},
    error::{Error, Result},
    jwks::{Load, PublicKey},
    keyring::Keyring,
    store::{Account, Store},
};

/// When keys and tokens end.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Schedule {
    /// Seconds that an access token lives
    #[arg(long, default_value_t = 900, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub access_seconds: u64,
    /// Seconds by which clocks may differ
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=300))]
    pub leeway_seconds: u64,
    /// Seconds that a key signs, before the next one does
    #[arg(long = "key-seconds", default_value = "2592000", value_parser = seconds)]
    pub key_life: Duration,
    /// Seconds that a key set may be used before it is fetched again
    #[arg(long = "jwks-seconds", default_value = "300", value_parser = seconds)]
    pub key_set_max_age: Duration,
}

impl Schedule {
    // ANCHOR: schedule
    /// How long a key is published before it signs: another process of ours reads it well within one age of the set, a
    /// verifier fetches it within one more, and one is to spare for a fetch that fails.
    pub fn publish_ahead(&self) -> Duration {
        self.key_set_max_age * 3
    }

    /// How long a key stays published after its successor has begun to sign: until its last token has ended, and a
    /// second, since tokens count in whole ones.
    pub fn publish_after(&self) -> Duration {
        Duration::from_secs(self.access_seconds + self.leeway_seconds + 1)
    }
    // ANCHOR_END: schedule

    /// How often our own processes read the keys: so much more often than verifiers do that a key which is withdrawn is
    /// gone from everywhere after one age of the set, and not after two.
    pub fn check_every(&self) -> Duration {
        (self.key_set_max_age / 60).max(Duration::from_millis(100))
    }
}

/// A time of a tenth of a second to ten years, for the command line.
pub fn seconds(text: &str) -> std::result::Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    let time = Duration::try_from_secs_f64(seconds).ok();
    let allowed = time.filter(|_| (0.1..=315_360_000.0).contains(&seconds));
    allowed.ok_or_else(|| "is not between 0.1 and 315360000".to_owned())
}

/// Makes keys, and says which one signs.
pub struct Issuer {
    store: Store,
    names: Names,
    /// When its keys and tokens end.
    pub schedule: Schedule,
    /// The public halves of its keys.
    pub keyring: Arc<Keyring>,
}

/// The key that signs at this moment.
pub struct Signer {
    kid: String,
    key: EncodingKey,
    now: u64,
}

impl Issuer {
    /// Signs with the keys of this database.
    pub fn new(store: Store, names: Names, schedule: Schedule) -> Self {
        let keyring = Arc::new(Keyring::new(load(store.clone(), schedule)));
        Self { store, names, schedule, keyring }
    }

    // ANCHOR: sign
    /// The key that signs now. Ask for it before you write anything that makes sense only with a token in the client's
    /// hands. Only the database's clock says whose turn it is.
    pub async fn signer(&self) -> Result<Signer> {
        let now = get_current_timestamp();
        let mut key = self.store.signing_key().await?;
        if key.is_none() {
            // This makes one.
            self.keyring.load().await?;
            key = self.store.signing_key().await?;
        }
        let (kid, private_key) = key.ok_or(Error::Unavailable("there is no signing key"))?;
        // In an emergency another process has made it just now. It is published before it signs.
        if self.keyring.get(&kid).await.is_err() {
            self.keyring.load().await?;
        }
        Ok(Signer { kid, key: EncodingKey::from_ed_der(&private_key), now })
    }
}

impl Signer {
    /// An access token for this user's session.
    pub fn sign(&self, account: &Account, sid: Uuid, issuer: &Issuer) -> Result<String> {
        let claims = Claims {
            iss: issuer.names.issuer.clone(),
            aud: issuer.names.audience.clone(),
            sub: account.id,
            client_id: CLIENT_ID.to_owned(),
            // From when it was the key's turn, and not from now: so the key's last token ends when we say.
            exp: self.now + issuer.schedule.access_seconds,
            nbf: self.now,
            iat: self.now,
            jti: Uuid::new_v4(),
            sid,
            email: account.email.clone(),
        };
        let (typ, kid) = (Some(TYPE.to_owned()), Some(self.kid.clone()));
        let header = Header { typ, kid, ..Header::new(Algorithm::EdDSA) };
        encode(&header, &claims, &self.key).map_err(Error::internal)
    }
}
// ANCHOR_END: sign

/// Reads the keys, and makes a new one if it is time for it.
fn load(store: Store, schedule: Schedule) -> Load {
    Box::new(move || {
        let store = store.clone();
        async move {
            let (private, PublicKey { kid, .. }) = new_key()?;
            let times = [schedule.publish_ahead(), schedule.key_life, schedule.publish_after()];
            let rows = store.rotate_keys(&kid, &private, times).await?;
            let public = rows.into_iter().map(|(kid, private_key)| {
                let key = SigningKey::from_pkcs8_der(&private_key).map_err(Error::internal)?;
                Ok(PublicKey { kid, bytes: key.verifying_key().to_bytes() })
            });
            public.collect()
        }
        .boxed()
    })
}

/// A private key in PKCS#8, and its public half.
fn new_key() -> Result<(Vec<u8>, PublicKey)> {
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
    use crate::claims::Policy;

    const LEEWAY: u64 = 30;

    fn policy() -> Policy {
        let (issuer, audience) = ("https://auth.example".into(), "https://api.example".into());
        Policy::new(&Names { issuer, audience }, LEEWAY)
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

    /// The chapter says so: a verifier without a deny-list believes a withdrawn key for the age of its set and this.
    #[test]
    fn the_issuers_processes_notice_within_five_seconds_that_a_key_was_withdrawn() {
        let schedule = Schedule {
            access_seconds: 900,
            leeway_seconds: LEEWAY,
            key_life: Duration::from_hours(720),
            key_set_max_age: Duration::from_mins(5),
        };
        assert_eq!(schedule.check_every(), Duration::from_secs(5));
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

    #[test]
    fn both_ways_to_write_the_type_are_one() {
        for (typ, expected) in [
            ("at+jwt", true),
            ("AT+JWT", true),
            ("application/at+jwt", true),
            ("Application/At+Jwt", true),
            ("JWT", false),
            ("text/at+jwt", false),
            ("application/application/at+jwt", false),
        ] {
            let kid = Some("k".to_owned());
            let header = Header { typ: Some(typ.to_owned()), kid, ..Header::new(Algorithm::EdDSA) };
            let (private, _) = new_key().unwrap();
            let token = encode(&header, &good(), &EncodingKey::from_ed_der(&private)).unwrap();
            assert_eq!(Policy::key_id(&token).is_ok(), expected, "{typ}");
        }
    }
}
