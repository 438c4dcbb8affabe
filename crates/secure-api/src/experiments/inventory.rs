//! API9: what does the server answer that nobody wrote down? An old version, a debug page, a file that lies beside it.

use std::collections::BTreeSet;

use lab::{Experiment, Lab, Sabotage};
use reqwest::Method;
use serde_json::Value;

use super::fixture::{Fixture, NOBODY};
use crate::api::routes;
use crate::cases::client::{ADA, Client, OLGA};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Times that everything is asked for
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "inventory",
        "Nothing answers that is not in openapi.json, neither an old version of a call nor what is found on other servers; and \
         every call that is in it answers",
        &["--rounds", "1"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/api.rs",
        replace: "let router = router.route(\"/openapi.json\"",
        with: "let router = router.route(\"/v0/invoices/{id}\", get(show)).route(\"/openapi.json\"",
        check: "calls that nobody wrote down and that answer",
    })
    .sabotage(Sabotage {
        file: "src/api.rs",
        replace: "for Route { method, path, roles } in table {",
        with: "for Route { method, path, roles } in &table[1..] {",
        check: "calls of the router that openapi.json does not have",
    })
}

/// Where versions of a call are left.
const BEFORE: [&str; 12] = [
    "v0", "v1", "v2", "api", "api/v0", "api/v1", "old", "beta", "internal", "test", "debug",
    "admin",
];

/// What is found on other servers.
const ELSEWHERE: [&str; 28] = [
    ".env",
    ".git/config",
    ".git/HEAD",
    ".aws/credentials",
    "actuator",
    "actuator/env",
    "actuator/heapdump",
    "admin",
    "admin/",
    "backup.sql",
    "config.json",
    "console",
    "debug/pprof/",
    "debug/vars",
    "dump",
    "env",
    "graphql",
    "info",
    "logs",
    "metrics",
    "openapi.yaml",
    "phpinfo.php",
    "server-status",
    "swagger.json",
    "swagger-ui/",
    "trace",
    "users",
    "wp-login.php",
];

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let (_child, target) = fixture.start(NOBODY).await?;
    let (ada, olga) = (Client::login(&target, ADA).await?, Client::login(&target, OLGA).await?);
    let id = ada.invoice("Tea").await?;
    let ours: BTreeSet<_> =
        routes().table.iter().map(|it| (it.method.to_owned(), it.path.to_owned())).collect();
    let mut guesses: Vec<_> = ELSEWHERE.map(|path| ("GET".to_owned(), path.to_owned())).into();
    for (method, path) in &ours {
        let path = path.replace("{id}", &id);
        guesses.extend(BEFORE.map(|before| (method.clone(), format!("{before}{path}"))));
    }
    // One of these is a call of ours.
    guesses.retain(|(_, path)| path != "admin/customers");
    let mut found = BTreeSet::new();
    for round in 0..params.rounds {
        lab.progress(round.into(), params.rounds.into(), "guesses");
        for client in [&Client::nobody(&target), &ada, &olga] {
            for (method, path) in &guesses {
                let method = Method::from_bytes(method.as_bytes())?;
                let status = client.ask(method.clone(), path).await?.status().as_u16();
                if status != 404 {
                    found.insert(format!("{method} /{path}: {status}"));
                }
            }
        }
    }
    let words = found.iter().cloned().collect::<Vec<_>>().join("; ");
    lab.text(format!("{} guesses. {words}", guesses.len()));
    lab.check_eq("calls that nobody wrote down and that answer", 0, found.len());
    let document = target.get("openapi.json").await?.text().await?;
    let document: Value = serde_json::from_str(&document).unwrap_or_default();
    let documented = documented(&document);
    let missing = ours.difference(&documented).count();
    lab.check_eq("calls of the router that openapi.json does not have", 0, missing);
    let open = ["/healthz", "/openapi.json"].map(|path| ("GET".to_owned(), path.to_owned()));
    let open = open.iter().filter(|call| documented.contains(*call)).count();
    lab.check_eq("calls beside the router's that openapi.json has", 2, open);
    let (mut dead, mut undescribed) = (0, 0);
    for (method, path) in &documented {
        // Without it, a tool that reads the document refuses the call.
        let described = &document["paths"][path][method.to_lowercase()]["parameters"][0];
        undescribed += u32::from(path.contains("{id}") && described["in"] != "path");
        let method = Method::from_bytes(method.as_bytes())?;
        let path = path.replace("{id}", &id);
        let answer = Client::nobody(&target).ask(method, path.trim_start_matches('/')).await?;
        dead += u32::from(matches!(answer.status().as_u16(), 404 | 405));
    }
    lab.check_eq("calls of openapi.json that the server does not have", 0, dead);
    lab.check_eq("calls of openapi.json whose id is not described", 0, undescribed);
    Ok(())
}

/// The calls of a document.
fn documented(document: &Value) -> BTreeSet<(String, String)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    let calls = paths.flat_map(|(path, calls)| {
        let methods = calls.as_object().into_iter().flatten();
        methods.map(move |(method, _)| (method.to_uppercase(), path.clone()))
    });
    calls.collect()
}
