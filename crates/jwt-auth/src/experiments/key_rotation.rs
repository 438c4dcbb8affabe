//! Does anybody notice when the keys change?

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use jsonwebtoken::{Algorithm, EncodingKey, Header, decode_header, encode, get_current_timestamp};
use lab::{Experiment, Lab, Sabotage};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use uuid::Uuid;

use super::fixture::{Fixture, start, verifier};
use crate::cases::client::{Client, Tokens, tokens};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Seconds that a key signs
    #[arg(long, default_value_t = 2.0, value_parser = lab::experiment::seconds)]
    key_life: f64,
    /// Seconds that an access token lives
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    token_life: u64,
    /// Keys that are to be seen
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(2..=50))]
    keys: u64,
    /// Clients, each of which refreshes and uses its tokens without a pause
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    clients: u16,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "key-rotation",
        "Keys are rotated under load: no valid token is refused, the retired key's tokens are refused after their life",
        &["--key-life", "1.2", "--token-life", "1", "--keys", "3", "--clients", "4"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/issuer.rs",
        replace: "Duration::from_secs(self.access_seconds + self.leeway_seconds + 1)",
        with: "Duration::ZERO",
        check: "uses within its life in which a token was refused",
    })
}

/// What the clients have seen.
#[derive(Default)]
struct Seen {
    /// How many tokens each key has signed.
    signed: HashMap<String, u64>,
    /// Tokens used within their life: how often, and how often in vain.
    used: u64,
    refused: Vec<String>,
    /// Tokens by a key that was not published everywhere when the token came.
    unpublished: u64,
    published: HashSet<String>,
}

type Shared = Arc<Mutex<Seen>>;

fn lock(seen: &Shared) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    // A key is published three times this long before it signs.
    let (age, key_life) = ((params.key_life / 4.0).to_string(), params.key_life.to_string());
    let token_life = params.token_life.to_string();
    let times = [
        ["--key-seconds", &key_life],
        ["--jwks-seconds", &age],
        ["--access-seconds", &token_life],
        ["--leeway-seconds", "0"],
    ];
    let times = times.as_flattened();
    let ((_one, one), (second, two)) =
        tokio::try_join!(fixture.start(times), fixture.start(times))?;
    let (_other, other) = start(verifier(second.url()).args(times)).await?;
    let verifiers = [one.clone(), two.clone(), other];
    let issuers = [one, two];

    let (first, private_key) = token_and_key(&fixture, &issuers[0]).await?;
    let retired = long_lived(&first, &private_key)?;
    let believed = statuses(&verifiers, &retired).await?.iter().filter(|it| **it == 200).count();
    let (seen, stop) = (Shared::default(), Arc::new(AtomicBool::new(false)));
    let published = published_by_both(&issuers).await?;
    lock(&seen).published.extend(published);
    let mut load = JoinSet::new();
    load.spawn(watch_key_set(issuers.clone(), Arc::clone(&seen), Arc::clone(&stop)));
    for client in 0..usize::from(params.clients) {
        let tokens = issuers[client % 2].log_in("ann@example.com").await?;
        let user = User {
            issuers: issuers.clone(),
            verifiers: verifiers.clone(),
            seen: Arc::clone(&seen),
        };
        load.spawn(user.live(tokens, Arc::clone(&stop)));
    }
    // Until that many keys have signed, and the first one's last token has ended.
    let mut refused_by = None;
    let deadline = Instant::now() + Duration::from_mins(1);
    while Instant::now() < deadline {
        let keys = lock(&seen).signed.len() as u64;
        lab.progress(keys.min(params.keys), params.keys, "keys that have signed");
        if refused_by.is_none() && statuses(&verifiers, &retired).await? == [401; 3] {
            refused_by = Some(keys);
        }
        if keys >= params.keys && refused_by.is_some() {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in load.join_all().await {
        client?;
    }
    let first_status = verifiers[2].me(&first.access_token).await?.status();
    report(&lab, &params, &lock(&seen), believed, refused_by);
    lab.check_eq("the first token, after its life", 401, first_status.as_u16());
    Ok(())
}

fn report(lab: &Lab, params: &Params, seen: &Seen, believed: usize, refused_by: Option<u64>) {
    lab.figure("tokens made", seen.signed.values().sum::<u64>() as f64, "");
    lab.figure("uses of a token within its life", seen.used as f64, "");
    let keys = seen.signed.len() as u64;
    lab.check(
        "keys that have signed",
        format!("{} or more", params.keys),
        keys,
        keys >= params.keys,
    );
    lab.check("the load was real", "100 uses or more", seen.used, seen.used >= 100);
    let some: Vec<_> = seen.refused.iter().take(3).collect();
    lab.check(
        "uses within its life in which a token was refused",
        "none",
        format!("{} {some:?}", seen.refused.len()),
        some.is_empty(),
    );
    lab.check_eq(
        "tokens whose key was not published by both issuers when they came",
        0,
        seen.unpublished,
    );
    // It says that it lives for an hour: the life of its key ends it, and nothing else does.
    lab.check_eq(
        "processes that believed a long-lived token made with the first key, while it signed",
        3,
        believed,
    );
    lab.check(
        "and refused by all three when the key's last token had ended",
        "refused",
        refused_by
            .map_or("believed".to_owned(), |keys| format!("refused, when {keys} keys had signed")),
        refused_by.is_some(),
    );
}

/// A token, and the very key that signed it: an older one may be there still. A key that has gone before we could steal
/// it was at its end anyway, so the next one will do.
async fn token_and_key(fixture: &Fixture, issuer: &Client) -> anyhow::Result<(Tokens, Vec<u8>)> {
    let mut tokens = issuer.join("ann@example.com").await?;
    for _ in 0..10 {
        let kid = decode_header(&tokens.access_token)?.kid.context("no kid")?;
        let stolen = fixture.stolen_keys().await?.into_iter().find(|key| key.0 == kid);
        if let Some((_, private_key)) = stolen {
            return Ok((tokens, private_key));
        }
        tokens = issuer.log_in("ann@example.com").await?;
    }
    bail!("no key stayed long enough to be stolen")
}

/// A token of the stolen key that would live for an hour.
fn long_lived(tokens: &Tokens, private_key: &[u8]) -> anyhow::Result<String> {
    let mut claims: Value = jsonwebtoken::dangerous::insecure_decode_claims(&tokens.access_token)?;
    claims["exp"] = json!(get_current_timestamp() + 3_600);
    claims["jti"] = json!(Uuid::new_v4());
    let old = decode_header(&tokens.access_token)?;
    let header = Header { typ: old.typ, kid: old.kid, ..Header::new(Algorithm::EdDSA) };
    Ok(encode(&header, &claims, &EncodingKey::from_ed_der(private_key))?)
}

/// The keys that each of the two issuers publishes.
async fn published_by_both([one, two]: &[Client; 2]) -> anyhow::Result<Vec<String>> {
    let (mut one, two) = tokio::try_join!(key_ids(one), key_ids(two))?;
    one.retain(|key| two.contains(key));
    Ok(one)
}

async fn key_ids(issuer: &Client) -> anyhow::Result<Vec<String>> {
    let set: Value = issuer.key_set().await?.json().await?;
    let keys = set["keys"].as_array().into_iter().flatten();
    Ok(keys.filter_map(|key| Some(key["kid"].as_str()?.to_owned())).collect())
}

/// What each of the three answers to a token.
async fn statuses([one, two, three]: &[Client; 3], token: &str) -> anyhow::Result<[u16; 3]> {
    let (one, two, three) = tokio::try_join!(one.me(token), two.me(token), three.me(token))?;
    Ok([one, two, three].map(|response| response.status().as_u16()))
}

/// Notes each key when it is published.
async fn watch_key_set(
    issuers: [Client; 2],
    seen: Shared,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let keys = published_by_both(&issuers).await?;
        lock(&seen).published.extend(keys);
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Somebody who is logged in.
struct User {
    issuers: [Client; 2],
    verifiers: [Client; 3],
    seen: Shared,
}

impl User {
    /// Uses each token until its last second at all three verifiers, and then refreshes.
    async fn live(self, mut pair: Tokens, stop: Arc<AtomicBool>) -> anyhow::Result<()> {
        let mut turn = 0_usize;
        while !stop.load(Ordering::Relaxed) {
            let kid = decode_header(&pair.access_token)?.kid.unwrap_or_default();
            self.note_new(&kid).await?;
            let claims: Value =
                jsonwebtoken::dangerous::insecure_decode_claims(&pair.access_token)?;
            let end = claims["exp"].as_u64().context("no exp")?;
            // Some tokens are used to their end, some are refreshed early, so that every moment has fresh ones.
            let uses = if turn.is_multiple_of(2) { usize::MAX } else { 10 };
            for _ in 0..uses {
                let statuses = statuses(&self.verifiers, &pair.access_token).await?;
                // Answered within its life, so it was asked within it.
                if get_current_timestamp() > end || stop.load(Ordering::Relaxed) {
                    break;
                }
                self.note_used(&kid, &statuses);
                sleep(Duration::from_millis(5)).await;
            }
            turn += 1;
            let next = self.issuers[turn % 2].refresh(&pair.refresh_token).await?;
            pair = tokens(next).await.context("a refresh")?;
        }
        Ok(())
    }

    /// A token has come that this key has signed. Both processes must have published it by now.
    async fn note_new(&self, kid: &str) -> anyhow::Result<()> {
        let mut published = lock(&self.seen).published.contains(kid);
        if !published {
            published = published_by_both(&self.issuers).await?.iter().any(|key| key == kid);
        }
        let mut seen = lock(&self.seen);
        seen.unpublished += u64::from(!published);
        *seen.signed.entry(kid.to_owned()).or_default() += 1;
        Ok(())
    }

    /// It has been used within its life.
    fn note_used(&self, kid: &str, statuses: &[u16]) {
        let mut seen = lock(&self.seen);
        seen.used += statuses.len() as u64;
        let refused = statuses.iter().enumerate().filter(|(_, status)| **status != 200);
        seen.refused.extend(refused.map(|(n, status)| format!("{n}: {status} for {kid}")));
    }
}
