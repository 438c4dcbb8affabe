//! What does all this cost? A user over HTTP, with tag, links and negotiation, beside the bare query and handler.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::get,
};
use lab::{
    Experiment, Lab, Sabotage, Target,
    fault::Proxy,
    load::{self, Outcome, Stop, http::Connection},
    serve::here,
};
use uuid::Uuid;

use super::{
    compare::graphql,
    fixture::{Fixture, serve_here},
};
use crate::{api, store::Store, user::User};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Clients, each of which asks without a pause
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    clients: u16,
    /// Seconds for each measurement
    #[arg(long, default_value_t = 1.5, value_parser = lab::experiment::seconds)]
    seconds: f64,
    /// Rounds of four measurements: the bare one, ours twice, and the bare one again
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "cost",
        "GET /users/{id} makes half at least of the rate of its query in a bare handler: one statement, and a header or two",
        &["--seconds", "0.3", "--clients", "4"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/api.rs",
        replace: "let (user, version) = (store.find(id).await?, negotiate(&headers)?);",
        with: "store.find(id).await?;\n    let (user, version) = (store.find(id).await?, negotiate(&headers)?);",
        check: "messages to PostgreSQL for a hundred requests are few",
    })
}

/// The handler that one would write if nothing else mattered: the same statement on the same pool.
async fn bare(
    State(store): State<Arc<Store>>,
    Path(id): Path<Uuid>,
) -> Result<Json<User>, StatusCode> {
    store.find(id).await.map(Json).map_err(|_| StatusCode::NOT_FOUND)
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let store = Store::new(fixture.database.url())?;
    let bare = Router::new().route("/users/{id}", get(bare)).with_state(Arc::new(store.clone()));
    let bare = here(bare).await?;
    let graph = graphql::calls(store.clone(), true);
    let (ours, client) = serve_here(api::router(store, graph)).await?;
    let path = client.sign_up("Ada").await?.path;
    let hosts = [&bare.host, &ours.host];
    let turns = [0, 1, 1, 0];
    let (mut rates, mut failed) = ([Vec::new(), Vec::new()], 0);
    for host in hosts {
        ask(host, &path, params.clients, 0.2).await?;
    }
    let mut rows = Vec::new();
    for round in 0..params.rounds {
        for (n, who) in turns.into_iter().enumerate() {
            lab.progress(
                u64::from(round) * 4 + n as u64,
                u64::from(params.rounds) * 4,
                "measured by turns",
            );
            let outcome = ask(hosts[who], &path, params.clients, params.seconds).await?;
            failed += outcome.failed;
            rates[who].push(outcome.throughput());
            let name = ["bare query and handler", "ours"][who];
            rows.push([vec![name.to_owned()], outcome.cells()].concat());
        }
    }
    lab.table("Each measurement", &[&["who"][..], &Outcome::COLUMNS].concat(), rows);
    let [bare, ours] = rates.map(load::median);
    lab.figure("requests a second, median", ours, "requests/s");
    let name = "requests a second ÷ those of the bare query and handler, medians";
    lab.figure_with_target(name, ours / bare, "", Target::AtLeast(0.85));
    lab.check_eq("requests that failed", 0, failed);
    statements(&lab, &fixture, &path).await
}

struct Asker {
    connection: Connection,
    request: Vec<u8>,
}

async fn ask(host: &str, path: &str, clients: u16, seconds: f64) -> anyhow::Result<Outcome> {
    let mut askers = Vec::new();
    for _ in 0..clients {
        let connection = Connection::open(host).await?;
        askers.push(Asker { request: connection.get(path), connection });
    }
    let stop = Stop::After(Duration::from_secs_f64(seconds));
    load::closed(askers, stop, |asker| {
        Box::pin(async {
            let status = asker.connection.send(&asker.request).await?;
            ensure!(status == 200, "{status}");
            Ok(())
        })
    })
    .await
}

/// How often the program asks the database: one message for each request, and a ping for a connection that has rested.
async fn statements(lab: &Lab, fixture: &Fixture, path: &str) -> anyhow::Result<()> {
    let proxy = Proxy::to_url(fixture.database.url()).await?;
    let url = proxy.url(fixture.database.url())?;
    let child = fixture.serve().env("DATABASE_URL", url).start().await?;
    let mut connection = Connection::open(child.address()).await?;
    let request = connection.get(path);
    connection.send(&request).await?;
    let before = proxy.messages();
    for _ in 0..100 {
        ensure!(connection.send(&request).await.context("no answer")? == 200, "no 200");
    }
    let messages = proxy.messages() - before;
    lab.check(
        "messages to PostgreSQL for a hundred requests are few",
        "100 to 150",
        messages,
        (100..=150).contains(&messages),
    );
    Ok(())
}
