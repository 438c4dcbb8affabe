//! What does all of it cost a request? One invoice: from its query in a bare handler, by the lock on the rows, to the whole
//! answer.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::get,
};
use conform::target::Target;
use edge::{
    client_address::{ProxyHeader, TrustedProxies},
    database::{Database, Limits},
    lookup::system_lookup,
    password::Passwords,
};
use jsonwebtoken::get_current_timestamp;
use lab::{
    Experiment, Lab, Sabotage, Target as Aim,
    fault::Proxy,
    load::{self, Outcome, Stop, http::Connection},
    serve::here,
};
use sqlx::query_as;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::fixture::{Fixture, NOBODY};
use crate::api::{self, Api};
use crate::cases::client::{ADA, Client};
use crate::error::Error;
use crate::invoice::Invoice;
use crate::login;
use crate::store::Store;
use crate::token::{Caller, Tokens};
use crate::webhook::Webhooks;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Clients, each of which asks without a pause
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    clients: u16,
    /// Seconds for each measurement
    #[arg(long, default_value_t = 1.0, value_parser = lab::experiment::seconds)]
    seconds: f64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "cost",
        "GET /invoices/{id} asks the database four times where its bare query asks once, and never more often",
        &["--seconds", "0.2", "--clients", "4"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/api.rs",
        replace: "    Ok(Json(api.store.find(may.by.who, id).await?))\n",
        with: "    api.store.find(may.by.who, id).await?;\n    Ok(Json(api.store.find(may.by.who, id).await?))\n",
        check: "messages to PostgreSQL for a hundred requests, the least of three times",
    })
}

const FIND: &str = "select id, title, note, amount_cents, corrects, paid, created_at
                    from invoices where customer_id = $1 and id = $2";

/// What the handlers share that are compared with ours.
#[derive(Clone)]
struct Bare {
    database: Arc<Database<Error>>,
    store: Store,
    who: Caller,
}

/// The handler that one would write if nothing else mattered, on a pool like ours.
async fn query_only(it: State<Bare>, Path(id): Path<Uuid>) -> Result<Json<Invoice>, StatusCode> {
    let find = query_as(FIND).bind(it.who.customer).bind(id);
    let found = it.database.within(async |tx| find.fetch_one(tx).await).await;
    found.map(Json).map_err(|_| StatusCode::NOT_FOUND)
}

/// The same, with the lock on the rows around it.
async fn with_lock(it: State<Bare>, Path(id): Path<Uuid>) -> Result<Json<Invoice>, StatusCode> {
    it.store.find(it.who, id).await.map(Json).map_err(|_| StatusCode::NOT_FOUND)
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    // It makes the accounts.
    let (child, target) = fixture.start(NOBODY).await?;
    let ada = Client::login(&target, ADA).await?;
    let path = format!("/invoices/{}", ada.invoice("Tea").await?);
    drop(child);
    let who = fixture.caller(ADA).await?;
    let limits =
        Limits { connections: 16, timeout: Duration::from_secs(4), pause: Duration::from_secs(2) };
    let database = Arc::new(Database::new(fixture.database.url(), limits)?);
    let bare = Bare { database, store: fixture.store()?, who };
    let bare = Router::new()
        .route("/bare/{id}", get(query_only))
        .route("/invoices/{id}", get(with_lock))
        .with_state(bare);
    let tokens = Arc::new(Tokens::new([7; 32])?);
    let token = tokens.sign(who, get_current_timestamp())?;
    let ours = Api {
        store: fixture.store()?,
        tokens,
        passwords: Arc::new(Passwords::new()?),
        limits: login::Limits { per_account: 10, per_client: 100 },
        proxies: TrustedProxies::new(vec![], ProxyHeader::XForwardedFor).into(),
        webhooks: Webhooks::new(None, system_lookup()),
        documents: Arc::new(Semaphore::new(4)),
    };
    let (bare, ours) = (here(bare).await?, here(api::router(ours, vec![])).await?);
    let bare_path = path.replace("invoices", "bare");
    let ways = [
        ("bare query and handler", &bare.host, &bare_path),
        ("with the lock on the rows", &bare.host, &path),
        ("ours", &ours.host, &path),
    ];
    for (_, host, path) in ways {
        ask(host, path, &token, params.clients, 0.2).await?;
    }
    let (mut rates, mut failed, mut rows) = ([vec![], vec![], vec![]], 0, Vec::new());
    let turns = [0, 1, 2, 2, 1, 0];
    for (n, who) in turns.into_iter().enumerate() {
        lab.progress(n as u64, turns.len() as u64, "measured by turns");
        let (name, host, path) = ways[who];
        let outcome = ask(host, path, &token, params.clients, params.seconds).await?;
        failed += outcome.failed;
        rates[who].push(outcome.throughput());
        rows.push([vec![name.to_owned()], outcome.cells()].concat());
    }
    lab.table("Each measurement", &[&["who"][..], &Outcome::COLUMNS].concat(), rows);
    let [bare, locked, ours] = rates.map(load::median);
    lab.figure("requests a second, median", ours, "requests/s");
    let name = "requests a second ÷ those of the bare query and handler, medians";
    lab.figure_with_target(name, ours / bare, "", Aim::AtLeast(0.7));
    let name = "requests a second with the lock on the rows ÷ without it, medians";
    lab.figure(name, locked / bare, "");
    let name = "requests a second ÷ those with the lock on the rows alone, medians";
    lab.figure_with_target(name, ours / locked, "", Aim::AtLeast(0.7));
    lab.check_eq("requests that failed", 0, failed);
    statements(&lab, &fixture, &path).await
}

struct Asker {
    connection: Connection,
    request: Vec<u8>,
}

fn request(host: &str, path: &str, token: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n").into()
}

async fn ask(
    host: &str,
    path: &str,
    token: &str,
    clients: u16,
    seconds: f64,
) -> anyhow::Result<Outcome> {
    let mut askers = Vec::new();
    for _ in 0..clients {
        let request = request(host, path, token);
        askers.push(Asker { request, connection: Connection::open(host).await? });
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

/// How often the program asks the database: the beginning, who it works for, the query, the end; and a ping for a
/// connection that has rested.
async fn statements(lab: &Lab, fixture: &Fixture, path: &str) -> anyhow::Result<()> {
    let proxy = Proxy::to_url(fixture.database.url()).await?;
    let url = proxy.url(fixture.database.url())?;
    let child = fixture.serve().env("DATABASE_URL", url).start().await?;
    let target = Target::new(child.url(), None)?;
    let token = Client::login(&target, ADA).await?.token.unwrap_or_default();
    let mut connection = Connection::open(child.address()).await?;
    let request = request(child.address(), path, &token);
    connection.send(&request).await?;
    let mut hundreds = Vec::new();
    for _ in 0..3 {
        let before = proxy.messages();
        for _ in 0..100 {
            ensure!(connection.send(&request).await.context("no answer")? == 200, "no 200");
        }
        hundreds.push(proxy.messages() - before);
    }
    // On a busy machine a connection rests more often, and is pinged.
    let messages = hundreds.into_iter().min().unwrap_or_default();
    let check = "messages to PostgreSQL for a hundred requests, the least of three times";
    lab.check(check, "400 to 440", messages, (400..=440).contains(&messages));
    Ok(())
}
