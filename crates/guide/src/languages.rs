//! How fast is the same answer in Rust, in Python and in Node? The three programs get the same load on the same machine, in
//! turns. `measure --languages` records it in `measured.json` of this crate, and a page shows the ratios.
//!
//! Two loads: sixteen clients that wait for each answer tell the throughput; then requests come at a steady rate, half of
//! what the slowest program can do, and tell the 99th percentile. A closed loop alone would hide stalls.

use std::{
    any::Any,
    fmt::Write,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use axum::http::Method;
use clap::Args;
use conform::{
    expect::{integer, json_of, text},
    target::Target,
};
use futures_util::future::BoxFuture;
use lab::{
    Answer, Experiment, Lab, Service,
    child::{Child, memory_of},
    experiment::seconds,
    load::{
        self, Stop,
        http::{Connection, Pool},
        median,
    },
    report::{escaped, number},
};
use serde_json::json;
use sqlx::migrate::Migrator;
use tokio::time::sleep;

use crate::{
    example::Language,
    record::{Measured, Recorded},
};

const CLIENTS: usize = 16;
const ROUNDS: u32 = 3;
/// How long a program may take to start.
const PATIENCE: Duration = Duration::from_mins(1);
const FIGURES: [(&str, &str); 3] = [("throughput", "requests/s"), ("p99", "ms"), ("memory", "MB")];
const PASSWORD: &str = "seven quiet otters at noon";

/// The parameters.
#[derive(Args, Debug)]
struct Params {
    /// How long each load lasts, in seconds.
    #[arg(long, default_value = "2", value_parser = seconds)]
    seconds: f64,
}

/// One call of an answer, which all of its programs are asked.
#[derive(Clone, Copy)]
struct Call {
    answer: &'static str,
    /// The call, as the page says it.
    what: &'static str,
    /// The options with which our program does what the others do. Its keys in Redis begin with `{prefix}`.
    options: &'static [&'static str],
    /// Makes what the call needs, and returns what the request is made of.
    prepare: for<'a> fn(&'a Target) -> BoxFuture<'a, anyhow::Result<Vec<String>>>,
    /// The request of this number, made of that.
    request: fn(&Connection, &[String], u64) -> Vec<u8>,
}

const CALLS: [Call; 6] = [
    Call {
        answer: "rest-api",
        what: "`GET` of a user",
        options: &[],
        prepare: |target| {
            Box::pin(async move {
                let user = json!({ "name": "Ada", "email": "ada@example.org" });
                let request = target.request(Method::POST, "users").json(&user);
                let made = target.send(request.header("idempotency-key", "ada")).await?;
                Ok(vec![format!("/users/{}", text(&json_of(made, 201).await?, "id")?)])
            })
        },
        request: |connection, made, _| connection.get(&made[0]),
    },
    Call {
        answer: "jwt-auth",
        what: "`GET /me` with a token",
        options: &[],
        prepare: |target| {
            Box::pin(async move {
                let user = json!({ "email": "ada@example.org", "password": PASSWORD });
                target.post("register", &user).await?;
                let tokens = json_of(target.post("login", &user).await?, 200).await?;
                Ok(vec![format!("Bearer {}", text(&tokens, "access_token")?)])
            })
        },
        request: |connection, made, _| get(connection, "/me", ("authorization", &made[0])),
    },
    Call {
        answer: "transaction-demo",
        what: "`POST` of a transfer, between sixteen pairs of accounts",
        options: &[],
        prepare: |target| {
            Box::pin(async move {
                let mut accounts = Vec::new();
                for number in 0..32 {
                    let account = json!({ "owner": "Ada", "balance_cents": 1_000_000_000 });
                    let request = target.request(Method::POST, "accounts").json(&account);
                    let key = format!("account-{number}");
                    let made = target.send(request.header("idempotency-key", key)).await?;
                    accounts.push(integer(&json_of(made, 201).await?, "id")?.to_string());
                }
                Ok(accounts)
            })
        },
        request: |connection, accounts, number| {
            let pair = usize::try_from(number).unwrap_or(0) % 16 * 2;
            let (from, to) = (&accounts[pair], &accounts[pair + 1]);
            let body = format!(r#"{{"from":{from},"to":{to},"amount_cents":1}}"#);
            connection.post_with("/transfers", &[("idempotency-key", number.to_string())], &body)
        },
    },
    Call {
        answer: "cache-aside",
        what: "`GET` of a user who is in the cache",
        options: &[],
        prepare: |target| {
            Box::pin(async move {
                let user = json!({ "name": "Ada", "email": "ada@example.org" });
                let made = json_of(target.post("users", &user).await?, 201).await?;
                Ok(vec![format!("/users/{}", integer(&made, "id")?)])
            })
        },
        request: |connection, made, _| connection.get(&made[0]),
    },
    Call {
        answer: "url-shortener",
        what: "`GET` of a link",
        options: &[],
        prepare: |target| {
            Box::pin(async move {
                let link = json!({ "url": "https://example.com/", "alias": "the-same" });
                json_of(target.post("links", &link).await?, 201).await?;
                Ok(vec!["/the-same".to_owned()])
            })
        },
        request: |connection, made, _| connection.get(&made[0]),
    },
    Call {
        answer: "rate-limiter",
        what: "`GET` by clients who are below their limit",
        options: &[
            "--store=redis",
            "--prefix={prefix}",
            "--window=5m",
            "--trusted-proxy=127.0.0.1",
        ],
        prepare: |_| Box::pin(async { Ok(Vec::new()) }),
        request: |connection, _, number| {
            // Each client asks fifty times, of the hundred that it may.
            let [_, _, _, _, _, a, b, c] = (number / 50).to_be_bytes();
            get(connection, "/api/hello", ("x-forwarded-for", &format!("10.{a}.{b}.{c}")))
        },
    },
];

fn get(connection: &Connection, path: &str, (name, value): (&str, &str)) -> Vec<u8> {
    let mut request = connection.get(path);
    // Before the empty line.
    request.truncate(request.len() - 2);
    request.extend(format!("{name}: {value}\r\n\r\n").bytes());
    request
}

/// Where the results are kept.
pub fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("measured.json")
}

/// An experiment for each of these answers that has a call here, with the answer's name.
pub fn experiments(answers: &[Answer]) -> Vec<(&Answer, Experiment)> {
    let experiment = |call: Call| {
        let answer = answers.iter().find(|answer| answer.name == call.answer)?;
        let claim = "The three programs answer every request, under the same load";
        let needs = answer.needs;
        let run = move |params, lab| compare(call, needs, params, lab);
        Some((answer, Experiment::new(call.answer, claim, &["--seconds", "0.2"], run)))
    };
    CALLS.into_iter().filter_map(experiment).collect()
}

/// A program that is measured.
struct Running {
    name: &'static str,
    process: Process,
    host: String,
    /// What its requests are made of.
    made: Arc<Vec<String>>,
    /// The number of its next request.
    next: Arc<AtomicU64>,
    /// Its database and its keys, which are deleted after its end.
    _owned: Vec<Box<dyn Any + Send + Sync>>,
}

enum Process {
    Ours(Child),
    Theirs(tokio::process::Child),
}

async fn compare(
    call: Call,
    needs: &'static [Service],
    params: Params,
    lab: Lab,
) -> anyhow::Result<()> {
    let programs = [
        start(call, needs, None, &lab).await?,
        start(call, needs, Some(Language::Python), &lab).await?,
        start(call, needs, Some(Language::Node), &lab).await?,
    ];
    let time = Duration::from_secs_f64(params.seconds);
    let (mut failed, mut throughput) = ([const { None }; 3], [const { Vec::new() }; 3]);
    // In the first round, which is not measured, connections are made and code is compiled.
    for round in 0..=ROUNDS {
        for (n, program) in programs.iter().enumerate() {
            let outcome = closed(call, program, time).await?;
            failed[n] = failed[n].take().or(outcome.first_error.clone());
            if round > 0 {
                throughput[n].push(outcome.throughput());
            }
        }
    }
    let throughput = throughput.map(median);
    let rate = throughput.iter().copied().fold(f64::INFINITY, f64::min) / 2.0;
    let mut p99 = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        for (n, program) in programs.iter().enumerate() {
            let outcome = open(call, program, rate, time).await?;
            failed[n] = failed[n].take().or(outcome.first_error.clone());
            p99[n].push(outcome.percentile(99.0));
        }
    }
    let mut memory = [0.0; 3];
    for (n, program) in programs.iter().enumerate() {
        let pid = match &program.process {
            Process::Ours(child) => child.pid(),
            Process::Theirs(child) => child.id(),
        };
        memory[n] = memory_of(pid.context("it has ended")?).await? as f64 / 1e6;
        let what = format!("the first request that failed, {}", program.name);
        let first = failed[n].take();
        lab.check(what, "none", first.as_deref().unwrap_or("none"), first.is_none());
    }
    for ((what, unit), values) in FIGURES.into_iter().zip([throughput, p99.map(median), memory]) {
        for (program, value) in programs.iter().zip(values) {
            lab.figure(format!("{what}, {}", program.name), value, unit);
        }
        for (program, value) in programs.iter().zip(values).skip(1) {
            lab.figure(format!("{what}, {} ÷ Rust", program.name), value / values[0], "");
        }
    }
    Ok(())
}

/// Our program, or that of a language, on a fresh database and with keys of its own.
async fn start(
    call: Call,
    needs: &[Service],
    language: Option<Language>,
    lab: &Lab,
) -> anyhow::Result<Running> {
    let mut owned: Vec<Box<dyn Any + Send + Sync>> = Vec::new();
    let (mut variables, mut prefix) = (Vec::new(), String::new());
    for service in needs {
        let url = match service {
            Service::Postgres => {
                let none = Migrator::with_migrations(Vec::new());
                let database = match language {
                    None => lab.database().await?,
                    Some(language) => lab.database_named(language.name(), &none).await?,
                };
                let url = database.url().to_owned();
                owned.push(Box::new(database));
                url
            }
            Service::Redis => {
                let keys = lab.keys().await?;
                let url = keys.url().to_owned();
                keys.prefix().clone_into(&mut prefix);
                owned.push(Box::new(keys));
                url
            }
            other => bail!("nothing is measured with {other}"),
        };
        variables.push((service.variable(), url));
    }
    let (name, process, url) = if let Some(language) = language {
        lab.took_part(language.version()?);
        variables.push(("KEY_PREFIX", prefix));
        let (child, url) = start_theirs(call.answer, language, variables).await?;
        (language.title(), Process::Theirs(child), url)
    } else {
        let mut child = lab.serve();
        for (name, value) in variables {
            child = child.env(name, value);
        }
        for option in call.options {
            child = child.arg(option.replace("{prefix}", &prefix));
        }
        let child = child.start().await?;
        let url = child.url().to_owned();
        ("Rust", Process::Ours(child), url)
    };
    let target = Target::new(&url, None)?;
    let made = (call.prepare)(&target).await.with_context(|| format!("{name}, {}", call.answer))?;
    let host = url.trim_start_matches("http://").to_owned();
    let (made, next) = (Arc::new(made), Arc::new(AtomicU64::new(0)));
    Ok(Running { name, process, host, made, next, _owned: owned })
}

async fn start_theirs(
    answer: &'static str,
    language: Language,
    variables: Vec<(&'static str, String)>,
) -> anyhow::Result<(tokio::process::Child, String)> {
    let command = tokio::task::spawn_blocking(move || language.command(answer, false)).await??;
    let port = lab::port::free()?;
    let mut command = tokio::process::Command::from(command);
    command.env("PORT", port.to_string()).envs(variables).kill_on_drop(true);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let url = format!("http://127.0.0.1:{port}");
    let (target, begun) = (Target::new(&url, None)?, Instant::now());
    while !target.answers().await {
        if let Some(status) = child.try_wait()? {
            bail!("{answer} in {} ended with {status} before it answered", language.name());
        }
        ensure!(begun.elapsed() < PATIENCE, "{answer} in {} does not start", language.name());
        sleep(Duration::from_millis(50)).await;
    }
    Ok((child, url))
}

/// A client of the closed loop.
struct Client {
    call: Call,
    connection: Connection,
    made: Arc<Vec<String>>,
    next: Arc<AtomicU64>,
}

async fn closed(call: Call, program: &Running, time: Duration) -> anyhow::Result<load::Outcome> {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let connection = Connection::open(&program.host).await?;
        let (made, next) = (Arc::clone(&program.made), Arc::clone(&program.next));
        clients.push(Client { call, connection, made, next });
    }
    load::closed(clients, Stop::After(time), |client| {
        Box::pin(async move {
            let number = client.next.fetch_add(1, Relaxed);
            let request = (client.call.request)(&client.connection, &client.made, number);
            good(client.connection.send(&request).await?)
        })
    })
    .await
}

async fn open(
    call: Call,
    program: &Running,
    rate: f64,
    time: Duration,
) -> anyhow::Result<load::Outcome> {
    let pool = Arc::new(Pool::of(&program.host));
    load::open(rate, time, CLIENTS, |_| {
        let (pool, made) = (Arc::clone(&pool), Arc::clone(&program.made));
        let number = program.next.fetch_add(1, Relaxed);
        async move {
            good(pool.send(|connection| (call.request)(connection, &made, number)).await?)
        }
    })
    .await
}

fn good(status: u16) -> anyhow::Result<()> {
    ensure!((200..400).contains(&status), "the status is {status}");
    Ok(())
}

const INTRODUCTION: &str = "# The same work in three languages

The [programs in Python and Node](languages.md) and ours get the same requests on the same machine, in turns. Each number
is a ratio, where Rust is 1: a throughput of 0.1 is a tenth of ours, and a memory of 2 is twice ours. It is the median of
the runs; in brackets are the smallest and the greatest.

- **Throughput**: sixteen clients, each waits for its answer before it asks again.
- **p99**: 99 of 100 requests are answered in this time, at a steady rate. It is half of what the slowest of the three
  can do, and the same for all.
- **Memory**: what the process has in memory after that, its interpreter included.

This compares three programs, and not three languages. Each is one process: ours runs its handlers on all cores, and the
others on one. They would run a process for each core in production, and that is not measured. The clients and the servers
share the cores with the programs, which hides a part of the difference. Ours does not always do the same work: the
url-shortener, for example, keeps links in memory, and the others ask PostgreSQL each time.

The calls are only those that are answered at once. The notification worker and the saga work after their answer, so
their throughput is that of their queue; these and the other answers are not measured.
";

/// The page with what was recorded.
pub fn page(problems: &mut Vec<String>) -> String {
    let measured = Measured::read(&path()).unwrap_or_else(|error| {
        problems.push(format!("{error:#}"));
        Measured::default()
    });
    let mut page = INTRODUCTION.to_owned();
    let recorded = |call: &Call| measured.of(call.answer).map(|it| (*call, it));
    let recorded: Vec<_> = CALLS.iter().filter_map(recorded).collect();
    let Some((_, first)) = recorded.first() else {
        page += "\nNothing is recorded here yet: `cargo run --release -- measure --languages` does it.\n";
        return page;
    };
    page += "\n| answer | call | | throughput | p99 | memory |\n|---|---|---|---|---|---|\n";
    for (call, record) in &recorded {
        for language in Language::EVERY.map(Language::title) {
            let ratios =
                FIGURES.map(|(what, _)| ratio(record, &format!("{what}, {language} ÷ Rust")));
            let Call { answer, what, .. } = call;
            let ratios = ratios.join(" | ");
            let _ = writeln!(page, "| [{answer}]({answer}.md) | {what} | {language} | {ratios} |");
        }
    }
    let (runs, on) = (first.runs, escaped(&first.on()));
    let with = escaped(&first.report.servers.join(", "));
    let _ = writeln!(page, "\n{runs} runs on {on}, with {with}, at commit {}.", first.commit);
    page
}

fn ratio(record: &Recorded, name: &str) -> String {
    let Some(figure) = record.report.figures.iter().find(|figure| figure.name == name) else {
        return String::new();
    };
    let spread = figure.spread.map(|it| format!(" ({}–{})", number(it.least), number(it.most)));
    format!("**{}**{}", number(figure.value), spread.unwrap_or_default())
}
