//! What if the key set itself is broken, or somebody has put a key into it?

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, routing::get};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::SigningKey;
use lab::{
    Lab,
    harness::eventually,
    serve::{Here, here},
};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    fixture::{start, verifier},
    forger::Forger,
};
use crate::cases::client::Client;

/// Serves each of them to a verifier. The genuine token must be believed all the time, and the forged one never.
pub async fn key_sets(
    lab: &Lab,
    issuer: &Client,
    forger: &Forger,
    genuine: &str,
) -> anyhow::Result<()> {
    let good = issuer.key_set().await?.json::<Value>().await.unwrap_or_default();
    let publisher = Publisher::of(good.to_string()).await?;
    let verifier = verifier(&format!("http://{}", publisher.here.host));
    let (_verifier, client) = start(verifier.args(&["--jwks-seconds", "0.1"])).await?;
    let me = async |token: &str| client.show(Method::GET, "me", token).await;
    let (mut rows, mut wrong) = (Vec::new(), Vec::new());
    for (what, key_set, forged) in sets(&good) {
        publisher.publish(key_set).await?;
        let forged = forger.forged(forged);
        let (genuine, forged) = tokio::try_join!(me(genuine), me(&forged))?;
        let (genuine, forged) = (genuine.status().as_u16(), forged.status().as_u16());
        rows.push(vec![what.to_owned(), genuine.to_string(), forged.to_string()]);
        // 503: while the set cannot be used, nobody knows whether there is such a key.
        if genuine != 200 || ![401, 503].contains(&forged) {
            wrong.push(format!("{what}: {genuine}, {forged}"));
        }
    }
    lab.figure("broken and hostile key sets", rows.len() as f64, "");
    lab.table("Key sets", &["the set", "the genuine token", "a forged one"], rows);
    lab.check(
        "key sets after which a genuine token is refused, or a forged one believed",
        "none",
        format!("{wrong:?}"),
        wrong.is_empty(),
    );
    // Or the refusals above would prove nothing.
    publisher.publish(json!({ "keys": [good["keys"][0], evil_key()] }).to_string()).await?;
    let seen = me(&forger.forged(Forged::ByEvil)).await?.status().as_u16();
    lab.check_eq("a forged token whose key is in the set, without a flaw", 200, seen);
    Ok(())
}

/// Whose key signs the forged token, and under which name.
#[derive(Clone, Copy)]
enum Forged {
    /// Our key's name, and the forger's key.
    InOurName,
    /// The forger's key, under a name of its own.
    ByEvil,
    /// A key for which one signature does for every message.
    ByWeak,
}

/// Sets that were cut, mixed up or poisoned, made from a good one; and the token that each would let in.
fn sets(good: &Value) -> Vec<(&'static str, String, Forged)> {
    use Forged::{ByEvil, ByWeak, InOurName};

    let text = good.to_string();
    let key = &good["keys"][0];
    let with = |other: &Value| json!({ "keys": [key, other] }).to_string();
    // Ours is good: only the forged token shows whether the flaw was seen.
    let flawed = |member: &str, value: Value| {
        let mut evil = evil_key();
        evil[member] = value;
        with(&evil)
    };
    let mut ours_cut = key.clone();
    ours_cut["x"] = json!("AAAA");
    let mut same_name = evil_key();
    same_name["kid"] = key["kid"].clone();
    let rsa = json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB" });
    let mut many = vec![key.clone(), evil_key()];
    many.resize(10_000, rsa.clone());
    vec![
        ("nothing", String::new(), InOurName),
        (
            "a page that says 'down for maintenance'",
            "<html>down for maintenance</html>".to_owned(),
            InOurName,
        ),
        ("cut in the middle", text[..text.len() / 2].to_owned(), InOurName),
        ("no keys", json!({ "keys": [] }).to_string(), InOurName),
        ("keys that are none", json!({ "keys": [7, null, "key", {}] }).to_string(), InOurName),
        ("only an RSA key", json!({ "keys": [rsa] }).to_string(), InOurName),
        ("our key, cut", json!({ "keys": [ours_cut] }).to_string(), InOurName),
        ("a key for encryption beside ours", flawed("use", json!("enc")), ByEvil),
        ("a key for HS256 beside ours", flawed("alg", json!("HS256")), ByEvil),
        ("a key for signing only beside ours", flawed("key_ops", json!(["sign"])), ByEvil),
        ("a key with its private part beside ours", flawed("d", json!("AAAA")), ByEvil),
        ("a weak key beside ours", with(&weak_key()), ByWeak),
        ("two keys of one name", with(&same_name), InOurName),
        // Of two, most parsers take the last.
        (
            "a member twice in a key",
            text.replacen('}', &format!(",\"x\":{}}}", same_name["x"]), 1),
            InOurName,
        ),
        ("keys twice", format!("{},\"keys\":[{same_name}]}}", &text[..text.len() - 1]), InOurName),
        // Nothing is wrong with it but its length.
        ("10,000 keys", json!({ "keys": many }).to_string(), ByEvil),
        ("nested", "[".repeat(10_000), InOurName),
    ]
}

/// The forger's own private key.
fn evil() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

fn evil_key() -> Value {
    let x = URL_SAFE_NO_PAD.encode(evil().verifying_key());
    json!({ "kty": "OKP", "crv": "Ed25519", "kid": "evil", "x": x })
}

/// A point of small order: it verifies one signature over every message.
const WEAK: [u8; 32] = {
    let mut bytes = [0; 32];
    bytes[0] = 1;
    bytes
};

fn weak_key() -> Value {
    let x = URL_SAFE_NO_PAD.encode(WEAK);
    json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": "weak", "x": x })
}

impl Forger {
    /// A token whose claims are good.
    fn forged(&self, forged: Forged) -> String {
        let mut header = self.header.clone();
        match forged {
            Forged::InOurName => {}
            Forged::ByEvil => header["kid"] = "evil".into(),
            Forged::ByWeak => return self.signed_by_a_weak_key(),
        }
        Self { key: evil(), header, claims: self.claims.clone() }.token()
    }

    /// The claims are good, and nobody has a private key to this.
    fn signed_by_a_weak_key(&self) -> String {
        let mut header = self.header.clone();
        header["kid"] = "weak".into();
        // R is the neutral element too, and s is zero.
        let signature = [WEAK, [0; 32]].concat();
        let parts =
            [header.to_string().into_bytes(), self.claims.to_string().into_bytes(), signature];
        parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join(".")
    }
}

/// A place that publishes whatever it was told last.
pub struct Publisher {
    key_set: Arc<Mutex<String>>,
    fetches: Arc<AtomicUsize>,
    /// Where.
    pub here: Here,
}

impl Publisher {
    /// Publishes this first.
    pub async fn of(key_set: String) -> anyhow::Result<Self> {
        let (key_set, fetches) = (Arc::new(Mutex::new(key_set)), Arc::new(AtomicUsize::new(0)));
        let (published, counted) = (Arc::clone(&key_set), Arc::clone(&fetches));
        let publish = get(async move || {
            counted.fetch_add(1, Ordering::SeqCst);
            published.lock().unwrap_or_else(PoisonError::into_inner).clone()
        });
        let here = here(Router::new().route("/.well-known/jwks.json", publish)).await?;
        Ok(Self { key_set, fetches, here })
    }

    /// Publishes this, and waits until it was fetched: when the second fetch begins, the first one is over.
    pub async fn publish(&self, key_set: String) -> anyhow::Result<()> {
        *self.key_set.lock().unwrap_or_else(PoisonError::into_inner) = key_set;
        let before = self.fetches.load(Ordering::SeqCst);
        eventually("it is fetched", async || {
            Ok((self.fetches.load(Ordering::SeqCst) >= before + 2).then_some(()))
        })
        .await
    }
}
