//! What does a 304 save? The body for sure; the time only if the tag is cheaper than the answer.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use axum::middleware::from_fn;
use conform::http::header;
use lab::{
    Experiment, Lab, Sabotage,
    load::{http::Connection, median},
    serve::here,
};

use super::{compare::strong, fixture::Fixture};
use crate::cases::client::Client;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Requests of each kind, in turns
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(3..=10_000))]
    requests: u32,
    /// Users on the large page, each with forty orders
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i32).range(2..=200))]
    users: i32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "conditional",
        "A 304 saves the body of what has not changed, with a weak and with a strong ETag; a tag made of versions saves time \
         too, where the answer is large, and one made of the bytes saves hardly any",
        &["--requests", "5", "--users", "20"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/condition.rs",
        replace: "!none.precondition_passes(&tag)",
        with: "none.precondition_passes(&tag)",
        check: "a user: answered with 304",
    })
}

/// What is asked for, with which kind of tag.
struct Kind {
    name: &'static str,
    host: String,
    path: String,
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    fixture.fill(params.users, 40).await?;
    let (child, client) = fixture.start().await?;
    let router = fixture.router(true)?;
    // The same twice, in this process: with its own tags, and with those of the bytes.
    let ours = here(router.clone()).await?;
    let theirs = here(router.layer(from_fn(strong::tagged))).await?;
    let first = client.get("users?limit=1", &[]).await?;
    let first: serde_json::Value = serde_json::from_str(&first.text().await?)?;
    let user =
        first["items"][0]["_links"]["self"]["href"].as_str().unwrap_or("/users?limit=1").to_owned();
    let small = "/users?limit=3".to_owned();
    let large = format!("/users?limit={}&include=orders", params.users);
    let kinds = [
        Kind { name: "a user", host: child.address().to_owned(), path: user },
        Kind { name: "a small page, weak", host: ours.host.clone(), path: small.clone() },
        Kind { name: "a small page, strong", host: theirs.host.clone(), path: small },
        Kind { name: "a large page, weak", host: ours.host.clone(), path: large.clone() },
        Kind { name: "a large page, strong", host: theirs.host.clone(), path: large.clone() },
    ];
    let mut rows = Vec::new();
    for (n, kind) in (0..).zip(&kinds) {
        lab.progress(n, kinds.len() as u64, kind.name);
        rows.push(measure(&lab, kind, params.requests).await?);
    }
    let columns = ["what", "200 (bytes)", "200 (ms)", "304 (ms)", "304 ÷ 200, time"];
    lab.table("The whole answer, and that it has not changed", &columns, rows);
    // A tag must not outlive what it stands for.
    let tag = header(&client.get(&large, &[]).await?, "etag").to_owned();
    sqlx::query("update users set version = nextval('versions') where name = 'user 1'")
        .execute(&fixture.pool)
        .await?;
    let status = client.get(&large, &[("if-none-match", &tag)]).await?.status().as_u16();
    lab.check_eq("after a change of one user, the page with its old tag", 200, status);
    Ok(())
}

async fn measure(lab: &Lab, kind: &Kind, requests: u32) -> anyhow::Result<Vec<String>> {
    let client = Client::at(&format!("http://{}", kind.host))?;
    let whole = client.get(&kind.path, &[]).await?;
    ensure!(whole.status() == 200, "{}: {}", kind.name, whole.status());
    let tag = header(&whole, "etag").to_owned();
    let bytes = whole.bytes().await?.len();
    let mut connection = Connection::open(&kind.host).await?;
    let plain = connection.get(&kind.path);
    let line = format!("\r\nif-none-match: {tag}\r\n\r\n");
    let end = plain.len().checked_sub(4).context("a request ends with a blank line")?;
    let conditional = [&plain[..end], line.as_bytes()].concat();
    let (mut full, mut same, mut unchanged) = (Vec::new(), Vec::new(), 0);
    for _ in 0..requests {
        let (_, time) = timed(&mut connection, &plain).await?;
        full.push(time);
        let (status, time) = timed(&mut connection, &conditional).await?;
        same.push(time);
        unchanged += u32::from(status == 304);
    }
    let empty = client.get(&kind.path, &[("if-none-match", &tag)]).await?.bytes().await?.len();
    let (full, same) = (median(full), median(same));
    let name = kind.name;
    lab.check_eq(format!("{name}: answered with 304"), requests, unchanged);
    lab.check_eq(format!("{name}: bytes in the body of a 304"), 0, empty);
    lab.figure(format!("{name}: bytes that a 304 saves"), bytes as f64, "bytes");
    lab.figure(format!("{name}: time of a 304 ÷ that of a 200, medians"), same / full, "");
    Ok(vec![
        name.to_owned(),
        bytes.to_string(),
        format!("{full:.2}"),
        format!("{same:.2}"),
        format!("{:.2}", same / full),
    ])
}

async fn timed(connection: &mut Connection, request: &[u8]) -> anyhow::Result<(u16, f64)> {
    let begun = Instant::now();
    let status = tokio::time::timeout(Duration::from_secs(30), connection.send(request)).await??;
    Ok((status, begun.elapsed().as_secs_f64() * 1_000.0))
}
