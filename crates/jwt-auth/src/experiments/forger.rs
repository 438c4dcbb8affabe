//! What would an attacker try? RFC 8725 and the past of JWT libraries, as a table.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{Signer, SigningKey};
use jsonwebtoken::get_current_timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A class, a variant and the token.
pub type Forgery = (&'static str, String, String);

/// The nested token is parsed only if it is no longer than what we read.
const _: () = assert!(2_500 * 4 / 3 + 400 < crate::claims::MAX_TOKEN);

/// Has the issuer's private key, so that one thing can be wrong at a time.
pub struct Forger {
    pub key: SigningKey,
    pub header: Value,
    pub claims: Value,
}

impl Forger {
    /// A token with nothing forged in it.
    pub fn token(&self) -> String {
        self.signed(&self.header.to_string(), &self.claims.to_string())
    }

    fn signed(&self, header: &str, claims: &str) -> String {
        signed_by(&self.key, header, claims)
    }

    /// With this in the header, rightly signed.
    fn with_header(&self, name: &str, value: Value) -> String {
        let mut header = self.header.clone();
        header[name] = value;
        self.signed(&header.to_string(), &self.claims.to_string())
    }

    /// With this claim, rightly signed.
    fn with_claim(&self, name: &str, value: Value) -> String {
        let mut claims = self.claims.clone();
        claims[name] = value;
        self.signed(&self.header.to_string(), &claims.to_string())
    }

    fn without(&self, name: &str) -> String {
        let mut claims = self.claims.clone();
        claims.as_object_mut().map(|claims| claims.remove(name));
        self.signed(&self.header.to_string(), &claims.to_string())
    }

    /// All of them.
    pub fn forgeries(&self, genuine: &str, huge: usize) -> anyhow::Result<Vec<Forgery>> {
        let mut all = Vec::new();
        self.algorithms(&mut all);
        self.keys(&mut all);
        self.claims(&mut all);
        self.shapes(genuine, huge, &mut all);
        signatures(genuine, &mut all)?;
        Ok(all)
    }

    /// The token says how it wants to be verified.
    fn algorithms(&self, all: &mut Vec<Forgery>) {
        let claims = base64(self.claims.to_string());
        for none in ["none", "None", "NONE", "nOnE", "none ", ""] {
            let mut header = self.header.clone();
            header["alg"] = none.into();
            let header = base64(header.to_string());
            all.push((
                "alg: none",
                format!("{none:?}, no signature"),
                format!("{header}.{claims}."),
            ));
            let ours = self.token();
            let signature = genuine_signature(&ours);
            all.push((
                "alg: none",
                format!("{none:?}, old signature"),
                format!("{header}.{claims}.{signature}"),
            ));
        }
        let mut no_alg = self.header.clone();
        no_alg.as_object_mut().map(|header| header.remove("alg"));
        all.push((
            "alg: none",
            "left out".to_owned(),
            self.signed(&no_alg.to_string(), &self.claims.to_string()),
        ));
        // A secret that a tutorial has in its first line is the first one that is tried.
        for secret in ["secret", "your-256-bit-secret", ""] {
            let mut header = self.header.clone();
            header["alg"] = "HS256".into();
            let message = format!("{}.{claims}", base64(header.to_string()));
            let mac = base64(hmac_sha256(secret.as_bytes(), message.as_bytes()));
            all.push((
                "HMAC with a common secret",
                format!("{secret:?}"),
                format!("{message}.{mac}"),
            ));
        }
        // The key is public. A verifier that takes the algorithm from the token takes it for a secret.
        let point = self.key.verifying_key().to_bytes();
        for (form, secret) in [("raw", point.to_vec()), ("base64", base64(point).into_bytes())] {
            let mut header = self.header.clone();
            header["alg"] = "HS256".into();
            let message = format!("{}.{claims}", base64(header.to_string()));
            let mac = base64(hmac_sha256(&secret, message.as_bytes()));
            all.push((
                "HMAC keyed with the public key",
                format!("{form}, HS256"),
                format!("{message}.{mac}"),
            ));
        }
        for other in ["HS256", "RS256", "ES256", "Ed25519", "EdDSA ", "eddsa"] {
            all.push((
                "another algorithm",
                format!("{other:?} over our signature"),
                self.with_header("alg", other.into()),
            ));
        }
    }

    /// The token says with which key it wants to be verified.
    fn keys(&self, all: &mut Vec<Forgery>) {
        let strange = SigningKey::from_bytes(&[7; 32]);
        let (header, claims) = (self.header.to_string(), self.claims.to_string());
        all.push(("another key", "the same kid".to_owned(), signed_by(&strange, &header, &claims)));
        for kid in [
            "../../../../dev/null",
            "/etc/passwd",
            "' or '1'='1",
            "x' union select 'AAAA' --",
            "'; drop table signing_keys; --",
            "http://evil.example/key",
            "| cat /etc/passwd",
            "\0",
            "",
        ] {
            let mut header = self.header.clone();
            header["kid"] = kid.into();
            let token = signed_by(&strange, &header.to_string(), &claims);
            all.push(("a kid with a path or SQL in it", format!("{kid:?}"), token));
        }
        for (what, kid) in
            [("a number", json!(7)), ("null", json!(null)), ("a list", json!([self.header["kid"]]))]
        {
            all.push(("a kid that is no string", what.to_owned(), self.with_header("kid", kid)));
        }
        let x = base64(strange.verifying_key().to_bytes());
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "alg": "EdDSA", "use": "sig" });
        for (name, value) in [
            ("jwk", jwk),
            ("jku", json!("http://evil.example/jwks.json")),
            ("x5u", json!("http://evil.example/cert.pem")),
            ("x5c", json!(["AAAA"])),
        ] {
            let mut header = self.header.clone();
            header[name] = value.clone();
            all.push((
                "the key in the token",
                format!("{name}, their key"),
                signed_by(&strange, &header.to_string(), &claims),
            ));
            all.push((
                "the key in the token",
                format!("{name}, our key"),
                self.with_header(name, value),
            ));
        }
        all.push((
            "an extension that must be understood",
            "crit".to_owned(),
            self.with_header("crit", json!(["exp"])),
        ));
    }

    /// The token was made for something else, or another time.
    fn claims(&self, all: &mut Vec<Forgery>) {
        let now = get_current_timestamp();
        for typ in [json!("JWT"), json!("dpop+jwt"), json!("id_token"), json!(""), json!(null)] {
            all.push(("wrong typ", typ.to_string(), self.with_header("typ", typ)));
        }
        for (class, claim, values) in [
            (
                "wrong iss",
                "iss",
                [
                    json!("https://evil.example"),
                    json!("https://auth.example/"),
                    json!(["https://auth.example", "x"]),
                ],
            ),
            ("wrong aud", "aud", [json!("https://other.example"), json!([]), json!(null)]),
            ("expired", "exp", [json!(now - 3_600), json!(now - 40), json!(0)]),
            ("not yet valid", "nbf", [json!(now + 3_600), json!(now + 90), json!(u64::MAX)]),
            ("made in the future", "iat", [json!(now + 3_600), json!(now + 90), json!(u64::MAX)]),
            ("exp is no time", "exp", [json!("never"), json!(-1), json!(1e300)]),
            ("sub is no user", "sub", [json!("admin"), json!(null), json!(0)]),
        ] {
            for value in values {
                all.push((class, value.to_string(), self.with_claim(claim, value)));
            }
        }
        for claim in ["exp", "nbf", "iat", "iss", "aud", "sub", "jti"] {
            let class = if claim == "exp" { "no exp" } else { "a claim left out" };
            all.push((class, claim.to_owned(), self.without(claim)));
        }
        // Some parsers take the first, some the last.
        let (header, claims) = (self.header.to_string(), self.claims.to_string());
        for (claim, value) in
            [("sub", "\"00000000-0000-0000-0000-000000000000\""), ("exp", "9999999999")]
        {
            let first = format!("{{\"{claim}\":{value},{}", &claims[1..]);
            let last = format!("{},\"{claim}\":{value}}}", &claims[..claims.len() - 1]);
            all.push(("duplicate claims", format!("{claim} first"), self.signed(&header, &first)));
            all.push(("duplicate claims", format!("{claim} last"), self.signed(&header, &last)));
        }
        let twice = format!("{{\"alg\":\"none\",{}", &header[1..]);
        all.push((
            "duplicate claims",
            "alg in the header".to_owned(),
            self.signed(&twice, &claims),
        ));
    }

    /// Not three parts of base64url.
    fn shapes(&self, genuine: &str, huge: usize, all: &mut Vec<Forgery>) {
        let mut parts = genuine.split('.').map(str::to_owned);
        let [header, claims, signature] = std::array::from_fn(|_| parts.next().unwrap_or_default());
        for (how, token) in [
            ("in front", format!(".{genuine}")),
            ("at the end", format!("{genuine}.")),
            ("in the middle", format!("{header}..{claims}.{signature}")),
            ("five parts", format!("{genuine}.{claims}.{signature}")),
            ("two parts", format!("{header}.{claims}")),
            ("one part", header.clone()),
            ("nothing but dots", "..".to_owned()),
        ] {
            all.push(("extra dots", how.to_owned(), token));
        }
        for (how, token) in [
            ("of the signature", format!("{genuine}==")),
            ("of each part", format!("{header}=.{claims}=.{signature}==")),
            (
                "the other alphabet",
                format!("{header}.{claims}.{}+/", &signature[..signature.len() - 2]),
            ),
            ("a space inside", format!("{header}.{claims}. {signature}")),
        ] {
            all.push(("padding", how.to_owned(), token));
        }
        for (how, token) in [
            ("letters", "a".repeat(huge)),
            ("dots", ".".repeat(huge)),
            ("rightly signed", self.with_claim("padding", "x".repeat(huge).into())),
            // Within our limit, so that somebody has to parse it.
            ("nested", self.signed(&self.header.to_string(), &"[".repeat(2_500))),
        ] {
            all.push(("huge", how.to_owned(), token));
        }
        let swapped = |claim: &str, value: Value| {
            let mut claims = self.claims.clone();
            claims[claim] = value;
            format!("{header}.{}.{signature}", base64(claims.to_string()))
        };
        all.push((
            "a swapped payload",
            "another user".to_owned(),
            swapped("sub", json!(uuid::Uuid::nil())),
        ));
        all.push((
            "a swapped payload",
            "a longer life".to_owned(),
            swapped("exp", json!(9_999_999_999_u64)),
        ));
    }
}

/// Signatures that are nearly the genuine one.
fn signatures(genuine: &str, all: &mut Vec<Forgery>) -> anyhow::Result<()> {
    let (message, signature) = genuine.rsplit_once('.').unwrap_or_default();
    let bytes = URL_SAFE_NO_PAD.decode(signature)?;
    for length in [0, 1, 32, 63] {
        let Some(some) = bytes.get(..length) else { continue };
        let token = format!("{message}.{}", base64(some));
        all.push(("a truncated signature", format!("{length} bytes"), token));
    }
    let longer = format!("{message}.{}", base64([&bytes[..], &[0]].concat()));
    all.push(("a truncated signature", "one byte more".to_owned(), longer));
    all.push((
        "a truncated signature",
        "64 zeros".to_owned(),
        format!("{message}.{}", base64([0; 64])),
    ));
    // Ed25519's s and s + L verify alike, unless the verifier insists on the smaller one (RFC 8032, section 5.1.7).
    let malleable = format!("{message}.{}", base64(plus_order(&bytes)));
    all.push(("a malleable signature", "s + L".to_owned(), malleable));
    // The last letter of 64 bytes in base64 has four bits that mean nothing.
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = signature.bytes().last().and_then(|c| alphabet.iter().position(|&a| a == c));
    if let Some(last) = last {
        let twin = format!("{}{}", &genuine[..genuine.len() - 1], char::from(alphabet[last | 1]));
        all.push(("a malleable signature", "spare bits of base64".to_owned(), twin));
    }
    Ok(())
}

fn signed_by(key: &SigningKey, header: &str, claims: &str) -> String {
    let message = format!("{}.{}", base64(header), base64(claims));
    let signature = key.sign(message.as_bytes()).to_bytes();
    format!("{message}.{}", base64(signature))
}

fn genuine_signature(token: &str) -> &str {
    token.rsplit('.').next().unwrap_or_default()
}

/// RFC 2104, in its few lines.
fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0; 64];
    block[..key.len().min(64)].copy_from_slice(&key[..key.len().min(64)]);
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(message);
    Sha256::new()
        .chain_update(block.map(|byte| byte ^ 0x5c))
        .chain_update(inner.finalize())
        .finalize()
        .into()
}

/// The signature with L, the order of the group, added to its second half.
fn plus_order(signature: &[u8]) -> Vec<u8> {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut sum = signature.to_vec();
    let mut carry = 0;
    for (byte, add) in sum[32..].iter_mut().zip(ORDER) {
        let all = u16::from(*byte) + u16::from(add) + carry;
        [*byte, _] = all.to_le_bytes();
        carry = all >> 8;
    }
    sum
}
