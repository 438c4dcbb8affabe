//! How do others learn our public keys? As a JSON Web Key Set (RFC 7517, with the key type of RFC 8037).

use std::{error::Error as StdError, net::IpAddr, time::Duration};

use axum::http::{Request, Uri};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::VerifyingKey;
use futures_util::{FutureExt, future::BoxFuture};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::timeout;
use url::Url;

use crate::error::{Error, Result};

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

/// Asks a source for its keys: the database of the issuer, or a key set somewhere else.
pub type Load = Box<dyn Fn() -> BoxFuture<'static, Result<Vec<PublicKey>>> + Send + Sync>;

impl PublicKey {
    /// Names the key by its thumbprint, RFC 7638: the SHA-256 of the required members in the order of the alphabet.
    pub fn new(bytes: [u8; 32]) -> Self {
        let x = URL_SAFE_NO_PAD.encode(bytes);
        let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
        Self { kid: URL_SAFE_NO_PAD.encode(Sha256::digest(members)), bytes }
    }

    // ANCHOR: parse_jwk
    /// The key, if it is one that may verify our tokens. What a key says of its use is optional; what it says counts.
    fn parse(jwk: &Value) -> Option<Self> {
        let says = |member: &str, ours: &str| jwk.get(member).is_none_or(|said| said == ours);
        let verify = |ops: &Value| ops.as_array().is_some_and(|ops| ops.contains(&json!("verify")));
        let fits = jwk["kty"] == "OKP"
            && jwk["crv"] == "Ed25519"
            && says("use", "sig")
            && says("alg", "EdDSA")
            && jwk.get("key_ops").is_none_or(verify)
            // If its private part was published, anybody can sign with it.
            && jwk.get("d").is_none();
        let bytes = URL_SAFE_NO_PAD.decode(jwk["x"].as_str()?).ok()?.try_into().ok()?;
        // A point of small order verifies the same signature over every message.
        let is_weak = VerifyingKey::from_bytes(&bytes).ok()?.is_weak();
        let kid = jwk["kid"].as_str()?.to_owned();
        (fits && !is_weak).then_some(Self { kid, bytes })
    }
    // ANCHOR_END: parse_jwk
}

/// The set as JSON.
pub fn set(keys: &[PublicKey]) -> Value {
    let jwk = |PublicKey { kid, bytes }: &PublicKey| {
        let x = URL_SAFE_NO_PAD.encode(bytes);
        json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": kid, "x": x })
    };
    json!({ "keys": keys.iter().map(jwk).collect::<Vec<_>>() })
}

// ANCHOR: parse_set
/// Reads a set. A key that we cannot use is left out (RFC 7517, section 5); the error is a set that must not take the
/// place of a good one.
pub fn parse(json: &[u8]) -> std::result::Result<Vec<PublicKey>, &'static str> {
    // Of two equal members or names, one program takes the first and another the last.
    let set: Value = edge::json::parse(json).map_err(|_| "no JSON, or a member is there twice")?;
    let keys = set["keys"].as_array().into_iter().flatten();
    let keys: Vec<_> = keys.filter_map(PublicKey::parse).collect();
    let twice = |(n, key): (usize, &PublicKey)| keys[..n].iter().any(|it| it.kid == key.kid);
    if keys.iter().enumerate().any(twice) {
        return Err("two keys have one name");
    }
    if keys.is_empty() { Err("no key that we can use") } else { Ok(keys) }
}
// ANCHOR_END: parse_set

/// The key set at this address, which comes from our own configuration. Never from a token's `jku`: whoever writes the
/// token would choose who vouches for it. Redirects are not followed.
pub fn remote(url: &Url) -> anyhow::Result<Load> {
    let uri = Uri::try_from(url.as_str())?;
    let connector =
        HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().build();
    let http: Http = Client::builder(TokioExecutor::new()).build(connector);
    Ok(Box::new(move || {
        let (http, uri) = (http.clone(), uri.clone());
        async move {
            let keys = timeout(TIMEOUT, fetch(&http, &uri)).await;
            keys.unwrap_or_else(|late| Err(late.into())).map_err(|error| {
                tracing::warn!(error, %uri, "the key set cannot be used");
                Error::Unavailable("the issuer's key set cannot be used")
            })
        }
        .boxed()
    }))
}

type Http = Client<HttpsConnector<HttpConnector>, Empty<axum::body::Bytes>>;

async fn fetch(
    http: &Http,
    uri: &Uri,
) -> std::result::Result<Vec<PublicKey>, Box<dyn StdError + Send + Sync>> {
    let response = http.request(Request::get(uri).body(Empty::new())?).await?;
    if !response.status().is_success() {
        return Err(response.status().to_string().into());
    }
    let body = Limited::new(response.into_body(), MAX_BYTES).collect().await?;
    Ok(parse(&body.to_bytes())?)
}

// ANCHOR: key_set_url
/// The address of a key set. Whoever can change what comes from there is everybody, so plain HTTP is for this machine
/// only.
pub fn parse_url(text: &str) -> std::result::Result<Url, String> {
    let url: Url = text.parse().map_err(|error: url::ParseError| error.to_string())?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|it| it.is_loopback());
    let allowed = url.scheme() == "https" || url.scheme() == "http" && is_here;
    if allowed { Ok(url) } else { Err("use https, or http to this machine".to_owned()) }
}
// ANCHOR_END: key_set_url

#[cfg(test)]
mod tests {
    use super::*;

    /// A key that somebody could have: not every 32 bytes are a point.
    fn key(n: u8) -> PublicKey {
        let private = ed25519_dalek::SigningKey::from_bytes(&[n; 32]);
        PublicKey::new(private.verifying_key().to_bytes())
    }

    fn set_of(keys: &[Value]) -> std::result::Result<Vec<PublicKey>, &'static str> {
        parse(json!({ "keys": keys }).to_string().as_bytes())
    }

    fn jwk(key: &PublicKey) -> Value {
        set(std::slice::from_ref(key))["keys"][0].clone()
    }

    /// The key and its thumbprint from RFC 8037, appendix A.
    #[test]
    fn the_thumbprint_is_that_of_the_rfc() {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let bytes = URL_SAFE_NO_PAD.decode(x).unwrap().try_into().unwrap();
        assert_eq!(PublicKey::new(bytes).kid, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn a_set_reads_as_it_was_written() {
        let keys = vec![key(1), key(2)];
        assert_eq!(parse(set(&keys).to_string().as_bytes()).unwrap(), keys);
    }

    #[test]
    fn use_alg_and_key_ops_may_be_missing() {
        let mut bare = jwk(&key(1));
        for member in ["use", "alg"] {
            bare.as_object_mut().unwrap().remove(member);
        }
        assert_eq!(set_of(&[bare.clone()]).unwrap(), [key(1)]);
        bare["key_ops"] = json!(["verify"]);
        assert_eq!(set_of(&[bare]).unwrap(), [key(1)]);
    }

    #[test]
    fn a_key_that_may_not_verify_is_left_out_and_the_others_stay() {
        let mut keys = vec![jwk(&key(1))];
        for (member, bad) in [
            ("x", json!("AAAA")),
            ("x", json!("not base64")),
            ("crv", json!("X25519")),
            ("kty", json!("oct")),
            ("use", json!("enc")),
            ("alg", json!("HS256")),
            ("key_ops", json!(["sign"])),
            ("key_ops", json!([])),
            ("d", json!("AAAA")),
        ] {
            let mut key = jwk(&key(2));
            key[member] = bad;
            keys.push(key);
        }
        keys.push(json!({ "kty": "RSA", "n": "…", "e": "AQAB" }));
        keys.push(7.into());
        assert_eq!(set_of(&keys).unwrap(), [key(1)]);
    }

    #[test]
    fn a_key_of_small_order_is_left_out() {
        let mut one = [0; 32];
        one[0] = 1;
        let weak = jwk(&PublicKey::new(one));
        assert_eq!(set_of(&[weak, jwk(&key(1))]).unwrap(), [key(1)]);
    }

    #[test]
    fn a_set_that_means_two_things_or_nothing_is_refused() {
        let same_name = PublicKey { kid: key(1).kid, ..key(2) };
        assert!(set_of(&[jwk(&key(1)), jwk(&same_name)]).is_err());
        let text = set(&[key(1)]).to_string();
        let twice = text.replace(r#""kty":"#, r#""kty":"RSA","kty":"#);
        assert!(twice != text && parse(twice.as_bytes()).is_err());
        for nothing in ["", "[]", "<html>", "{}", r#"{"keys":[]}"#, r#"{"keys":[7]}"#] {
            assert!(parse(nothing.as_bytes()).is_err(), "{nothing}");
        }
    }

    #[test]
    fn plain_http_is_for_this_machine_only() {
        for good in [
            "https://auth.example/k",
            "http://localhost:1/k",
            "http://127.0.0.2/k",
            "http://[::1]/k",
        ] {
            assert!(parse_url(good).is_ok(), "{good}");
        }
        for bad in [
            "http://auth.example/k",
            "http://10.0.0.1/k",
            "http://localhost.example/k",
            "file:///k",
            "k",
        ] {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
    }
}
