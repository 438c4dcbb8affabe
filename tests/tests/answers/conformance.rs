//! Do our own answers do what their tables of calls say? The cases by which readers try theirs.

use std::{any::Any, sync::Arc};

use anyhow::{Context, bail, ensure};
use conform::{
    case::Suite,
    program::Program,
    run::{Tried, run},
    target::{Restart, Target},
};
use lab::{Answer, child::Child, database::Database, keys::Keys, stack};
use libtest_mimic::{Completion, Trial};
use tokio::sync::Mutex;

use crate::support::trial;

pub fn tests(answers: &[Answer]) -> Vec<Trial> {
    let mut trials = Vec::new();
    for Suite { answer: name, cases, .. } in conform::suites() {
        let Some(answer) = answers.iter().find(|answer| answer.name == name) else { continue };
        for case in cases {
            let answer = answer.clone();
            let title = format!("{name} {}", case.name);
            trials.push(trial("conform", &title, move || async move {
                let served = Served::start(&answer).await?;
                (case.run)(&served.target).await?;
                Ok(Completion::Completed)
            }));
        }
    }
    trials.push(trial("conform", "a_shortener_in_python_conforms", a_shortener_in_python_conforms));
    trials
}

/// Every case, those that kill it included, as a reader would have it.
async fn a_shortener_in_python_conforms() -> anyhow::Result<Completion> {
    let python = std::process::Command::new("python3").arg("--version").output();
    if python.is_err() {
        return Ok(Completion::ignored_with("needs python3"));
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let folder = std::env::temp_dir().join(format!("conform-python-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let program = stack::workspace().join("examples/python/url_shortener.py");
    let text = std::fs::read_to_string(&program)?;
    ensure!(text.lines().count() <= 150, "it has {} lines", text.lines().count());
    let command =
        format!("exec python3 '{}' {port} '{}/links.db'", program.display(), folder.display());
    let url = format!("http://127.0.0.1:{port}");
    let program = Program::of(command, &url).await?;
    let target = Target::new(&url, Some(program.restart()))?;
    let suites = conform::suites();
    let suite = suites.iter().find(|suite| suite.answer == "url-shortener");
    let cases = &suite.context("no suite")?.cases;
    let results = run(cases, &target, Tried { load: true, restart: true }, |_| {}).await;
    drop(program);
    std::fs::remove_dir_all(&folder)?;
    let results = results?;
    let wrong: Vec<_> = results.iter().filter(|result| result.wrong.is_some()).collect();
    ensure!(wrong.is_empty() && results.len() == cases.len(), "{wrong:#?}");
    Ok(Completion::Completed)
}

/// An answer of the case's own, which it may kill; what it has in the servers is deleted with it.
struct Served {
    target: Target,
    _owned: Box<dyn Any + Send>,
}

impl Served {
    async fn start(answer: &Answer) -> anyhow::Result<Self> {
        let (child, owned) = serve(answer).await?;
        let url = child.url().to_owned();
        let child = Arc::new(Mutex::new(child));
        let restart: Restart = Arc::new(move || {
            let child = Arc::clone(&child);
            Box::pin(async move {
                let mut child = child.lock().await;
                child.kill().await?;
                child.restart().await
            })
        });
        Ok(Self { target: Target::new(&url, Some(restart))?, _owned: owned })
    }
}

/// Starts it, with a part of each server that nobody else uses.
async fn serve(answer: &Answer) -> anyhow::Result<(Child, Box<dyn Any + Send>)> {
    let serve = Child::serve(answer.name);
    match answer.name {
        "url-shortener" | "transaction-demo" => {
            let database = fresh_database(answer).await?;
            Ok((serve.database(&database).start().await?, Box::new(database)))
        }
        "cache-aside" => {
            let (database, keys) = (fresh_database(answer).await?, Keys::fresh(answer.name).await?);
            // With time enough: no case is about a time-out, and a busy machine must not run into one.
            let calm = ["--redis-timeout", "3", "--database-timeout", "10", "--lease", "30"];
            let place = ["--redis", keys.url(), "--key-prefix", keys.prefix()];
            let child = serve.database(&database).args(&place).args(&calm).start().await?;
            Ok((child, Box::new((database, keys))))
        }
        "jwt-auth" => {
            let database = fresh_database(answer).await?;
            // All failed logins come from one client here, and what is tried is not how long a guess takes.
            let serve = serve.database(&database).args(&[
                "--failures-per-client",
                "1000000",
                "--argon2-memory",
                "64",
                "--argon2-passes",
                "1",
            ]);
            Ok((serve.start().await?, Box::new(database)))
        }
        "notification-worker" => {
            let stand = notification_worker::experiments::stand::Stand::fresh(2, 50, 4).await?;
            Ok((stand.serve(&[]).start().await?, Box::new(stand)))
        }
        "saga-orchestrator" => {
            let world = crate::saga_orchestrator::World::new().await?;
            // Whoever takes over after a kill waits for the lease of the dead.
            Ok((world.serve(&["--lease-ms", "2000"]).await?, Box::new(world)))
        }
        "rate-limiter" => {
            let keys = Keys::fresh(answer.name).await?;
            // Nothing comes back while a case asks, and a busy machine must not look like a Redis that is away.
            let calm = ["--window", "1d", "--store-timeout", "10s"];
            let place = ["--prefix", keys.prefix(), "--trusted-proxy", "127.0.0.1"];
            let child = serve.env("REDIS_URL", keys.url()).args(&place).args(&calm).start().await?;
            Ok((child, Box::new(keys)))
        }
        name => bail!("nobody has said how {name} is served for its cases"),
    }
}

async fn fresh_database(answer: &Answer) -> anyhow::Result<Database> {
    Database::fresh(answer.name, answer.migrations.context("it has no database")?).await
}
