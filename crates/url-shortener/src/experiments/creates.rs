//! What does a create cost, beside the insert that it makes?

use std::{sync::Arc, time::Duration};

use lab::{
    Experiment, Lab, Sabotage, Target,
    load::{
        self, Outcome, Stop,
        http::{Connection, Pool},
    },
};
use sqlx::{Connection as _, PgConnection};

use super::fixture::{Fixture, UNLIMITED};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Few clients, each of which creates without a pause
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=64))]
    clients: u16,
    /// Many clients. Each bare insert has a connection of its own, and PostgreSQL takes no more than 100
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=80))]
    crowd: u16,
    /// Seconds for each measurement
    #[arg(long, default_value_t = 1.0, value_parser = lab::experiment::seconds)]
    seconds: f64,
    /// Measurements of each of the two, taken in turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Creates a second while latencies are measured
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    rate: u16,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "creates",
        "A create costs little more than the bare insert that it makes, and less when many share a commit",
        &["--rounds", "2", "--seconds", "0.3", "--clients", "4", "--crowd", "16"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/api.rs",
        replace: "Created::New(link, token) => (StatusCode::CREATED, link, token)",
        with: "Created::New(link, token) => (StatusCode::OK, link, token)",
        check: "calls that failed",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    // Two databases, so that neither finds the other's index grown; on one server, with one disk.
    let (ours, bare) = (Fixture::of(&lab).await?, Fixture::of(&lab).await?);
    let child = ours.serve().args(&UNLIMITED).start().await?;
    let mut all = Made::default();
    for (crowd, clients, target) in [("few", params.clients, 0.9), ("many", params.crowd, 1.5)] {
        let (mut ratios, mut rates, mut rows) = (Vec::new(), [Vec::new(), Vec::new()], Vec::new());
        for round in 0..params.rounds {
            let name = format!("{crowd}{round:03}");
            let words = format!("measured in turn, with {clients} clients");
            lab.progress(round.into(), params.rounds.into(), words);
            let time = Duration::from_secs_f64(params.seconds);
            let insert = inserts(bare.database().url(), clients, time, &name).await?;
            let create = creates(child.address(), clients, time, &name).await?;
            ratios.push(create.throughput() / insert.throughput());
            rates[0].push(insert.throughput());
            rates[1].push(create.throughput());
            all.created += create.ok;
            all.inserted += insert.ok;
            all.failed += create.failed + insert.failed;
            for (name, outcome) in [("insert", insert), ("create", create)] {
                rows.push([vec![name.to_owned()], outcome.cells()].concat());
            }
        }
        let columns = [&["call"][..], &Outcome::COLUMNS].concat();
        lab.table(format!("Each measurement, {crowd} clients"), &columns, rows);
        lab.figure_with_target(
            format!("throughput of creates ÷ that of bare inserts, {crowd} clients, median"),
            load::median(ratios),
            "",
            Target::AtLeast(target),
        );
        let [inserts, creates] = rates.map(load::median);
        lab.figure(format!("bare inserts a second, {crowd} clients, median"), inserts, "/s");
        lab.figure(format!("creates a second, {crowd} clients, median"), creates, "/s");
    }
    let timed = at_a_rate(child.address(), &params).await?;
    all.created += timed.ok;
    all.failed += timed.failed;
    let rate = params.rate;
    lab.figure(format!("p50 of a create, {rate} a second"), timed.percentile(50.0), "ms");
    lab.figure(format!("p99 of a create, {rate} a second"), timed.percentile(99.0), "ms");
    let title = "Creates at a steady rate, whether or not the server keeps up";
    lab.table(title, &Outcome::OPEN_COLUMNS, vec![timed.open_cells()]);

    lab.check_eq("calls that failed", 0, all.failed);
    for (name, fixture, expected) in
        [("created", &ours, all.created), ("inserted", &bare, all.inserted)]
    {
        let pool = fixture.database().pool().await?;
        let (rows, bytes): (i64, i64) =
            sqlx::query_as("select count(*), pg_total_relation_size('links') from links")
                .fetch_one(&pool)
                .await?;
        pool.close().await;
        let each = bytes as f64 / rows as f64;
        lab.figure(format!("on disk, for each link {name}, with its index"), each, "bytes");
        lab.check_eq(format!("rows that are there of those {name}"), expected, rows.unsigned_abs());
    }
    Ok(())
}

/// How many answers said that a row was made, in all measurements.
#[derive(Default)]
struct Made {
    created: u64,
    inserted: u64,
    failed: u64,
}

/// What a create writes, without anything around it: one row, one statement, one commit.
const BARE: &str = r#"
    insert into links (code, id, url)
    values ($1, gen_random_uuid(), $2)
    on conflict (code) do nothing
    returning created_at
"#;

/// Bare inserts, on a connection for each client.
async fn inserts(url: &str, clients: u16, time: Duration, name: &str) -> anyhow::Result<Outcome> {
    let mut connections = Vec::new();
    for client in 0..clients {
        connections.push((PgConnection::connect(url).await?, format!("{name}{client:03}"), 0_u64));
    }
    load::closed(connections, Stop::After(time), |(connection, name, n)| {
        Box::pin(async move {
            *n += 1;
            sqlx::query(BARE)
                .bind(format!("{name}{n}"))
                .bind(format!("https://example.com/{name}/{n}"))
                .fetch_one(connection)
                .await?;
            Ok(())
        })
    })
    .await
}

/// At a rate far below what the server can do: what a client waits for then is the work itself, and no queue.
async fn at_a_rate(host: &str, params: &Params) -> anyhow::Result<Outcome> {
    let pool = Arc::new(Pool::of(host));
    let time = Duration::from_secs_f64(params.seconds);
    load::open(params.rate.into(), time, 1_000, |arrival| {
        let (pool, n) = (Arc::clone(&pool), arrival.number);
        async move {
            let link = format!(r#"{{"url":"https://example.com/timed/{n}"}}"#);
            let status = pool.post("/links", &link).await?;
            anyhow::ensure!(status == 201, "{status}");
            Ok(())
        }
    })
    .await
}

async fn creates(host: &str, clients: u16, time: Duration, name: &str) -> anyhow::Result<Outcome> {
    let mut connections = Vec::new();
    for client in 0..clients {
        connections.push((Connection::open(host).await?, format!("{name}{client:03}"), 0_u64));
    }
    load::closed(connections, Stop::After(time), |(connection, name, n)| {
        Box::pin(async move {
            *n += 1;
            let link = format!(r#"{{"url":"https://example.com/{name}/{n}"}}"#);
            let status = connection.send(&connection.post("/links", &link)).await?;
            anyhow::ensure!(status == 201, "{status}");
            Ok(())
        })
    })
    .await
}
