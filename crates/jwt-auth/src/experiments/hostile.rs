//! What if the key set itself is broken, or somebody has put a key into it?

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, routing::get};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
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
    let weak = forger.signed_by_a_weak_key();
    let (mut rows, mut wrong) = (Vec::new(), Vec::new());
    for (what, key_set) in sets(&good) {
        publisher.publish(key_set).await?;
        let me = async |token: &str| client.show(Method::GET, "me", token).await;
        let (genuine, forged) = tokio::try_join!(me(genuine), me(&weak))?;
        let (genuine, forged) = (genuine.status().as_u16(), forged.status().as_u16());
        rows.push(vec![what.to_owned(), genuine.to_string(), forged.to_string()]);
        // 503: while the set cannot be used, nobody knows whether there is such a key.
        if genuine != 200 || ![401, 503].contains(&forged) {
            wrong.push(format!("{what}: {genuine}, {forged}"));
        }
    }
    lab.figure("broken and hostile key sets", rows.len() as f64, "");
    lab.table("Key sets", &["the set", "the genuine token", "one of a weak key"], rows);
    lab.check(
        "key sets after which a genuine token is refused, or a forged one believed",
        "none",
        format!("{wrong:?}"),
        wrong.is_empty(),
    );
    Ok(())
}

/// Sets that were cut, mixed up or poisoned, made from a good one.
fn sets(good: &Value) -> Vec<(&'static str, String)> {
    let text = good.to_string();
    let key = &good["keys"][0];
    let with = |other: Value| json!({ "keys": [key, other] }).to_string();
    let changed = |member: &str, value: Value| {
        let mut key = key.clone();
        key[member] = value;
        json!({ "keys": [key] }).to_string()
    };
    let other =
        URL_SAFE_NO_PAD.encode(ed25519_dalek::SigningKey::from_bytes(&[9; 32]).verifying_key());
    let ours = |x: &str| json!({ "kty": "OKP", "crv": "Ed25519", "kid": key["kid"], "x": x });
    vec![
        ("nothing", String::new()),
        ("a page that says 'down for maintenance'", "<html>down for maintenance</html>".to_owned()),
        ("cut in the middle", text[..text.len() / 2].to_owned()),
        ("no keys", json!({ "keys": [] }).to_string()),
        ("keys that are none", json!({ "keys": [7, null, "key", {}] }).to_string()),
        (
            "only an RSA key",
            json!({ "keys": [{ "kty": "RSA", "n": "AQAB", "e": "AQAB" }] }).to_string(),
        ),
        ("our key, for encryption", changed("use", json!("enc"))),
        ("our key, for HS256", changed("alg", json!("HS256"))),
        ("our key, for signing only", changed("key_ops", json!(["sign"]))),
        ("our key, with a private part", changed("d", json!("AAAA"))),
        ("our key, cut", changed("x", json!("AAAA"))),
        ("two keys of one name", with(ours(&other))),
        (
            "a member twice in a key",
            text.replacen("\"kty\":", &format!("\"x\":\"{other}\",\"kty\":"), 1),
        ),
        ("keys twice", format!("{{\"keys\":[{}],{}", ours(&other), &text[1..])),
        ("a weak key beside ours", with(weak_key())),
        ("10,000 keys", json!({ "keys": vec![key; 10_000] }).to_string()),
        ("nested", "[".repeat(10_000)),
    ]
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
