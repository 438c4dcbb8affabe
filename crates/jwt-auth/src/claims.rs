//! What does an access token say, and when is it believed?
//!
//! Invariant: a token is believed only if one of our keys signed exactly these bytes, with the one algorithm that
//! we use, as an access token, for us, and for now. Nothing that the token says chooses the key or the algorithm.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, get_current_timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Result};

/// Ours have some 650 bytes. A longer one is refused before anything is decoded.
pub const MAX_TOKEN: usize = 4_096;
/// The type of an access token (RFC 9068), so that no other JWT signed by the same key passes for one.
pub const TYPE: &str = "at+jwt";
/// RFC 9068 wants to know which client a token was made for; this service has only its own.
pub const CLIENT_ID: &str = "first-party";

/// What an access token says. All of it is signed, and none of it is secret: anybody who holds the token can read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who made it.
    pub iss: String,
    /// For which service.
    pub aud: String,
    /// The user's id.
    pub sub: Uuid,
    /// Which client it was made for.
    pub client_id: String,
    /// When it ends, in seconds since 1970, as the other times.
    pub exp: u64,
    /// From when on it is valid.
    pub nbf: u64,
    /// When it was made.
    pub iat: u64,
    /// Its own id, for logs.
    pub jti: Uuid,
    /// The session that it comes from, by which a deny-list knows it.
    pub sid: Uuid,
    /// The user's address, so that nobody has to look it up; as old as the token is.
    pub email: String,
}

/// Between whom tokens are.
#[derive(clap::Args, Clone, Debug)]
pub struct Names {
    /// Who makes the tokens: the claim `iss`
    #[arg(long, default_value = "https://auth.example")]
    pub issuer: String,
    /// Which service they are for: the claim `aud`
    #[arg(long, default_value = "https://api.example")]
    pub audience: String,
}

/// What a verifier insists on.
#[derive(Clone, Debug)]
pub struct Policy(Validation);

/// All that a header may hold. Whatever else there may be (`jwk`, `jku`, `x5u`: "verify me with this key"; `crit`:
/// "understand this or refuse") is not ours, so the token is not.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
    kid: String,
}

impl Policy {
    // ANCHOR: policy
    /// Believes tokens of this issuer for this audience. Clocks may differ by the leeway.
    pub fn new(names: &Names, leeway_seconds: u64) -> Self {
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[&names.issuer]);
        validation.set_audience(&[&names.audience]);
        // Off unless asked for: the library checks `nbf` only if told to, and lets a token without `iss` or `aud` pass.
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
        validation.leeway = leeway_seconds;
        Self(validation)
    }
    // ANCHOR_END: policy

    // ANCHOR: key_id
    /// The id of the key that the token claims to be signed with: a name to look up among our keys, and nothing else.
    pub fn key_id(token: &str) -> Result<String> {
        if token.len() > MAX_TOKEN {
            return Err(Error::InvalidToken("longer than ours"));
        }
        let (header, _) = token.split_once('.').ok_or(Error::InvalidToken("not three parts"))?;
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| Error::InvalidToken("header"))?;
        let header: Header =
            serde_json::from_slice(&header).map_err(|_| Error::InvalidToken("header"))?;
        if header.alg != "EdDSA" {
            return Err(Error::InvalidToken("algorithm"));
        }
        // RFC 9068 allows both ways to write it, in any case.
        let typ = header.typ.to_ascii_lowercase();
        if typ.strip_prefix("application/").unwrap_or(&typ) != TYPE {
            return Err(Error::InvalidToken("type"));
        }
        Ok(header.kid)
    }
    // ANCHOR_END: key_id

    // ANCHOR: claims
    /// The claims, if this key signed them and they are for us and for now.
    pub fn claims(&self, token: &str, key: &DecodingKey) -> Result<Claims> {
        // Duplicate claims, unknown shapes and missing ones fail here too: `Claims` has no optional field.
        let token = decode::<Claims>(token, key, &self.0)
            .map_err(|_| Error::InvalidToken("signature or claims"))?;
        if token.claims.iat > get_current_timestamp() + self.0.leeway {
            return Err(Error::InvalidToken("made in the future"));
        }
        Ok(token.claims)
    }
    // ANCHOR_END: claims
}
