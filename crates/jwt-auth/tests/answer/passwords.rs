//! What is kept of a password, and what does it cost?

use anyhow::ensure;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use conform::http::problem;
use jwt_auth::{
    cases::client::PASSWORD,
    experiments::fixture::{self, Fixture},
};
use lab::harness::Outcome;

use crate::start;

lab::tests![
    a_login_hashes_again_when_the_cost_has_changed,
    unless_told_otherwise_a_password_costs_what_owasp_asks_for,
    the_database_holds_no_password_and_no_token,
];

async fn a_login_hashes_again_when_the_cost_has_changed() -> Outcome {
    let (fixture, child, client) = start(&[]).await?;
    client.register("ann@example.com").await?;
    let pool = fixture.database.pool().await?;
    let hash = async || {
        sqlx::query_scalar::<_, String>("select password_hash from users").fetch_one(&pool).await
    };
    let old = hash().await?;
    ensure!(old.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{old}");
    drop(child);
    let cost = ["--argon2-memory", "128", "--argon2-passes", "1"];
    let (_child, client) = fixture::start(fixture.serve().args(&cost)).await?;
    // A wrong password changes nothing.
    problem(client.try_login("ann@example.com", "a wrong password").await?, 401).await?;
    ensure!(hash().await? == old);
    client.log_in("ann@example.com").await?;
    let new = hash().await?;
    ensure!(new.starts_with("$argon2id$v=19$m=128,t=1,p=1$"), "{new}");
    // The password is the same, and with the same cost the hash stays.
    client.log_in("ann@example.com").await?;
    ensure!(hash().await? == new);
    pool.close().await;
    Ok(())
}

async fn unless_told_otherwise_a_password_costs_what_owasp_asks_for() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, client) = fixture::start(fixture.serve()).await?;
    client.register("ann@example.com").await?;
    let pool = fixture.database.pool().await?;
    let hash: String =
        sqlx::query_scalar("select password_hash from users").fetch_one(&pool).await?;
    pool.close().await;
    ensure!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    Ok(())
}

async fn the_database_holds_no_password_and_no_token() -> Outcome {
    let (fixture, _child, client) = start(&[]).await?;
    let pair = client.join("ann@example.com").await?;
    let pool = fixture.database.pool().await?;
    let mut rows: Vec<String> = Vec::new();
    for query in [
        "select users::text from users",
        "select families::text from families",
        "select refresh_tokens::text from refresh_tokens",
        "select failed_logins::text from failed_logins",
        "select known_clients::text from known_clients",
    ] {
        rows.extend(sqlx::query_scalar::<_, String>(query).fetch_all(&pool).await?);
    }
    pool.close().await;
    ensure!(rows.len() >= 4, "{rows:?}");
    let all = rows.join("\n");
    let bits = URL_SAFE_NO_PAD.decode(&pair.refresh_token)?;
    let hex: String = bits.iter().map(|byte| format!("{byte:02x}")).collect();
    for secret in [PASSWORD, &pair.refresh_token, &hex, &pair.access_token, "127.0.0.1"] {
        ensure!(!all.contains(secret), "{secret} is there: {all}");
    }
    Ok(())
}
