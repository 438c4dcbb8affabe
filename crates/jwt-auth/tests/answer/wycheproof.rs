//! Do we, and the library below us, survive the vectors of Project Wycheproof? `wycheproof.json` names their source and
//! licence.
//!
//! What is left out of it:
//!
//! - the signatures of RSA (`rs256` to `ps512`, `rsa_encryption`, and Figure 13 and 20 in `rfc7520` and
//!   `rfc7520WithKeyOps`), of which only the headers are kept: no RSA key gets as far as the padding that they are about;
//! - the signatures of ES512, which the library lacks (Figure 27 in `rfc7520` and `rfc7520WithKeyOps`: 347 and 351);
//! - the signature of `ec_key_for_encryption` (354 and 356), which is that of 18: they are about the key;
//! - all of `json_web_crypto_test`: its JWS vectors are those of `json_web_signature_test` again (1 to 45, 47 to 49; 46 is
//!   an RSA key that is weak by ROCA), and its JWE vectors (50 to 83) are encryption.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::SigningKey;
use jsonwebtoken::{Algorithm, DecodingKey, crypto, decode_header};
use jwt_auth::{claims::Policy, jwks};
use lab::harness::Outcome;
use serde::Deserialize;
use serde_json::{Value, json};

lab::tests![
    an_ed25519_signature_is_believed_exactly_if_the_vectors_say_so,
    no_token_of_another_algorithm_gets_to_a_key,
    the_library_reads_and_verifies_tokens_as_the_vectors_say,
    a_key_set_is_taken_or_refused_as_the_vectors_say,
];

#[derive(Deserialize)]
struct Vectors {
    /// Number, result, public key, message, signature; in hexadecimal.
    ed25519: Vec<(u32, String, String, String, String)>,
    /// Number, name, result, algorithm, key, token.
    jws: Vec<(u32, String, String, String, String, String)>,
    /// What stands before the first dot, how often, and where first.
    headers: Vec<(String, u32, u32)>,
    /// File, number, group, name, result, and what the keys say of themselves.
    key_sets: Vec<(String, u32, String, String, String, Vec<Value>)>,
}

fn vectors() -> anyhow::Result<Vectors> {
    Ok(serde_json::from_str(include_str!("wycheproof.json"))?)
}

fn bytes(hex: &str) -> anyhow::Result<Vec<u8>> {
    let digits = |at: usize| hex.get(at..at + 2).context("two digits");
    let byte = |at: usize| Ok(u8::from_str_radix(digits(at)?, 16)?);
    (0..hex.len()).step_by(2).map(byte).collect()
}

/// A public key as others publish theirs.
fn published(x: &[u8], says: &Value) -> Value {
    let mut key = json!({ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(x) });
    for (member, value) in says.as_object().into_iter().flatten() {
        key[member] = value.clone();
    }
    key
}

/// All 151 of `ed25519_test`, through the key set and the library that verify our tokens.
async fn an_ed25519_signature_is_believed_exactly_if_the_vectors_say_so() -> Outcome {
    let vectors = vectors()?.ed25519;
    ensure!(vectors.len() == 151);
    for (number, result, key, message, signature) in vectors {
        let key = published(&bytes(&key)?, &json!({ "kid": "1" }));
        let keys = jwks::parse(json!({ "keys": [key] }).to_string().as_bytes());
        let keys = keys.map_err(anyhow::Error::msg).with_context(|| format!("{number}"))?;
        let key = DecodingKey::from_ed_der(&keys[0].bytes);
        let signature = URL_SAFE_NO_PAD.encode(bytes(&signature)?);
        let seen = crypto::verify(&signature, &bytes(&message)?, &key, Algorithm::EdDSA);
        ensure!(seen.unwrap_or(false) == (result == "valid"), "{number} is {result}");
    }
    Ok(())
}

/// All 401 of `json_web_signature_test`, the valid ones too: they are signed with HMAC, ECDSA or RSA, or with nothing.
async fn no_token_of_another_algorithm_gets_to_a_key() -> Outcome {
    let headers = vectors()?.headers;
    ensure!(headers.iter().map(|(_, often, _)| often).sum::<u32>() == 401);
    for (header, _, number) in headers {
        let seen = Policy::key_id(&format!("{header}.Zm9v.AAAA"));
        ensure!(seen.is_err(), "{number}: {seen:?}");
    }
    Ok(())
}

/// The same text is `ValidMac`, which is valid.
const SAME_TEXT: &str = "its text is that of 357, which is valid";
/// RFC 7515, section 2: base64url, without any other character.
const STRICT: &str =
    "a decoder may ignore what is not of the alphabet, says Wycheproof; ours refuses the token";
const EXCLUDED: [(u32, &str, &str); 4] = [
    (367, "invalidBase64Padding", SAME_TEXT),
    (370, "invalidBase64PaddingInPayload", SAME_TEXT),
    (372, "InvalidCharacterInsertedInHeader", STRICT),
    (373, "InvalidCharacterInsertedInPayload", STRICT),
];

/// The 79 of `json_web_signature_test` with HMAC and ECDSA: how tokens are cut into parts and decoded is the same for
/// each algorithm.
async fn the_library_reads_and_verifies_tokens_as_the_vectors_say() -> Outcome {
    let vectors = vectors()?.jws;
    ensure!(vectors.len() == 79);
    let mut differs = BTreeSet::new();
    for (number, name, result, algorithm, key, token) in vectors {
        let algorithm: Algorithm = algorithm.parse()?;
        let key = match key.split_once('.') {
            Some((x, y)) => DecodingKey::from_ec_components(x, y)?,
            None => DecodingKey::from_base64_secret(&padded(&key))?,
        };
        if believes(&token, algorithm, &key) != (result == "valid") {
            differs.insert((number, name));
        }
    }
    let expected = EXCLUDED.map(|(number, name, _)| (number, name.to_owned()));
    ensure!(differs == BTreeSet::from(expected), "{differs:#?}");
    Ok(())
}

/// As `decode` does, for payloads that are no JSON.
fn believes(token: &str, algorithm: Algorithm, key: &DecodingKey) -> bool {
    let [_, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else { return false };
    let message = &token[..token.len() - signature.len() - 1];
    decode_header(token).is_ok_and(|header| header.alg == algorithm)
        && URL_SAFE_NO_PAD.decode(payload).is_ok()
        && crypto::verify(signature, message.as_bytes(), key, algorithm).unwrap_or(false)
}

/// The ordinary alphabet with padding, which is what the library takes for a secret.
fn padded(base64url: &str) -> String {
    let text = base64url.replace('-', "+").replace('_', "/");
    format!("{text}{}", "=".repeat((4 - text.len() % 4) % 4))
}

const ANOTHER_KIND: &str = "it is about the numbers of a kind of key that we do not have";
const ITS_TOKEN: &str =
    "its set is that of 2; its token and key are those of 2 in `json_web_signature_test`";
const WRONG_KIND: &str = "a wrong crv or kty; \
    `a_key_that_may_not_verify_is_left_out_and_the_others_stay` has both";
const NO_ES512: &str = "it is about ES512, which the library lacks; the key calls it ES521";
const EXCLUDED_KEY_SETS: [(&str, u32, &str, &str); 15] = [
    ("key", 1, "rejectsValid", "the keys are of two kinds; in our sets all are of one"),
    ("key", 3, "rejectsModifiedSignature", ITS_TOKEN),
    ("key", 7, "rejectsKeyWithRocaVulnerability", ANOTHER_KIND),
    ("key", 8, "rejects1024bitRsaKey", ANOTHER_KIND),
    ("key", 9, "rejectsPublicExponent1", ANOTHER_KIND),
    ("key", 10, "key_too_short", ANOTHER_KIND),
    ("key", 11, "key_too_short", ANOTHER_KIND),
    ("key", 12, "key_too_short", ANOTHER_KIND),
    ("key", 16, "empty_key", ANOTHER_KIND),
    ("key", 17, "empty_key", ANOTHER_KIND),
    ("key", 18, "empty_key", ANOTHER_KIND),
    ("key", 22, "rejectsModifiedKey", ANOTHER_KIND),
    ("key", 23, "rejectsModifiedKey", WRONG_KIND),
    ("key", 24, "rejectsModifiedKey", WRONG_KIND),
    ("signature", 351, "Figure27", NO_ES512),
];

/// `json_web_key_test`, and those of `json_web_signature_test` that are about the key: what the keys say of themselves, on
/// keys of our kind. The right algorithm for the vector becomes ours then.
async fn a_key_set_is_taken_or_refused_as_the_vectors_say() -> Outcome {
    let vectors = vectors()?.key_sets;
    ensure!(vectors.len() == 33);
    let mut differs = BTreeSet::new();
    for (file, number, _, name, result, keys) in vectors {
        let keys = (1..).zip(&keys).map(|(n, says)| {
            let mut says = says.clone();
            let right = ["HS256", "HS384", "HS512", "RS256", "PS256", "ES256"];
            if says.get("alg").is_some_and(|alg| right.iter().any(|right| alg == right)) {
                says["alg"] = "EdDSA".into();
            }
            published(SigningKey::from_bytes(&[n; 32]).verifying_key().as_bytes(), &says)
        });
        let keys: Vec<_> = keys.collect();
        let seen = jwks::parse(json!({ "keys": keys }).to_string().as_bytes());
        if seen.is_ok() != (result == "valid") {
            differs.insert((file, number, name));
        }
    }
    let expected =
        EXCLUDED_KEY_SETS.map(|(file, number, name, _)| (file.to_owned(), number, name.to_owned()));
    ensure!(differs == BTreeSet::from(expected), "{differs:#?}");
    Ok(())
}
