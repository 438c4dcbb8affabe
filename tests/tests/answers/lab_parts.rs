//! Do the parts of `lab` that need real servers and real processes do as they say?

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lab::{Service, child::Child, database::Database, keys::Keys, stack, stack::own::OwnServer};
use lapin::{
    BasicProperties, Confirmation, Connection, ConnectionProperties,
    options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::FieldTable,
};
use redis::AsyncCommands;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use url_shortener::MIGRATIONS;

use crate::support::{Outcome, eventually, tests};

tests![
    a_fresh_database_is_migrated_and_takes_milliseconds,
    somebody_else_may_make_the_template_at_the_same_moment,
    a_fresh_database_is_gone_when_it_is_dropped,
    a_message_makes_the_round_trip_once_the_broker_has_confirmed_it,
    keys_are_deleted_with_their_prefix,
    a_killed_child_comes_back_on_the_same_port,
    a_paused_child_answers_after_it_is_resumed,
    a_child_under_another_program_serves_and_ends_with_us,
    a_server_of_ones_own_is_killed_and_restarted_and_nobody_else_notices,
];

async fn a_fresh_database_is_migrated_and_takes_milliseconds() -> Outcome {
    // The first database may need a new template.
    Database::fresh("url-shortener", &MIGRATIONS).await?;
    let mut fastest = Duration::MAX;
    // The fastest of a few, since other tests load the machine.
    for _ in 0..10 {
        let begun = Instant::now();
        let database = Database::fresh("url-shortener", &MIGRATIONS).await?;
        fastest = fastest.min(begun.elapsed());
        let mut connection = PgConnection::connect(database.url()).await?;
        let links: i64 =
            sqlx::query_scalar("select count(*) from links").fetch_one(&mut connection).await?;
        ensure!(links == 0, "a fresh database holds {links} links");
    }
    eprintln!("fastest fresh database: {fastest:?}");
    ensure!(fastest < Duration::from_millis(50), "the fastest took {fastest:?}");
    Ok(())
}

async fn somebody_else_may_make_the_template_at_the_same_moment() -> Outcome {
    let server = OwnServer::start(Service::Postgres).await?;
    let url = server.url()?;
    Database::fresh_on(&url, "url-shortener", &MIGRATIONS).await?;
    let mut other = PgConnection::connect(&url).await?;
    let like = "datname like 'worked_answers_template_%'";
    let comment = "shobj_description(oid, 'pg_database')";
    let found = format!("select datname::text, {comment} from pg_database where {like}");
    let (template, mark): (String, String) =
        sqlx::query_as(AssertSqlSafe(found)).fetch_one(&mut other).await?;
    let aside = format!("alter database {template} rename to aside");
    sqlx::raw_sql(AssertSqlSafe(aside)).execute(&mut other).await?;

    // The other connection has made it, but has not committed yet.
    let mut making = other.begin().await?;
    let back = format!(
        "alter database aside rename to {template}; comment on database {template} is '{mark}'"
    );
    sqlx::raw_sql(AssertSqlSafe(back)).execute(&mut *making).await?;
    let fresh = {
        let url = url.clone();
        async move { Database::fresh_on(&url, "url-shortener", &MIGRATIONS).await }
    };
    let fresh = tokio::spawn(fresh);
    eventually("we wait for the other", || async {
        let mut watch = PgConnection::connect(&url).await?;
        let waiting: bool = sqlx::query_scalar(
            r#"
            select exists (
                select from pg_stat_activity
                where wait_event_type = 'Lock' and query like 'alter database%'
            )
            "#,
        )
        .fetch_one(&mut watch)
        .await?;
        Ok(waiting.then_some(()))
    })
    .await?;
    making.commit().await?;
    let fresh = fresh.await??;
    sqlx::query("select 1 from links").execute(&fresh.pool().await?).await?;
    Ok(())
}

async fn a_fresh_database_is_gone_when_it_is_dropped() -> Outcome {
    let database = Database::fresh("url-shortener", &MIGRATIONS).await?;
    let name = database.name().to_owned();
    let server = stack::server(Service::Postgres).await?.url;
    let mut admin = PgConnection::connect(&server).await?;
    let mut count = async || -> anyhow::Result<i64> {
        let query = sqlx::query_scalar("select count(*) from pg_database where datname = $1");
        Ok(query.bind(&name).fetch_one(&mut admin).await?)
    };
    ensure!(count().await? == 1);
    drop(database);
    ensure!(count().await? == 0, "it was left behind");
    Ok(())
}

async fn a_message_makes_the_round_trip_once_the_broker_has_confirmed_it() -> Outcome {
    let url = stack::server(Service::RabbitMq).await?.url;
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let queue = channel
        .queue_declare(
            "".into(),
            QueueDeclareOptions { exclusive: true, ..Default::default() },
            FieldTable::default(),
        )
        .await?;
    let name = queue.name().clone();
    let confirmation = channel
        .basic_publish(
            "".into(),
            name.clone(),
            BasicPublishOptions { mandatory: true, ..Default::default() },
            b"hello",
            BasicProperties::default(),
        )
        .await?
        .await?;
    ensure!(matches!(confirmation, Confirmation::Ack(None)), "{confirmation:?}");
    let message = channel.basic_get(name, BasicGetOptions { no_ack: true }).await?;
    ensure!(message.context("the queue is empty")?.data == b"hello");
    connection.close(200, "goodbye".into()).await?;
    Ok(())
}

async fn keys_are_deleted_with_their_prefix() -> Outcome {
    let (one, two) = (Keys::fresh("some").await?, Keys::fresh("some").await?);
    let mut connection = one.connection().await?;
    let [key, other] = [&one, &two].map(|keys| format!("{}key", keys.prefix()));
    let (): () = connection.mset(&[(&key, 7), (&other, 8)]).await?;
    ensure!(connection.get::<_, i32>(&key).await? == 7);
    drop(one);
    ensure!(!connection.exists::<_, bool>(&key).await?, "it was left behind");
    ensure!(connection.exists::<_, bool>(&other).await?, "somebody else's is gone");
    Ok(())
}

async fn a_killed_child_comes_back_on_the_same_port() -> Outcome {
    let database = Database::fresh("url-shortener", &MIGRATIONS).await?;
    let mut child = Child::serve("url-shortener").database(&database).start().await?;
    let url = format!("{}/healthz", child.url());
    ensure!(reqwest::get(&url).await?.status() == 200);
    child.kill().await?;
    ensure!(reqwest::get(&url).await.is_err(), "a killed child answers");
    child.restart().await?;
    ensure!(reqwest::get(&url).await?.status() == 200);
    ensure!(child.stop().await?.success(), "SIGTERM should end in exit status 0");
    Ok(())
}

async fn a_paused_child_answers_after_it_is_resumed() -> Outcome {
    let database = Database::fresh("url-shortener", &MIGRATIONS).await?;
    let child = Child::serve("url-shortener").database(&database).start().await?;
    let url = format!("{}/healthz", child.url());
    child.pause()?;
    let impatient = reqwest::Client::builder().timeout(Duration::from_millis(300)).build()?;
    ensure!(impatient.get(&url).send().await.is_err(), "a paused child answers");
    child.resume()?;
    ensure!(reqwest::get(&url).await?.status() == 200);
    Ok(())
}

async fn a_child_under_another_program_serves_and_ends_with_us() -> Outcome {
    // A shell that stays, so that the child is not the process that we know.
    let under = ["sh", "-c", r#"echo begun >&2; "$0" "$@"; exit $?"#];
    let child = Child::serve("containerized-app").under(under).start().await?;
    let url = format!("{}/healthz", child.url());
    ensure!(reqwest::get(&url).await?.status() == 200);
    ensure!(child.log().contains("begun"), "{}", child.log());
    drop(child);
    eventually("it ends, though only the shell was killed", async || {
        Ok(reqwest::get(&url).await.is_err().then_some(()))
    })
    .await
}

async fn a_server_of_ones_own_is_killed_and_restarted_and_nobody_else_notices() -> Outcome {
    let shared = stack::server(Service::Postgres).await?.url;
    let mut bystander = PgConnection::connect(&shared).await?;
    let mut own = OwnServer::start(Service::Postgres).await?;
    let url = own.url()?;
    let mut connection = PgConnection::connect(&url).await?;
    sqlx::query("create table kept (n int)").execute(&mut connection).await?;
    sqlx::query("insert into kept values (7)").execute(&mut connection).await?;
    own.kill().await?;
    ensure!(sqlx::query("select 1").execute(&mut connection).await.is_err());
    ensure!(PgConnection::connect(&url).await.is_err(), "a killed server answers");
    own.restart().await?;
    ensure!(own.url()? == url, "it came back elsewhere");
    let mut connection = PgConnection::connect(&url).await?;
    let n: i32 = sqlx::query_scalar("select n from kept").fetch_one(&mut connection).await?;
    ensure!(n == 7, "what was committed before the kill is lost");
    sqlx::query("select 1").execute(&mut bystander).await?;
    drop(own);
    eventually("its own server stops with its owner", || async {
        Ok(PgConnection::connect(&url).await.is_err().then_some(()))
    })
    .await
}
