//! Do the words that every answer has do what a reader expects who types them? This executable is the tests, and as a
//! child it is the program of two answers that have nothing but a database.

use std::{
    path::PathBuf,
    process::{ExitCode, Output, Stdio},
    sync::LazyLock,
    time::Duration,
};

use anyhow::{Context, ensure};
use axum::Router;
use conform::case::Suite;
use lab::{
    Answer, Experiment, Lab, Need, NoOptions, Serve, Service, Serving, child,
    harness::{Outcome, cores, run_trials},
    stack,
};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection, PgConnection, migrate::Migrator};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    process::Command,
    time::timeout,
};

lab::tests![
    what_stack_env_prints_changes_nothing_when_it_is_set,
    an_experiment_that_is_interrupted_says_so_and_leaves_nothing,
    a_taken_port_is_an_error_that_names_words_which_the_program_knows,
    a_whiteboard_version_is_served_only_to_this_machine,
];

fn main() -> ExitCode {
    let answers = ["first", "second"].map(answer);
    if let Some(code) = lab::take_over(&answers) {
        return code;
    }
    run_trials(tests(), cores())
}

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| Migrator::with_migrations(Vec::new()));

fn answer(name: &'static str) -> Answer {
    let claim = "A run that is interrupted leaves nothing";
    Answer {
        name,
        question: "What is in an empty database?",
        folder: env!("CARGO_MANIFEST_DIR"),
        needs: &[Service::Postgres],
        migrations: Some(&MIGRATIONS),
        try_it: &[],
        serve: Serve::new(serve).whiteboard(|serving| serve(NoOptions {}, serving)),
        suite: Suite { calls: "", cases: Vec::new() },
        experiments: vec![Experiment::new("waits", claim, &[], wait)],
    }
}

async fn serve(_: NoOptions, serving: Serving) -> anyhow::Result<()> {
    serving.run(Router::new()).await
}

/// Tells the name of its database, and waits for ever.
async fn wait(_: NoOptions, lab: Lab) -> anyhow::Result<()> {
    let database = lab.database().await?;
    lab.text(database.name());
    std::future::pending().await
}

/// This executable as a child that is told these words.
fn command(words: &[&str]) -> anyhow::Result<Command> {
    let mut command = child::command(child::this_program()?);
    command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    Ok(command)
}

async fn ended(mut command: Command) -> anyhow::Result<Output> {
    let mut process = command.spawn()?;
    // A child ends when this pipe does.
    let _stdin = process.stdin.take();
    Ok(process.wait_with_output().await?)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Variables that are set.
type Set = [(String, String)];

/// A stack of the test's own.
struct Stack {
    folder: PathBuf,
    amqp_url: String,
}

impl Stack {
    /// What is written to standard output and to standard error by `stack` and these words.
    async fn says(&self, set: &Set, words: &[&str]) -> anyhow::Result<(String, String)> {
        let mut command = command(&[&["stack"], words].concat())?;
        command.env("STACK_DIR", &self.folder).env("STACK_IDLE_SECONDS", "120");
        command.env_remove("DATABASE_URL").env_remove("REDIS_URL");
        // RabbitMQ takes seconds to start, so it is the one that all tests share.
        command.env("AMQP_URL", &self.amqp_url);
        command.envs(set.iter().cloned());
        let output = ended(command).await?;
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        ensure!(output.status.success(), "stack {words:?}: {out}{err}");
        Ok((out, err))
    }

    /// What a query finds in the database of an answer.
    async fn finds(&self, set: &Set, answer: &str, query: &str) -> anyhow::Result<String> {
        let (found, _) = self.says(set, &["psql", answer, "--", "-Atqc", query]).await?;
        Ok(found.trim().to_owned())
    }
}

async fn what_stack_env_prints_changes_nothing_when_it_is_set() -> Outcome {
    if let Some(why) = Need::Own(Service::Postgres).obstacle() {
        return Err(lab::skip(why));
    }
    // Below /var/tmp, because PostgreSQL's user has to be able to go there.
    let folder = PathBuf::from(format!("/var/tmp/lab-stack-env-{}", std::process::id()));
    let stack = Stack { folder, amqp_url: stack::server(Service::RabbitMq).await?.url };
    let outcome = nothing_changes(&stack).await;
    stack.says(&[], &["down"]).await?;
    std::fs::remove_dir_all(&stack.folder)?;
    outcome
}

async fn nothing_changes(stack: &Stack) -> Outcome {
    let words = ["psql", "first", "--", "-qc", "create table mine ()"];
    let (_, told) = stack.says(&[], &words).await?;
    let opened = told.lines().find(|line| line.contains("opening the database of first"));
    let opened = opened.with_context(|| format!("it does not say what it opens: {told}"))?;
    ensure!(opened.contains("/first?") && opened.contains("(private)"), "{opened}");

    let (printed, _) = stack.says(&[], &["env"]).await?;
    let set: Vec<_> = printed.lines().filter_map(variable).collect();
    ensure!(set.len() == 3, "{printed}");
    let (mine, name) = ("select to_regclass('mine')", "select current_database()");
    let found = stack.finds(&set, "first", mine).await?;
    ensure!(found == "mine", "the answer has another database");
    let other = stack.finds(&set, "second", name).await?;
    ensure!(other == "second", "the other answer has {other}");
    let (status, _) = stack.says(&set, &["status"]).await?;
    ensure!(is_private(&status), "{status}");
    stack.says(&set, &["down"]).await?;
    let found = stack.finds(&set, "first", mine).await?;
    ensure!(found == "mine", "after `stack down` it is another server");

    // The database of an answer is its own and no other's, wherever the URL comes from.
    let (printed, _) = stack.says(&[], &["env", "first"]).await?;
    let set: Vec<_> = printed.lines().filter_map(variable).collect();
    let found = stack.finds(&set, "first", mine).await?;
    ensure!(found == "mine", "with its own URL the answer has another database");

    // A database that the reader has made there is given like one anywhere else.
    stack.finds(&[], "first", "create database shop").await?;
    let beside = stack.finds(&[in_shop(&set)?], "first", name).await?;
    ensure!(beside == "shop_first", "beside shop it is {beside}");
    Ok(())
}

/// The name and the value of `export NAME='value'`.
fn variable(line: &str) -> Option<(String, String)> {
    let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
    Some((name.to_owned(), value.trim_matches('\'').to_owned()))
}

/// `DATABASE_URL` with another database.
fn in_shop(set: &Set) -> anyhow::Result<(String, String)> {
    let (name, url) = set.iter().find(|(name, _)| name == "DATABASE_URL").context("not set")?;
    let mut url = url::Url::parse(url)?;
    url.set_path("shop");
    Ok((name.clone(), url.into()))
}

fn is_private(status: &str) -> bool {
    let line = status.lines().find(|line| line.starts_with("PostgreSQL")).unwrap_or_default();
    line.contains("running") && line.contains("private")
}

async fn an_experiment_that_is_interrupted_says_so_and_leaves_nothing() -> Outcome {
    let server = stack::server(Service::Postgres).await?.url;
    for (signal, code, name) in [(Signal::INT, 130, "SIGINT"), (Signal::TERM, 143, "SIGTERM")] {
        let mut process = command(&["first", "experiment", "waits", "--events"])?.spawn()?;
        let _stdin = process.stdin.take();
        let mut lines = BufReader::new(process.stdout.take().context("it is piped")?).lines();
        let database: String = loop {
            let line = lines.next_line().await?.context("it ended before it had a database")?;
            if let Some(at) = line.find("worked_answers_fresh_") {
                break line[at..].chars().take_while(|it| *it != '"').collect();
            }
        };
        let pid = process.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        kill_process(pid.context("it has ended")?, signal)?;
        let output = process.wait_with_output().await?;
        let said = text(&output.stderr);
        ensure!(output.status.code() == Some(code), "{name}: {}: {said}", output.status);
        ensure!(said.contains(&format!("interrupted by {name}")), "{said}");
        let mut admin = PgConnection::connect(&server).await?;
        let count = sqlx::query_scalar("select count(*) from pg_database where datname = $1");
        let left: i64 = count.bind(&database).fetch_one(&mut admin).await?;
        ensure!(left == 0, "{name}: the database {database} was left");
    }
    Ok(())
}

async fn a_taken_port_is_an_error_that_names_words_which_the_program_knows() -> Outcome {
    let taken = TcpListener::bind("127.0.0.1:0").await?;
    let port = taken.local_addr()?.port().to_string();
    let output = ended(command(&["first", "serve", "--port", &port])?).await?;
    let said = text(&output.stderr);
    ensure!(!output.status.success() && said.contains("`serve --port N`"), "{said}");
    Ok(())
}

async fn a_whiteboard_version_is_served_only_to_this_machine() -> Outcome {
    let output =
        ended(command(&["first", "serve", "--whiteboard", "--host", "0.0.0.0", "--port", "0"])?);
    let output = timeout(Duration::from_secs(20), output).await.context("it serves")??;
    let said = text(&output.stderr);
    ensure!(!output.status.success() && said.contains("leave out `--host`"), "{said}");
    for (words, rebound) in [(&["--whiteboard"][..], 403), (&[], 404)] {
        let words = [&["first", "serve", "--port", "0"], words].concat();
        let mut process = command(&words)?.spawn()?;
        let _stdin = process.stdin.take();
        let mut lines = BufReader::new(process.stdout.take().context("it is piped")?).lines();
        let line = lines.next_line().await?.context("it ended before it listened")?;
        let url = line.strip_prefix("listening on ").context("it does not say where")?.to_owned();
        let ask = async |host: Option<&str>| {
            let request = reqwest::Client::new().get(&url);
            let request = host.into_iter().fold(request, |it, host| it.header("host", host));
            anyhow::Ok(request.send().await?.status().as_u16())
        };
        let (own, other) = (ask(None).await?, ask(Some("rebound.evil.example")).await?);
        ensure!((own, other) == (404, rebound), "{words:?}: {own}, and {other} by another name");
    }
    Ok(())
}
