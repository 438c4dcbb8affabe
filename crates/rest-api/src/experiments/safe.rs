//! Do safe methods change anything? Two thousand of them, and the database before and after.

use futures_util::{StreamExt, TryStreamExt, stream};
use lab::{Experiment, Lab, Sabotage};
use reqwest::Method;

use super::fixture::Fixture;
use crate::cases::client::Client;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Safe requests, of every kind in turn
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(50..=1_000_000))]
    requests: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "safe",
        "Two thousand safe requests of every kind, good and bad, change no row of the database",
        &["--requests", "200"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/store.rs",
        replace: r#""select id, name, email, tags, version, created_at, updated_at from users where id = $1";"#,
        with: r#""update users set updated_at = clock_timestamp() where id = $1
     returning id, name, email, tags, version, created_at, updated_at";"#,
        check: "digest of the database",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let (_child, client) = fixture.start().await?;
    let ada = client.sign_up("Ada").await?;
    let order = client.order(&ada.path, "tea").await?;
    let email = ada.body["email"].as_str().unwrap_or_default();
    let id = ada.path.trim_start_matches("/users/");
    let paths = [
        "/".to_owned(),
        "/users".to_owned(),
        "/users?limit=1&sort=-name&include=orders".to_owned(),
        format!("/users?email={email}"),
        "/users?limit=0".to_owned(),
        "/users?cursor=x".to_owned(),
        ada.path.clone(),
        format!("/users/{}", uuid::Uuid::nil()),
        format!("{}/orders", ada.path),
        order.path.clone(),
        // Only a POST goes on from here.
        format!("{}/cancellation", order.path),
        "/v1/customers".to_owned(),
        format!("/v1/customers/{id}"),
        "/graphql".to_owned(),
        "/openapi.json".to_owned(),
        "/docs".to_owned(),
        "/healthz".to_owned(),
        "/readyz".to_owned(),
        "/nothing".to_owned(),
    ];
    let headers = [
        ("accept", "*/*"),
        ("if-none-match", ada.tag.as_str()),
        ("if-match", "\"none\""),
        ("accept", "application/vnd.worked-answers.v1+json"),
        ("accept", "text/html"),
        ("idempotency-key", "safe"),
    ];
    let methods = [Method::GET, Method::HEAD, Method::OPTIONS];
    let before = fixture.digest().await?;
    let requests = (0..params.requests as usize).map(|n| {
        let (name, value) = headers[n / 3 / paths.len() % headers.len()];
        let request = client.request(methods[n % 3].clone(), &paths[n / 3 % paths.len()]);
        (client.clone(), request.header(name, value))
    });
    // Eight at a time.
    let answers =
        stream::iter(requests).map(async |(client, request)| status(client, request).await);
    let statuses: Vec<u16> = answers.buffer_unordered(8).try_collect().await?;
    let count = |from: u16| statuses.iter().filter(|it| (from..from + 100).contains(*it)).count();
    lab.figure("answered with 2xx or 3xx", (count(200) + count(300)) as f64, "");
    lab.figure("answered with 4xx", count(400) as f64, "");
    lab.check_eq("answered with 5xx", 0, count(500));
    lab.check_eq("digest of the database", before.clone(), fixture.digest().await?);
    // The probe must see a change if there is one.
    client.order(&ada.path, "milk").await?;
    let after = fixture.digest().await?;
    lab.check("digest after one POST, which is not safe", "another", &after, after != before);
    Ok(())
}

async fn status(client: Client, request: reqwest::RequestBuilder) -> anyhow::Result<u16> {
    Ok(client.send(request).await?.status().as_u16())
}
