//! Which tokens does an attacker make, and which of them gets in?

use ed25519_dalek::{SigningKey, pkcs8::DecodePrivateKey};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use lab::{Experiment, Lab};
use serde_json::Value;

use super::{
    client::{Api, CHEAP, stolen_keys, verifier},
    forger::{Forger, part},
};

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
         genuine token beside them is believed",
        &[],
        run,
    )
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let database = lab.database().await?;
    let issuer = lab.serve().database(&database).args(&CHEAP).start().await?;
    let api = Api::of(&issuer)?;
    api.register("ann@example.com").await?;
    let genuine = api.login("ann@example.com").await?.access_token;
    let guarded = verifier(&lab, &api.key_set()).start().await?;
    let apis = [api, Api::of(&guarded)?];

    let key = stolen_keys(&database).await?.pop().ok_or_else(|| anyhow::anyhow!("no key"))?;
    let forger = Forger {
        key: SigningKey::from_pkcs8_der(&key.private_key)?,
        header: part(&genuine, 0)?,
        claims: part(&genuine, 1)?,
    };
    // What the forger makes is right but for what is forged, or a refusal would prove nothing.
    let controls = [
        ("what we were given", genuine.clone()),
        ("made by the forger, nothing forged", forger.token()),
    ];
    for (what, token) in &controls {
        let seen = answers(&apis, token).await?;
        lab.check_eq(format!("{what}: issuer, JWKS alone"), "200, 200".to_owned(), seen);
    }
    let forgeries = forger.forgeries(&genuine, params.huge as usize)?;
    // What one has to tell the library before it believes anything, and no more.
    let library = DecodingKey::from_ed_der(&key.public().bytes);
    let mut defaults = Validation::new(Algorithm::EdDSA);
    defaults.set_audience(&[forger.claims["aud"].as_str().unwrap_or_default()]);
    let (mut rows, mut through, mut careless) = (Vec::new(), Vec::new(), 0_u32);
    for (done, (class, what, token)) in (0..).zip(&forgeries) {
        lab.progress(done, forgeries.len() as u64, *class);
        let seen = answers(&apis, token).await?;
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
    let seen = answers(&apis, &genuine).await?;
    lab.check_eq("the genuine token, after all of them", "200, 200".to_owned(), seen);
    Ok(())
}

/// What both services answer: a 401 counts only with the challenge that RFC 6750 asks for.
async fn answers(apis: &[Api; 2], token: &str) -> anyhow::Result<String> {
    let mut seen = Vec::new();
    for api in apis {
        let (status, challenge) = api.me(token).await?;
        let odd = status == 401 && challenge != r#"Bearer error="invalid_token""#;
        seen.push(if odd { format!("401 with {challenge:?}") } else { status.to_string() });
    }
    Ok(seen.join(", "))
}
