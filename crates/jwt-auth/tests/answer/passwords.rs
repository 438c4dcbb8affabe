//! What is kept of a password, and what does it cost?

use anyhow::ensure;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jwt_auth::{
    cases::client::PASSWORD,
    experiments::fixture::{self, Fixture},
};
use lab::harness::Outcome;

use crate::start;

lab::tests![
    unless_told_otherwise_a_password_costs_what_owasp_asks_for,
    the_database_holds_no_password_and_no_token,
];

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
        "select sessions::text from sessions",
        "select refresh_tokens::text from refresh_tokens",
        "select failed_logins::text from failed_logins",
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
