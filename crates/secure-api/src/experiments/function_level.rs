//! API5: every call with every method, by everybody. The calls are those of the router, and who may is written down here.

use std::collections::BTreeSet;

use lab::{Experiment, Lab, Sabotage};
use reqwest::Method;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::fixture::{Fixture, KEY, NOBODY};
use crate::api::routes;
use crate::cases::client::{ADA, Client, OLGA, VIC};
use crate::token::{LIFE, Tokens};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Times that everybody tries everything
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "function-level",
        "Every call answers just those roles that a table written by hand says, and nobody without a token of ours; the \
         router and that table have the same calls",
        &["--rounds", "1"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/api.rs",
        replace: "async fn customers(may: May<Administer>",
        with: "async fn customers(may: May<ReadInvoices>",
        check: "calls that somebody could make and should not",
    })
    .sabotage(Sabotage {
        file: "src/api.rs",
        replace: "        .guarded(\"GET\", \"/exports\", export)\n",
        with: "        .guarded(\"GET\", \"/exports\", export)\n        .guarded(\"GET\", \"/v0/exports\", export)\n",
        check: "calls of the router that the written table does not have",
    })
    .sabotage(Sabotage {
        file: "src/api.rs",
        replace: "let router = router.route(\"/openapi.json\"",
        with: "let router = router.route(\"/secret\", get(show)).route(\"/openapi.json\"",
        check: "routes that are added past the table (openapi.json is one)",
    })
}

const ALL: &[&str] = &["nobody", "forger", "late", "viewer", "clerk", "admin"];
const READERS: &[&str] = &["viewer", "clerk"];
const CLERKS: &[&str] = &["clerk"];
const ADMINS: &[&str] = &["admin"];

/// Who may do what. Not made from the code: it is what the code is compared with.
const MAY: [(&str, &str, &[&str]); 15] = [
    ("POST", "/login", ALL),
    ("GET", "/readyz", ALL),
    ("GET", "/invoices", READERS),
    ("POST", "/invoices", CLERKS),
    ("GET", "/invoices/{id}", READERS),
    ("PATCH", "/invoices/{id}", CLERKS),
    ("DELETE", "/invoices/{id}", CLERKS),
    ("POST", "/invoices/{id}/pdf", READERS),
    ("POST", "/invoices/{id}/attachments", CLERKS),
    ("GET", "/attachments/{id}", READERS),
    ("GET", "/exports", READERS),
    ("POST", "/webhooks", CLERKS),
    ("POST", "/webhooks/{id}/test", CLERKS),
    ("GET", "/admin/customers", ADMINS),
    ("GET", "/audit", ADMINS),
];

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let (_child, target) = fixture.start(NOBODY).await?;
    let olga = fixture.caller(OLGA).await?;
    let with = |token| Client { target: target.clone(), token: Some(token) };
    let now = u64::try_from(time::OffsetDateTime::now_utc().unix_timestamp())?;
    let everybody = [
        Client::nobody(&target),
        // An administrator, says a token that is signed with another key.
        with(Tokens::new([0x22; 32])?.sign(olga, now)?),
        // It was ours, and has ended.
        with(Tokens::new(Sha256::digest(KEY).into())?.sign(olga, now - LIFE - 1)?),
        Client::login(&target, VIC).await?,
        Client::login(&target, ADA).await?,
        Client::login(&target, OLGA).await?,
    ];
    let paths: BTreeSet<_> = MAY.iter().map(|(_, path, _)| *path).collect();
    let methods = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let (mut could, mut could_not, mut tried) = (Vec::new(), Vec::new(), 0);
    for round in 0..params.rounds {
        lab.progress(round.into(), params.rounds.into(), "everybody tries everything");
        for path in &paths {
            for method in &methods {
                let row = MAY.iter().find(|row| (row.0, row.1) == (method.as_str(), *path));
                let may = row.map_or(&[][..], |row| row.2);
                for (name, client) in ALL.iter().zip(&everybody) {
                    let path = path.replace("{id}", "01900000-0000-7000-8000-000000000000");
                    let request = client.request(method.clone(), &path).json(&json!({}));
                    let status = client.send(request).await?.status().as_u16();
                    tried += 1;
                    // Whoever gets past the guard hears that the body is wrong, or that there is nothing.
                    let passed = !matches!(status, 401 | 403 | 405);
                    let words = format!("{name}: {method} {path}: {status}");
                    match (passed, may.contains(name)) {
                        (true, false) => could.push(words),
                        (false, true) => could_not.push(words),
                        _ => {}
                    }
                }
            }
        }
    }
    lab.text(format!("{tried} requests."));
    for words in could.iter().chain(&could_not).take(10) {
        lab.text(words);
    }
    lab.check_eq("calls that somebody could make and should not", 0, could.len());
    lab.check_eq("calls that somebody should make and could not", 0, could_not.len());
    let written: BTreeSet<_> =
        MAY.iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    let ours: BTreeSet<_> =
        routes().table.iter().map(|it| format!("{} {}", it.method, it.path)).collect();
    let more = ours.difference(&written).count();
    lab.check_eq("calls of the router that the written table does not have", 0, more);
    let fewer = written.difference(&ours).count();
    lab.check_eq("calls of the written table that the router does not have", 0, fewer);
    // axum's own router takes any handler, and no table can tell. The source can.
    let sources =
        [include_str!("../api.rs"), include_str!("../frame.rs"), include_str!("../lib.rs")];
    let ways = [".route(", ".route_service(", ".nest(", ".nest_service(", ".merge(", ".fallback"];
    let past: usize =
        sources.iter().flat_map(|source| ways.iter().map(|way| source.matches(way).count())).sum();
    lab.check_eq("routes that are added past the table (openapi.json is one)", 1, past);
    Ok(())
}
