//! What do we leave unchanged? All data of a reader, whatever its names are.

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use lab::{Experiment, Service, child::Child, database::Database};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use url_shortener::MIGRATIONS;

use super::{
    command, experiment, fresh, plant, quick, race,
    reader::{GIVEN, Reader},
    run,
};
use crate::support::{Outcome, eventually, tests};

tests![
    nothing_of_a_readers_changes_when_answers_are_served,
    nothing_of_a_readers_changes_when_experiments_run,
    a_database_that_has_our_name_and_not_our_mark_is_left_alone,
    a_careless_version_has_a_database_of_its_own,
    a_role_that_may_not_create_databases_is_told_what_to_grant,
    the_longest_name_of_an_answer_gets_databases_of_its_own,
];

async fn nothing_of_a_readers_changes_when_answers_are_served() -> Outcome {
    let (reader, before) = planted().await?;
    let answers = guide::answers();
    for round in ["--reset", "--port=0", "--reset"] {
        let options = [round];
        let serve = answers.iter().map(|answer| reader.serve(answer.name, &options));
        // Each drop of a database forces a checkpoint. If all answers started at once, each would wait for all drops.
        let mut children: Vec<_> = stream::iter(serve).buffered(4).try_collect().await?;
        for child in &mut children {
            let url = format!("{}/readyz", child.url());
            eventually("it is ready", || async {
                Ok((reqwest::get(&url).await?.status() == 200).then_some(()))
            })
            .await?;
            let log = child.log();
            ensure!(!log.contains("already exists"), "a notice on the terminal: {log}");
            ensure!(!log.contains('\x1b'), "colour in a file: {log}");
            ensure!(child.stop().await?.success());
        }
        same(&reader, &before, &format!("all answers were served beside each other, {round}"))
            .await?;
    }
    nothing_is_left(&reader).await
}

async fn nothing_of_a_readers_changes_when_experiments_run() -> Outcome {
    let (reader, before) = planted().await?;
    race(&reader).await?;
    same(&reader, &before, "an experiment").await?;
    // The answer that uses all three servers.
    let answers = guide::answers();
    let worker = answers.iter().find(|it| it.name == "notification-worker").context("gone")?;
    let run = |it: &Experiment| experiment(&reader, worker.name, it.name, it.quick);
    stream::iter(&worker.experiments).map(run).buffered(4).try_collect::<()>().await?;
    same(&reader, &before, "all experiments of an answer").await?;
    // The naive versions use the same servers.
    let words = [quick("cache-aside", "stale-race")?, &["--whiteboard"]].concat();
    experiment(&reader, "cache-aside", "stale-race", &words).await?;
    same(&reader, &before, "a whiteboard version was tried").await?;
    nothing_is_left(&reader).await
}

/// A reader with data on all three servers, and what the data is.
async fn planted() -> anyhow::Result<(Reader, Vec<String>)> {
    let reader = Reader::with(&Service::STACK).await?;
    reader.plant().await?;
    let before = reader.everything().await?;
    ensure!(before.len() > 200, "only {} things were planted", before.len());
    Ok((reader, before))
}

/// The reader's exchanges work as before, and nothing that we made for a time is still there.
async fn nothing_is_left(reader: &Reader) -> Outcome {
    reader.bindings_work().await?;
    let left = fresh(reader).await?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    let owners: Vec<String> = redis::cmd("HKEYS")
        .arg("worked-answers:owners")
        .query_async(&mut reader.redis().await?)
        .await?;
    ensure!(owners.is_empty(), "left behind: {owners:?}");
    Ok(())
}

async fn same(reader: &Reader, before: &[String], when: &str) -> Outcome {
    let after = reader.everything().await?;
    let lost: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
    let new: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
    ensure!(
        before == after,
        "after {when}, these are gone: {lost:#?}\nand these are new: {new:#?}"
    );
    Ok(())
}

async fn a_database_that_has_our_name_and_not_our_mark_is_left_alone() -> Outcome {
    let reader = Reader::with(&[Service::Postgres]).await?;
    let name = format!("{GIVEN}_url_shortener");
    let other = r#"worked-answers {"kind":"kept","of":"another","made":0}"#;
    for comment in ["mine", "worked-answers", other] {
        plant(&reader, &name, comment).await?;
        for option in ["--port=0", "--reset"] {
            let output = run(&reader, &["url-shortener", "serve", "--port=0", option]).await?;
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(!output.status.success(), "it was served");
            for word in [name.as_str(), "was not made here", "left alone", "DATABASE_URL"] {
                ensure!(text.contains(word), "no {word:?} in: {text}");
            }
        }
        let tables = "select tablename::text from pg_tables where schemaname = 'public'";
        ensure!(reader.rows(&name, tables).await? == ["mine"], "it was changed");
        reader.sql("postgres", &format!("drop database {name}")).await?;
    }
    // A reader who follows the advice of the error can then use the database.
    plant(&reader, &name, &other.replace("another", "url-shortener")).await?;
    reader.serve("url-shortener", &["--reset"]).await?.stop().await?;
    let mine = "select to_regclass('mine')::text";
    ensure!(reader.rows(&name, mine).await? == [""], "--reset did not start again");
    // And the answer's own database may be given itself.
    let own = Child::serve("url-shortener").env("DATABASE_URL", reader.database(&name)?);
    own.clone().start().await?.stop().await?;
    reader.sql(&name, "create table mine ()").await?;
    own.arg("--reset").start().await?.stop().await?;
    ensure!(reader.rows(&name, mine).await? == [""], "--reset did not start again");
    ensure!(reader.marked().await?.len() == 1, "{:?}", reader.marked().await?);
    Ok(())
}

async fn a_careless_version_has_a_database_of_its_own() -> Outcome {
    let reader = Reader::with(&[Service::Postgres]).await?;
    reader.serve("secure-api", &["--whiteboard"]).await?.stop().await?;
    let ours = "select datname::text from pg_database where datname like '%secure_api%'";
    let ours = reader.rows("postgres", ours).await?;
    ensure!(ours == [format!("{GIVEN}_secure_api_whiteboard")], "{ours:?}");
    Ok(())
}

async fn a_role_that_may_not_create_databases_is_told_what_to_grant() -> Outcome {
    let reader = Reader::with(&[Service::Postgres]).await?;
    reader.sql("postgres", "create role \"a guest\" login password 'secret'").await?;
    let mut url = url::Url::parse(&reader.database(GIVEN)?)?;
    url.set_username("a guest").ok().context("it has a user")?;
    url.set_password(Some("secret")).ok().context("it has a user")?;
    for words in [
        ["url-shortener", "experiment", "race", "--rounds=1"],
        ["url-shortener", "serve", "--port=0", "--reset"],
    ] {
        let mut guest = command(&reader, &words)?;
        let mut guest = guest.env("DATABASE_URL", url.as_str()).spawn()?;
        let _stdin = guest.stdin.take();
        let output = guest.wait_with_output().await?;
        let text = [output.stderr, output.stdout].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        ensure!(!output.status.success(), "{text}");
        ensure!(text.contains("alter role \"a guest\" createdb"), "{text}");
        ensure!(!text.contains("secret"), "{text}");
    }
    reader.sql("postgres", "alter role \"a guest\" createdb").await?;
    let guest = Child::serve("url-shortener").env("DATABASE_URL", url.as_str());
    guest.start().await?.stop().await?;
    Ok(())
}

async fn the_longest_name_of_an_answer_gets_databases_of_its_own() -> Outcome {
    let reader = Reader::with(&[Service::Postgres]).await?;
    let server = reader.database("postgres")?;
    // They differ only in what PostgreSQL would cut off.
    let answers = ["one", "two"].map(|end| format!("{}-{end}", "a".repeat(56)));
    let part = "inventory";
    for answer in &answers {
        let fresh = Database::fresh_on(&server, answer, &MIGRATIONS).await?;
        sqlx::query("select 1 from links").execute(&fresh.pool().await?).await?;
    }
    let mut kept = Vec::new();
    for answer in &answers {
        for part in [None, Some(part)] {
            // On the shared server: the environment of this process gives none.
            kept.push(lab::database::kept(answer, part, &MIGRATIONS, true).await?);
        }
    }
    let shared = lab::stack::server(Service::Postgres).await?.url;
    let mut admin = PgConnection::connect(&shared).await?;
    for (at, url) in kept.iter().enumerate() {
        ensure!(!kept[..at].contains(url), "{url} is used twice");
        let parsed = url::Url::parse(url)?;
        let name = parsed.path().trim_start_matches('/');
        ensure!(name.len() <= 63, "{name}");
        // We are connected to this database, and not to one with a truncated name.
        let mut connection = PgConnection::connect(url).await?;
        let current: String = sqlx::query_scalar("select current_database()::text")
            .fetch_one(&mut connection)
            .await?;
        ensure!(current == name, "{current} is not {name}");
        connection.close().await?;
        sqlx::raw_sql(AssertSqlSafe(format!("drop database {name}"))).execute(&mut admin).await?;
    }
    Ok(())
}
