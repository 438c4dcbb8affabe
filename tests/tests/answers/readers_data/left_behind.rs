//! What is deleted, and when? What a killed run left, what is a day old, and what has an older schema; nothing else.

use std::{fs, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use lab::{
    Service,
    child::Child,
    database::Database,
    fault::{Proxy, Side},
};
use lapin::{options::QueueDeclareOptions, types::FieldTable};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tokio::{
    process::Command,
    time::{sleep, timeout},
};
use url_shortener::MIGRATIONS;

use super::{
    command, experiment, fresh, names, plant, quick, race,
    reader::{GIVEN, Reader},
};
use crate::support::{Outcome, eventually, tests};

tests![
    two_runs_on_different_databases_of_one_server_leave_each_other_alone,
    what_a_killed_run_left_is_gone_after_the_next,
    what_the_server_makes_after_its_client_was_killed_goes_later,
    what_reaches_the_server_after_its_client_was_killed_goes_later,
    what_bears_our_mark_goes_after_a_day_and_what_does_not_stays,
    templates_and_spares_of_an_older_schema_go,
    what_redis_remembers_of_a_database_goes_with_reset,
];

async fn two_runs_on_different_databases_of_one_server_leave_each_other_alone() -> Outcome {
    let reader = Reader::with(&[Service::Postgres]).await?;
    // One runs in this process and uses another database of the server; the others are separate processes.
    let ours =
        Database::fresh_on(&reader.database("postgres")?, "url-shortener", &MIGRATIONS).await?;
    let name = ours.name().to_owned();
    let oid = format!("select oid::text from pg_database where datname = '{name}'");
    let before = reader.rows("postgres", &oid).await?;
    for _ in 0..3 {
        let runs = [race(&reader), race(&reader), race(&reader)];
        for outcome in futures_util::future::join_all(runs).await {
            outcome?;
        }
    }
    // A process of another workspace, which does not see the files in which this one wrote down its names.
    let elsewhere = std::env::temp_dir().join(format!("elsewhere-{:016x}", std::process::id()));
    let words = ["url-shortener", "experiment", "race", "--rounds", "1", "--clients", "5"];
    let mut other = command(&reader, &words)?;
    let mut other = other.env("STACK_DIR", &elsewhere).spawn()?;
    let _stdin = other.stdin.take();
    ensure!(other.wait().await?.success());
    let after = reader.rows("postgres", &oid).await?;
    ensure!(before.len() == 1 && before == after, "it was dropped: {before:?}, {after:?}");
    drop(ours);
    let left = fresh(&reader).await?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    std::fs::remove_dir_all(elsewhere)?;
    Ok(())
}

async fn what_a_killed_run_left_is_gone_after_the_next() -> Outcome {
    let reader = Reader::with(&Service::STACK).await?;
    let mut queues = Vec::new();
    for round in 0..3 {
        let words = ["notification-worker", "experiment", "ordering", "--each", "1000"];
        let mut victim = command(&reader, &words)?.stderr(Stdio::null()).spawn()?;
        let _stdin = victim.stdin.take();
        eventually("a database is there, or half of one", || async {
            Ok((!fresh(&reader).await?.is_empty()).then_some(()))
        })
        .await?;
        if round < 2 {
            // At any point of the run.
            sleep(Duration::from_millis(u64::from((std::process::id() + round) % 7) * 70)).await;
        } else {
            queues = eventually("queues are there", || async {
                let queues = there(&reader, written_down()?).await?;
                Ok((!queues.is_empty()).then_some(queues))
            })
            .await?;
        }
        victim.kill().await?;
    }
    ensure!(!fresh(&reader).await?.is_empty(), "a killed process cannot clean up");
    let half_made = unmarked_spares(&reader).await?;

    race(&reader).await?;
    let left = fresh(&reader).await?;
    ensure!(left.is_empty(), "databases were left: {left:?}");
    let still = unmarked_spares(&reader).await?;
    ensure!(!still.iter().any(|it| half_made.contains(it)), "half a copy was left: {still:?}");

    let quick = quick("notification-worker", "backoff")?;
    experiment(&reader, "notification-worker", "backoff", quick).await?;
    let mut redis = reader.redis().await?;
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut redis).await?;
    ensure!(keys.is_empty(), "keys were left: {keys:?}");
    let left = there(&reader, queues).await?;
    ensure!(left.is_empty(), "queues were left: {left:?}");
    Ok(())
}

async fn what_the_server_makes_after_its_client_was_killed_goes_later() -> Outcome {
    let reader = Reader::with(&[Service::Postgres]).await?;
    let server = reader.database(GIVEN)?;
    // It leaves a template, so that the runs that clean up later do not need `template0`.
    race(&reader).await?;
    // PostgreSQL copies no database whose comment is being changed.
    let mut holding = PgConnection::connect(&server).await?;
    let hold = "begin; comment on database template0 is 'held'";
    sqlx::raw_sql(hold).execute(&mut holding).await?;
    let mut victim = makes_a_database(&reader, &server)?.spawn()?;
    let _stdin = victim.stdin.take();
    eventually("the server waits before it makes a database", || async {
        let waits = r#"
            select query
            from pg_stat_activity
            where query like 'create database%' and wait_event_type = 'Lock'"#;
        Ok((!reader.rows("postgres", waits).await?.is_empty()).then_some(()))
    })
    .await?;
    victim.kill().await?;
    goes_later(&reader, &server, async || Ok(holding.close().await?)).await
}

async fn what_reaches_the_server_after_its_client_was_killed_goes_later() -> Outcome {
    let reader = Reader::with(&[Service::Postgres]).await?;
    let proxy = Proxy::to_url(&reader.database(GIVEN)?).await?;
    let server = proxy.url(&reader.database(GIVEN)?)?;
    let held = proxy.at_message_with("create database", Side::Before);
    let mut victim = makes_a_database(&reader, &server)?.spawn()?;
    let _stdin = victim.stdin.take();
    let held = timeout(Duration::from_mins(1), held).await.context("it asks for no database")??;
    victim.kill().await?;
    goes_later(&reader, &server, async || {
        drop(held);
        Ok(())
    })
    .await
}

/// A run that has to make a template first, on this server.
fn makes_a_database(reader: &Reader, server: &str) -> anyhow::Result<Command> {
    let mut run = command(reader, &["transaction-demo", "experiment", "lost-update"])?;
    run.env("DATABASE_URL", server).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(run)
}

/// A killed run has asked for a database, and the server makes it when `go_on` lets it. One run cleans up before that,
/// and one after it.
async fn goes_later(
    reader: &Reader,
    server: &str,
    go_on: impl AsyncFnOnce() -> Outcome,
) -> Outcome {
    let clean = async || {
        let words =
            ["url-shortener", "experiment", "race", "--rounds", "1", "--clients", "5", "--json"];
        let mut run = command(reader, &words)?.env("DATABASE_URL", server).spawn()?;
        let _stdin = run.stdin.take();
        let output = run.wait_with_output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the run that cleans up: {said}");
        anyhow::Ok(())
    };
    clean().await?;
    // On a busy machine a run may end before its own database is dropped.
    let early = fresh(reader).await?;
    go_on().await?;
    let made = eventually("the server makes the database", || async {
        Ok(fresh(reader).await?.into_iter().find(|name| !early.contains(name)))
    })
    .await?;
    clean().await?;
    ensure!(!fresh(reader).await?.contains(&made), "{made} is still there");
    ensure!(!is_written_down(&made)?, "a file still names {made}");
    Ok(())
}

/// Whether a file of this workspace names this database as made by a process.
fn is_written_down(database: &str) -> anyhow::Result<bool> {
    let mut files = fs::read_dir(made_folder())?.flatten();
    Ok(files.any(|file| fs::read_to_string(file.path()).is_ok_and(|it| it.contains(database))))
}

/// Copies without a mark: their makers were killed, or are still at work.
async fn unmarked_spares(reader: &Reader) -> anyhow::Result<Vec<String>> {
    let query = r#"
        select datname::text
        from pg_database
        where datname like 'worked\_answers\_spare\_%' and shobj_description(oid, 'pg_database') is null"#;
    reader.rows("postgres", query).await
}

/// The queues that processes of this workspace have written down.
fn written_down() -> anyhow::Result<Vec<String>> {
    let mut queues = Vec::new();
    for file in fs::read_dir(made_folder())?.flatten() {
        if file.file_name().to_string_lossy().starts_with("rabbitmq-") {
            // It may have gone meanwhile.
            let names = fs::read(file.path()).unwrap_or_default();
            let names: Value = serde_json::from_slice(&names).unwrap_or_default();
            let names = names["queues"].as_array().cloned().unwrap_or_default();
            queues.extend(names.iter().filter_map(Value::as_str).map(str::to_owned));
        }
    }
    Ok(queues)
}

/// Where processes of this workspace write down what they make.
fn made_folder() -> PathBuf {
    std::env::var_os("STACK_DIR")
        .map_or_else(|| lab::stack::workspace().join("target/stack"), PathBuf::from)
        .join("made")
}

/// Those of these queues that are on the reader's server.
async fn there(reader: &Reader, mut queues: Vec<String>) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for queue in queues.drain(..) {
        // If the queue does not exist, the error closes the channel.
        let connection = reader.rabbitmq().await?;
        let channel = connection.create_channel().await?;
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let declared = channel.queue_declare(queue.as_str().into(), options, FieldTable::default());
        if declared.await.is_ok() {
            found.push(queue);
        }
    }
    Ok(found)
}

async fn what_bears_our_mark_goes_after_a_day_and_what_does_not_stays() -> Outcome {
    let reader = Reader::with(&[Service::Postgres, Service::Redis]).await?;
    let now = reader.rows("postgres", "select extract(epoch from now())::bigint::text").await?;
    let (now, day) = (now[0].parse::<i64>()?, 24 * 60 * 60);
    let mark = |kind: &str, made: i64| {
        format!(r#"worked-answers {{"kind":"{kind}","of":"another","made":{made}}}"#)
    };
    let old = [
        ("worked_answers_fresh_00000000000000aa", mark("fresh", now - day - 60)),
        ("worked_answers_spare_00000000000000aa", mark("spare", now - day - 60)),
        ("worked_answers_template_00000000000000aa", mark("template", now - day - 60)),
    ];
    let others = [
        // Its owner may live on another machine.
        ("worked_answers_fresh_00000000000000bb", mark("fresh", now - day + 600)),
        ("shop_another", mark("kept", 0)),
        // A reader has renamed a database of ours to keep it.
        ("what_the_race_left", mark("fresh", 0)),
        ("worked_answers_fresh_00000000000000a", mark("fresh", 0)),
        ("worked_answers_fresh_00000000000000cc", "worked-answers".to_owned()),
        ("worked_answers_fresh_00000000000000dd", format!("not {}", mark("fresh", 0))),
        ("worked_answers_fresh_00000000000000ee", mark("kept", 0)),
    ];
    for (name, comment) in old.iter().chain(&others) {
        plant(&reader, name, comment).await?;
    }
    let mut redis = reader.redis().await?;
    let prefix = |digits: &str| format!("worked-answers:another:{digits}:");
    let (gone, young) = (prefix("00000000000000aa"), prefix("00000000000000bb"));
    let (cut, free) = (prefix("00000000000000a"), prefix("00000000000000cc"));
    for (owned, since) in [(&gone, 0), (&young, now - day + 600), (&cut, 0)] {
        let owners = redis::cmd("HSET").arg("worked-answers:owners").arg(owned).arg(since).clone();
        owners.exec_async(&mut redis).await?;
    }
    for prefix in [&gone, &young, &cut, &free] {
        redis::cmd("SET").arg(format!("{prefix}key")).arg(7).exec_async(&mut redis).await?;
    }

    race(&reader).await?;
    let words = quick("rate-limiter", "clock")?;
    experiment(&reader, "rate-limiter", "clock", words).await?;
    let names = names(&reader).await?;
    for (name, _) in old {
        ensure!(!names.contains(&name.to_owned()), "{name} is a day old and is still there");
    }
    for (name, comment) in others {
        ensure!(names.contains(&name.to_owned()), "{name} with the comment {comment} is gone");
        ensure!(reader.rows(name, "select n::text from mine").await? == ["7"]);
    }
    let mut keys: Vec<String> = redis::cmd("KEYS").arg("*:key").query_async(&mut redis).await?;
    keys.sort();
    let stays = [cut, young, free].map(|prefix| format!("{prefix}key"));
    ensure!(keys == stays, "{keys:?} are left, and not {stays:?}");
    Ok(())
}

async fn templates_and_spares_of_an_older_schema_go() -> Outcome {
    let reader = Reader::with(&[Service::Postgres]).await?;
    let now = reader.rows("postgres", "select extract(epoch from now())::bigint::text").await?;
    let mark = |kind: &str, of: &str| {
        let (schema, made) = ("00000000000000aa", &now[0]);
        format!(
            r#"worked-answers {{"kind":"{kind}","of":"{of}","made":{made},"schema":"{schema}"}}"#
        )
    };
    let old = [
        ("worked_answers_template_00000000000000aa", mark("template", "url-shortener")),
        ("worked_answers_spare_00000000000000aa", mark("spare", "url-shortener")),
    ];
    let others = [
        ("worked_answers_template_00000000000000bb", mark("template", "another")),
        ("worked_answers_spare_00000000000000bb", mark("spare", "another")),
        ("worked_answers_spare_00000000000000cc", "mine".to_owned()),
        ("spare_url_shortener_00000000000000aa_00000000", mark("spare", "url-shortener")),
    ];
    for (name, comment) in old.iter().chain(&others) {
        plant(&reader, name, comment).await?;
    }
    // Each run drops some of them before it ends; no run waits until all are dropped.
    eventually("those with a schema that is no more are gone", || async {
        race(&reader).await?;
        let names = names(&reader).await?;
        Ok((!old.iter().any(|(name, _)| names.contains(&(*name).to_owned()))).then_some(()))
    })
    .await?;
    let names = names(&reader).await?;
    for (name, _) in others {
        ensure!(names.contains(&name.to_owned()), "{name} is gone");
    }
    Ok(())
}

/// The database is another then, though its name, its Redis and the ids of its users are the same.
async fn what_redis_remembers_of_a_database_goes_with_reset() -> Outcome {
    let reader = Reader::with(&[Service::Postgres, Service::Redis]).await?;
    let (mut child, user) = believing(&reader, &[]).await?;
    let ada = json!({ "name": "Ada", "email": "ada@example.org" });
    let made = reqwest::Client::new().post(format!("{}/users", child.url())).json(&ada);
    ensure!(made.send().await?.status() == 201);
    eventually("it is cached", || async {
        let read = reqwest::get(&user).await?;
        let status = read.headers().get("cache-status").cloned();
        Ok(status.is_some_and(|it| it.as_bytes().starts_with(b"redis; hit")).then_some(()))
    })
    .await?;
    ensure!(child.stop().await?.success());
    let (_child, user) = believing(&reader, &["--reset"]).await?;
    let read = reqwest::get(user).await?.status();
    ensure!(read == 404, "{read}: the cache answers for the database of before");
    Ok(())
}

/// Serves users behind a cache that uses Redis from now on. Returns the URL of the first user too.
async fn believing(reader: &Reader, options: &[&str]) -> anyhow::Result<(Child, String)> {
    // A busy machine must not run into a time-out.
    let calm = ["--redis-timeout", "3", "--database-timeout", "10"];
    let child = reader.serve("cache-aside", &[&calm, options].concat()).await?;
    let ready = format!("{}/readyz", child.url());
    eventually("Redis is believed", || async {
        let ready: Value = reqwest::get(&ready).await?.json().await?;
        Ok((ready["redis"] == "believed").then_some(()))
    })
    .await?;
    let user = format!("{}/users/1", child.url());
    Ok((child, user))
}
