//! Who says so? A token that one of our processes has signed for ten minutes, and nothing else that a request contains.
//!
//! Invariant: the algorithm and the key are ours. Nothing that the token says chooses either.

use ed25519_dalek::{SigningKey, pkcs8::EncodePrivateKey};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Result};

/// Seconds that a token lives. A user whose role is taken away keeps it for as long.
pub const LIFE: u64 = 600;
/// Ours have some 500 bytes. A longer one is refused before anything is decoded.
const LONGEST: usize = 2_048;
const ISSUER: &str = "https://invoices.example/login";
const AUDIENCE: &str = "https://invoices.example";
/// The type from RFC 9068, whose `jti` and `client_id` we do not use: no other JWT that the same key may sign one day passes
/// for an access token.
const TYPE: &str = "at+jwt";

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Reads and writes.
    Clerk,
    /// Administers customers, and sees no invoice.
    Admin,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Caller {
    /// The user.
    pub user: Uuid,
    /// For whom the user works.
    pub customer: Uuid,
    /// As what.
    pub role: Role,
}

/// Who asks, and in which request: what the audit keeps.
#[derive(Clone, Copy, Debug)]
pub struct By {
    /// Who asks.
    pub who: Caller,
    /// The request's id.
    pub request_id: Uuid,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    iss: String,
    aud: String,
    sub: Uuid,
    customer: Uuid,
    role: Role,
    iat: u64,
    exp: u64,
}

/// Signs tokens, and believes those that it signed.
pub struct Tokens {
    signs: EncodingKey,
    verifies: DecodingKey,
    validation: Validation,
}

impl Tokens {
    /// With this key. Processes that serve the same clients need the same.
    pub fn new(seed: [u8; 32]) -> Result<Self> {
        let key = SigningKey::from_bytes(&seed);
        let private = key.to_pkcs8_der().map_err(Error::internal)?;
        // The one algorithm that we use. What the token's header says must be equal to it. RFC 9864 prefers the name
        // `Ed25519` for it, which our library does not write yet.
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.leeway = 0;
        let verifies = DecodingKey::from_ed_der(&key.verifying_key().to_bytes());
        Ok(Self { signs: EncodingKey::from_ed_der(private.as_bytes()), verifies, validation })
    }

    /// A token for this caller, from this second since 1970 on.
    pub fn sign(&self, Caller { user, customer, role }: Caller, iat: u64) -> Result<String> {
        let header = Header { typ: Some(TYPE.to_owned()), ..Header::new(Algorithm::EdDSA) };
        let [iss, aud] = [ISSUER, AUDIENCE].map(str::to_owned);
        let claims = Claims { iss, aud, sub: user, customer, role, iat, exp: iat + LIFE };
        encode(&header, &claims, &self.signs).map_err(Error::internal)
    }

    // ANCHOR: caller
    /// Who shows this token, if it is to be believed. The client does not learn what is wrong with it.
    pub fn caller(&self, token: &str) -> Result<Caller> {
        if token.len() > LONGEST {
            return Err(Error::UNAUTHENTICATED);
        }
        let token = decode::<Claims>(token, &self.verifies, &self.validation);
        let token = token.map_err(|_| Error::UNAUTHENTICATED)?;
        if token.header.typ.as_deref() != Some(TYPE) {
            return Err(Error::UNAUTHENTICATED);
        }
        let Claims { sub: user, customer, role, .. } = token.claims;
        Ok(Caller { user, customer, role })
    }
    // ANCHOR_END: caller
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::get_current_timestamp;

    use super::*;

    const ADA: Caller = Caller { user: Uuid::nil(), customer: Uuid::max(), role: Role::Clerk };

    fn tokens() -> Tokens {
        Tokens::new([7; 32]).unwrap()
    }

    /// Signed with our key, but with another header or other claims.
    fn signed(header: &Header, change: impl FnOnce(&mut Claims)) -> String {
        let iat = get_current_timestamp();
        let mut claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: ADA.user,
            customer: ADA.customer,
            role: ADA.role,
            iat,
            exp: iat + LIFE,
        };
        change(&mut claims);
        encode(header, &claims, &tokens().signs).unwrap()
    }

    fn header(typ: &str) -> Header {
        Header { typ: Some(typ.to_owned()), ..Header::new(Algorithm::EdDSA) }
    }

    #[test]
    fn a_token_says_who_asks() {
        let token = tokens().sign(ADA, get_current_timestamp()).unwrap();
        assert!(token.len() < LONGEST / 2, "{}", token.len());
        assert_eq!(tokens().caller(&token).unwrap(), ADA);
        assert_eq!(tokens().caller(&signed(&header(TYPE), |_| {})).unwrap(), ADA);
    }

    #[test]
    fn what_another_key_signed_is_refused() {
        let token = Tokens::new([8; 32]).unwrap().sign(ADA, get_current_timestamp()).unwrap();
        assert!(tokens().caller(&token).is_err());
    }

    #[test]
    fn a_token_for_another_service_time_or_purpose_is_refused() {
        let with = |change: fn(&mut Claims)| signed(&header(TYPE), change);
        for token in [
            with(|claims| claims.iss = "https://evil.example".to_owned()),
            with(|claims| claims.aud = "https://other.example".to_owned()),
            with(|claims| claims.exp -= LIFE + 1),
            signed(&header("JWT"), |_| {}),
            signed(&header("refresh+jwt"), |_| {}),
            format!("{}{}", with(|_| {}), "x".repeat(LONGEST)),
        ] {
            assert!(tokens().caller(&token).is_err(), "{token:.80}");
        }
    }

    #[test]
    fn the_public_key_is_no_secret_to_sign_with() {
        let public = SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes();
        let header = Header { typ: Some(TYPE.to_owned()), ..Header::new(Algorithm::HS256) };
        let iat = get_current_timestamp();
        let claims = serde_json::json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": ADA.user, "customer": ADA.customer,
            "role": "admin", "iat": iat, "exp": iat + LIFE,
        });
        let token = encode(&header, &claims, &EncodingKey::from_secret(&public)).unwrap();
        assert!(tokens().caller(&token).is_err());
    }

    #[test]
    fn what_is_no_token_is_refused() {
        // {"alg":"none"}
        for token in ["", ".", "..", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", "\u{0}"] {
            assert!(tokens().caller(token).is_err(), "{token}");
        }
    }
}
