//! What do several experiments start from, and how do they count what the database was asked?

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use lab::{Lab, child::ChildBuilder, database::Database, keys::Keys};
use sqlx::{Connection, PgConnection};
use tokio::time::sleep;

use crate::{service::App, tuning::Tuning, user::UserId};

/// Makes users 1 to `count` in a fresh database: user 7 is called `user 7` and reached at `user7@example.org`.
pub async fn users(database: &Database, count: u32) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(database.url()).await?;
    sqlx::query(
        r#"
        insert into users (name, email)
        select 'user ' || n, 'user' || n || '@example.org'
        from generate_series(1, $1) as n
        order by n
        "#,
    )
    .bind(i64::from(count))
    .execute(&mut connection)
    .await?;
    sqlx::query("analyze users").execute(&mut connection).await?;
    Ok(connection.close().await?)
}

/// The id of the n-th of them.
pub fn id(n: u32) -> anyhow::Result<UserId> {
    UserId::parse(&n.to_string()).context("an id")
}

/// A process that serves from this database and these keys.
pub fn serve(lab: &Lab, database: &Database, keys: &Keys) -> ChildBuilder {
    serve_through(lab, database, keys, keys.url())
}

/// The same, with this way to Redis.
pub fn serve_through(lab: &Lab, database: &Database, keys: &Keys, redis: &str) -> ChildBuilder {
    lab.serve().database(database).args(&["--redis", redis, "--key-prefix", keys.prefix()])
}

/// The defaults, but with time enough for everything: where no time-out is tried, a busy machine must not decide
/// what is seen.
pub fn calm(key_prefix: &str) -> Tuning {
    Tuning {
        key_prefix: key_prefix.to_owned(),
        trust: Duration::from_mins(1),
        redis_timeout: Duration::from_secs(20),
        database_timeout: Duration::from_mins(1),
        lease: Duration::from_mins(2),
        patience: Duration::from_mins(1),
        ..Tuning::default()
    }
}

/// The same for a process.
pub const CALM: [&str; 10] = [
    "--trust",
    "60",
    "--redis-timeout",
    "20",
    "--database-timeout",
    "60",
    "--lease",
    "120",
    "--patience",
    "60",
];

/// The service within this process, for what is called as a function.
pub async fn app(database: &Database, redis: &str, tuning: &Tuning) -> anyhow::Result<App> {
    let app = App::start(database.url(), redis, tuning).await;
    let app = app.map_err(|error| anyhow::anyhow!("{error}"))?;
    // A busy machine may take longer than a start waits.
    app.service.reader.trust.wait(Duration::from_secs(20)).await;
    ensure!(app.service.reader.trust.believed().is_some(), "Redis is not confirmed");
    Ok(app)
}

/// How many times the table of users was searched, as PostgreSQL has counted it: nobody counts for himself.
///
/// A connection tells what it did when it ends, if not earlier, so all others must end.
pub async fn queries(database: &Database) -> anyhow::Result<u64> {
    let mut connection = PgConnection::connect(database.url()).await?;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let others: i64 = sqlx::query_scalar(
            r#"
            select count(*)
            from pg_stat_activity
            where datname = current_database() and pid <> pg_backend_pid()
                and backend_type = 'client backend'
            "#,
        )
        .fetch_one(&mut connection)
        .await?;
        if others == 0 {
            break;
        }
        if Instant::now() > deadline {
            bail!("{others} connections to the database do not end");
        }
        sleep(Duration::from_millis(10)).await;
    }
    let searches: i64 = sqlx::query_scalar(
        r#"
        select coalesce(seq_scan, 0) + coalesce(idx_scan, 0)
        from pg_stat_user_tables
        where relname = 'users'
        "#,
    )
    .fetch_one(&mut connection)
    .await?;
    connection.close().await?;
    Ok(searches.unsigned_abs())
}
