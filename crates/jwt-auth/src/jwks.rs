//! How do others learn our public keys? As a JSON Web Key Set (RFC 7517, with the key type of RFC 8037).

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::Client;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use url::Url;

use crate::error::Error;

/// For connecting, asking and reading.
const TIMEOUT: Duration = Duration::from_secs(1);
/// A set of a hundred keys is a sixth of it.
const MAX_BYTES: usize = 64 * 1_024;

/// A public key, and the name under which tokens refer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// Its name.
    pub kid: String,
    /// The point on the curve, compressed.
    pub bytes: [u8; 32],
}

/// How one key is written.
#[derive(Serialize, Deserialize)]
struct Jwk {
    kty: String,
    crv: String,
    x: String,
    kid: String,
    #[serde(rename = "use")]
    usage: String,
    alg: String,
}

/// How a set is written. A key that we cannot read is none of ours, and does not spoil the others (RFC 7517, section 5).
#[derive(Serialize, Deserialize)]
struct JwkSet {
    keys: Vec<Value>,
}

impl PublicKey {
    /// Names the key by its thumbprint.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self { kid: thumbprint(&bytes), bytes }
    }

    fn parse(value: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let ours = (jwk.kty.as_str(), jwk.crv.as_str(), jwk.usage.as_str(), jwk.alg.as_str())
            == ("OKP", "Ed25519", "sig", "EdDSA");
        // Of the right length, or `jsonwebtoken` would panic when it takes the first 32 bytes.
        let bytes = URL_SAFE_NO_PAD.decode(jwk.x).ok()?.try_into().ok()?;
        ours.then_some(Self { kid: jwk.kid, bytes })
    }
}

/// RFC 7638: the SHA-256 of the required members in the order of the alphabet.
fn thumbprint(bytes: &[u8; 32]) -> String {
    let x = URL_SAFE_NO_PAD.encode(bytes);
    let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    URL_SAFE_NO_PAD.encode(Sha256::digest(members))
}

/// The set as JSON.
pub fn set(keys: &[PublicKey]) -> Value {
    let jwk = |key: &PublicKey| {
        serde_json::json!(Jwk {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            x: URL_SAFE_NO_PAD.encode(key.bytes),
            kid: key.kid.clone(),
            usage: "sig".to_owned(),
            alg: "EdDSA".to_owned(),
        })
    };
    serde_json::json!(JwkSet { keys: keys.iter().map(jwk).collect() })
}

/// Reads a set. The error is no set at all.
pub fn parse(json: &[u8]) -> serde_json::Result<Vec<PublicKey>> {
    let set: JwkSet = serde_json::from_slice(json)?;
    Ok(set.keys.into_iter().filter_map(PublicKey::parse).collect())
}

/// Where a set is published.
#[derive(Clone, Debug)]
pub struct Remote {
    http: Client,
    url: Url,
}

impl Remote {
    /// Asks this address, which comes from our own configuration. Never from a token's `jku`: whoever writes the
    /// token would choose who vouches for it.
    pub fn new(url: Url) -> Result<Self, Error> {
        let http = Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(Error::internal)?;
        Ok(Self { http, url })
    }

    /// The keys that are published now.
    pub async fn fetch(&self) -> Result<Vec<PublicKey>, Error> {
        let bytes = self.read().await.map_err(|error| {
            tracing::warn!(%error, url = %self.url, "the keys cannot be fetched");
            Error::Away("the issuer's key set")
        })?;
        parse(&bytes).map_err(|error| {
            tracing::warn!(%error, url = %self.url, "this is no key set");
            Error::Away("the issuer's key set")
        })
    }

    async fn read(&self) -> reqwest::Result<Vec<u8>> {
        let mut response = self.http.get(self.url.clone()).send().await?.error_for_status()?;
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_BYTES {
                // No key set: it will not parse.
                bytes.truncate(MAX_BYTES);
                break;
            }
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key and its thumbprint from RFC 8037, appendix A.
    #[test]
    fn the_thumbprint_is_that_of_the_rfc() {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let bytes = URL_SAFE_NO_PAD.decode(x).unwrap().try_into().unwrap();
        assert_eq!(PublicKey::new(bytes).kid, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn a_set_reads_as_it_was_written() {
        let keys = vec![PublicKey::new([1; 32]), PublicKey::new([2; 32])];
        assert_eq!(parse(set(&keys).to_string().as_bytes()).unwrap(), keys);
    }

    #[test]
    fn a_key_that_is_none_of_ours_is_left_out_and_the_others_stay() {
        let good = PublicKey::new([1; 32]);
        let mut all = set(std::slice::from_ref(&good));
        let keys = all["keys"].as_array_mut().unwrap();
        for (field, bad) in [
            ("x", "AAAA"),
            ("x", "not base64"),
            ("crv", "X25519"),
            ("kty", "oct"),
            ("use", "enc"),
            ("alg", "HS256"),
        ] {
            let mut key = keys[0].clone();
            key[field] = bad.into();
            keys.push(key);
        }
        keys.push(serde_json::json!({ "kty": "RSA", "n": "…", "e": "AQAB" }));
        keys.push(7.into());
        assert_eq!(parse(all.to_string().as_bytes()).unwrap(), [good]);
        assert!(parse(b"[]").is_err() && parse(b"<html>").is_err());
    }
}
