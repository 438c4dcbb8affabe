//! API2: pairs from a leaked list, guesses at one account from many addresses, forged tokens, and the question who has an
//! account at all.

use std::time::{Duration, Instant};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use lab::{Experiment, Lab, Sabotage, Target as Aim, load::median};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::fixture::{Fixture, KEY, quarter};
use crate::cases::client::{ADA, Client, OLGA, new_word};
use crate::token::{LIFE, Tokens};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Pairs of an address and a password that one client tries, and addresses that guess at one account
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(30..=1_000_000))]
    pairs: u32,
    /// Logins of each kind whose time is compared
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    logins: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "authentication",
        "Of thousands of pairs a client tries twenty, and of thousands of addresses that guess at one account twenty come \
         through; no forged token is believed; and the words of a login that fails say nothing about who has an account",
        &["--pairs", "60", "--logins", "3"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/store.rs",
        replace: "(row.0 > *most).then_some(row.1)",
        with: "(row.0 > most.saturating_mul(1_000_000)).then_some(row.1)",
        check: "pairs that one client could try",
    })
    .sabotage(Sabotage {
        file: "src/token.rs",
        replace: "        if token.header.typ.as_deref() != Some(TYPE) {\n            return Err(Error::UNAUTHENTICATED);\n        }\n",
        with: "",
        check: "forged tokens that were believed",
    })
}

/// Logins that a client may try, and a tenth of what all may try at one account.
const LIMITS: [&str; 6] =
    ["--logins-per-client", "20", "--logins-per-account", "2", "--trusted-proxy", "127.0.0.0/8"];

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let child = fixture.serve_with(&LIMITS).start().await?;
    let target = conform::target::Target::new(child.url(), None)?;
    let (mut tried, mut guessed, begun) = (0, 0, quarter());
    for n in 0..params.pairs {
        lab.progress(n.into(), u64::from(params.pairs) * 2, "pairs from a list, by one client");
        let email = format!("{}@acme.example", new_word());
        let answer = login(&target, &email, "from a list", "192.0.2.1").await?;
        tried += u32::from(answer.status() != 429);
    }
    for n in 0..params.pairs {
        let done = params.pairs + n;
        lab.progress(done.into(), u64::from(params.pairs) * 2, "guesses at one account");
        // A network of its own for each.
        let client = format!("2001:db8:{:x}:{:x}::1", n >> 16, n & 0xffff);
        let answer = login(&target, ADA, "a guess", &client).await?;
        guessed += u32::from(answer.status() != 429);
    }
    // A run may begin in one quarter of an hour and end in the next.
    let most = 20 * u32::try_from(1 + quarter() - begun)?;
    let expected = format!("20 to {most}");
    let held = |seen| (20..=most).contains(&seen);
    lab.check("pairs that one client could try", &expected, tried, held(tried));
    let name = "guesses at one account from as many addresses, that were looked at";
    lab.check(name, &expected, guessed, held(guessed));
    forgeries(&lab, &fixture).await?;
    who_is_there(params, &lab, &fixture).await
}

async fn login(
    target: &conform::target::Target,
    email: &str,
    password: &str,
    client: &str,
) -> anyhow::Result<Response> {
    let body = json!({ "email": email, "password": password });
    let request = target.request(Method::POST, "login").json(&body);
    target.send(request.header("x-forwarded-for", client)).await
}

/// Tokens of an administrator that we did not make for this, each with what is wrong with it.
async fn forgeries(lab: &Lab, fixture: &Fixture) -> anyhow::Result<()> {
    let (_child, target) = fixture.start(super::fixture::NOBODY).await?;
    let olga = fixture.caller(OLGA).await?;
    let now = u64::try_from(time::OffsetDateTime::now_utc().unix_timestamp())?;
    let ours = Tokens::new(Sha256::digest(KEY).into())?;
    let good = ours.sign(olga, now)?;
    let parts: Vec<_> = good.split('.').collect();
    let claims = |change: &[(&str, Value)]| {
        let mut claims = json!({
            "iss": "https://invoices.example/login", "aud": "https://invoices.example",
            "sub": olga.user, "customer": olga.customer, "role": "admin", "iat": now, "exp": now + LIFE,
        });
        for (name, value) in change {
            claims[*name] = value.clone();
        }
        // What is null is left out.
        if let Some(claims) = claims.as_object_mut() {
            claims.retain(|_, value| !value.is_null());
        }
        claims
    };
    let with = |algorithm, typ: &str, key: &EncodingKey, change: &[(&str, Value)]| {
        let header = Header { typ: Some(typ.to_owned()), ..Header::new(algorithm) };
        encode(&header, &claims(change), key)
    };
    let seed = ed25519_dalek::SigningKey::from_bytes(&Sha256::digest(KEY).into());
    let public = seed.verifying_key().to_bytes();
    let private = ed25519_dalek::pkcs8::EncodePrivateKey::to_pkcs8_der(&seed)?;
    let (key, hmac) = (EncodingKey::from_ed_der(private.as_bytes()), Algorithm::HS256);
    let secret = |text: &[u8]| EncodingKey::from_secret(text);
    let eddsa = Algorithm::EdDSA;
    // {"alg":"none","typ":"at+jwt"}
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0";
    let forged = vec![
        ("no signature", format!("{none}.{}.", parts[1])),
        ("no signature, but our header", format!("{}.{}.", parts[0], parts[1])),
        ("another header", format!("{none}.{}.{}", parts[1], parts[2])),
        ("one letter of the claims", format!("{}.A{}.{}", parts[0], &parts[1][1..], parts[2])),
        ("a key of somebody else's", Tokens::new([0x22; 32])?.sign(olga, now)?),
        ("HMAC with our public key", with(hmac, "at+jwt", &secret(&public), &[])?),
        ("HMAC with \"secret\"", with(hmac, "JWT", &secret(b"secret"), &[("aud", Value::Null)])?),
        ("it has ended", ours.sign(olga, now - LIFE - 1)?),
        (
            "of another issuer",
            with(eddsa, "at+jwt", &key, &[("iss", json!("https://evil.example"))])?,
        ),
        (
            "for another service",
            with(eddsa, "at+jwt", &key, &[("aud", json!("https://other.example"))])?,
        ),
        ("for a password's reset", with(eddsa, "reset+jwt", &key, &[])?),
        ("of no type", with(eddsa, "JWT", &key, &[])?),
        ("with a claim more", with(eddsa, "at+jwt", &key, &[("admin", json!(true))])?),
        ("a role that there is not", with(eddsa, "at+jwt", &key, &[("role", json!("root"))])?),
        ("very long", format!("{good}{}", "A".repeat(4_000))),
    ];
    let (mut rows, mut believed) = (Vec::new(), 0);
    let ask = async |token: String| {
        let client = Client { target: target.clone(), token: Some(token) };
        anyhow::Ok(client.get("admin/customers").await?.status().as_u16())
    };
    for (words, token) in forged {
        let status = ask(token).await?;
        believed += u32::from(status == 200);
        rows.push(vec![words.to_owned(), status.to_string()]);
    }
    lab.table("Forged tokens of an administrator", &["what is wrong", "status"], rows);
    lab.check_eq("forged tokens that were believed", 0, believed);
    lab.check_eq("status for the good one", 200, ask(good).await?);
    Ok(())
}

/// The answers to an unknown address and to a wrong password: the same words; and about the same time, which is a figure.
async fn who_is_there(params: Params, lab: &Lab, fixture: &Fixture) -> anyhow::Result<()> {
    let (_child, target) = fixture.start(super::fixture::NOBODY).await?;
    let (mut times, mut words) = ([Vec::new(), Vec::new()], [String::new(), String::new()]);
    for round in 0..params.logins {
        let emails = [ADA.to_owned(), format!("{}@acme.example", new_word())];
        // Each is the first one half of the times: it may warm what the second one uses.
        for n in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
            let begun = Instant::now();
            let answer = login(&target, &emails[n], "wrong", "").await?;
            times[n].push(begun.elapsed().max(Duration::from_micros(1)).as_secs_f64());
            words[n] = format!("{} {}", answer.status().as_u16(), answer.text().await?);
        }
    }
    let [known, unknown] = times.map(median);
    let name = "time of the quicker kind of login ÷ of the slower, medians";
    lab.figure_with_target(name, known.min(unknown) / known.max(unknown), "", Aim::AtLeast(0.8));
    let [known, unknown] = words;
    lab.check_eq("the answer for an unknown address is that for a wrong password", known, unknown);
    Ok(())
}
