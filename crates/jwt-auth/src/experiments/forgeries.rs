//! Which tokens does an attacker make, and which of them gets in?

use conform::http::header;
use ed25519_dalek::{SigningKey, pkcs8::DecodePrivateKey};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use lab::{Experiment, Lab, Sabotage};
use serde_json::Value;

use super::{
    fixture::{Fixture, start, verifier},
    forger::Forger,
    hostile,
};
use crate::cases::client::{Client, part};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Bytes of a huge token
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(5_000..=300_000))]
    huge: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "forgeries",
        "Every forgery in a table is refused with 401, by the issuer and by a service that has the JWKS alone; the \
         genuine token beside them is believed, and no broken or hostile key set changes that",
        &[],
        run,
    )
    .sabotage(Sabotage {
        file: "src/claims.rs",
        replace: "validation.set_audience(&[&names.audience]);",
        with: "validation.validate_aud = false;",
        check: "forgeries that are not refused with 401 by both",
    })
    .sabotage(Sabotage {
        file: "src/jwks.rs",
        replace: "(fits && !is_weak).then_some(Self { kid, bytes })",
        with: "fits.then_some(Self { kid, bytes })",
        check: "key sets after which a genuine token is refused, or a forged one believed",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let (issuer, client) = fixture.start(&[]).await?;
    let genuine = client.join("ann@example.com").await?.access_token;
    // Where everybody who verifies needs the issuer's secret, there is no such service.
    let alone = start(verifier(issuer.url())).await.ok();
    lab.check_eq("services that verify with the JWKS alone", 1, usize::from(alone.is_some()));
    let guarded = alone.as_ref().map_or(&client, |(_, guarded)| guarded).clone();
    let clients = [client, guarded];

    // An issuer without a key in its database has nothing to steal. Then what the forger makes is wrong throughout.
    let key = match fixture.stolen_keys().await?.pop() {
        Some((_, private_key)) => SigningKey::from_pkcs8_der(&private_key)?,
        None => SigningKey::from_bytes(&[1; 32]),
    };
    // What one has to tell the library before it believes anything, and no more.
    let library = DecodingKey::from_ed_der(key.verifying_key().as_bytes());
    let forger = Forger { key, header: part(&genuine, 0)?, claims: part(&genuine, 1)? };
    // What the forger makes is right but for what is forged, or a refusal would prove nothing.
    let controls = [
        ("what we were given", genuine.clone()),
        ("made by the forger, nothing forged", forger.token()),
    ];
    for (what, token) in &controls {
        let seen = answers(&clients, token).await?;
        lab.check_eq(format!("{what}: issuer, JWKS alone"), "200, 200".to_owned(), seen);
    }
    let forgeries = forger.forgeries(&genuine, params.huge as usize)?;
    let mut defaults = Validation::new(Algorithm::EdDSA);
    defaults.set_audience(&[forger.claims["aud"].as_str().unwrap_or_default()]);
    let (mut rows, mut through, mut careless) = (Vec::new(), Vec::new(), 0_u32);
    for (done, (class, what, token)) in (0..).zip(&forgeries) {
        lab.progress(done, forgeries.len() as u64, *class);
        let seen = answers(&clients, token).await?;
        let alone = decode::<Value>(token, &library, &defaults).is_ok();
        careless += u32::from(alone);
        let library = if alone { "believed" } else { "refused" };
        rows.push(vec![(*class).to_owned(), what.clone(), seen.clone(), library.to_owned()]);
        if seen != "401, 401" {
            through.push(format!("{class}, {what}: {seen}"));
        }
    }
    let columns = ["forgery", "how", "issuer, JWKS alone", "the library with its defaults"];
    lab.table("Forgeries", &columns, rows);
    lab.figure("forgeries tried", forgeries.len() as f64, "");
    lab.figure("of them believed by jsonwebtoken's defaults", f64::from(careless), "");
    let none = through.is_empty();
    lab.check(
        "forgeries that are not refused with 401 by both",
        "none",
        format!("{through:?}"),
        none,
    );
    let seen = answers(&clients, &genuine).await?;
    lab.check_eq("the genuine token, after all of them", "200, 200".to_owned(), seen);
    if alone.is_some() {
        lab.progress(0, 1, "key sets that are broken or hostile");
        hostile::key_sets(&lab, &clients[0], &forger, &genuine).await?;
    }
    Ok(())
}

/// What both services answer: a 401 counts only with the challenge that RFC 6750 asks for.
async fn answers(clients: &[Client; 2], token: &str) -> anyhow::Result<String> {
    let mut seen = Vec::new();
    for client in clients {
        let response = client.me(token).await?;
        let (status, challenge) = (response.status(), header(&response, "www-authenticate"));
        let odd = status == 401 && challenge != r#"Bearer error="invalid_token""#;
        seen.push(if odd { format!("401 with {challenge:?}") } else { status.as_str().to_owned() });
    }
    Ok(seen.join(", "))
}
