//! Does the pool of `edge` keep its promises, on a real PostgreSQL, behind a network that fails?

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use edge::database::{Database, Limits, is_away};
use lab::{
    Service,
    fault::{Fault, Proxy},
    stack,
};
use sqlx::postgres::PgPoolOptions;
use tokio::time::timeout;

use crate::support::{Outcome, eventually, tests};

tests![
    good_calls_share_a_connection,
    a_call_takes_no_longer_than_its_time_out,
    a_call_that_is_dropped_takes_its_connection_with_it,
    a_call_that_fails_takes_its_connection_with_it,
    a_transaction_that_fails_is_undone,
    a_transaction_that_refuses_is_undone_and_keeps_its_connection,
    calls_come_one_after_another_when_there_is_one_connection,
    a_refused_connection_is_told_at_once,
    a_connection_that_one_call_gave_up_serves_the_next,
    a_connection_that_takes_longer_than_a_call_is_there_for_a_later_one,
    connections_that_died_while_they_rested_are_replaced_unseen,
];

type Pool = Database<sqlx::Error>;

const TIMEOUT: Duration = Duration::from_millis(600);

async fn pool(connections: u32, timeout: Duration) -> anyhow::Result<Pool> {
    pool_of(&stack::server(Service::Postgres).await?.url, connections, timeout)
}

fn pool_of(url: &str, connections: u32, timeout: Duration) -> anyhow::Result<Pool> {
    Ok(Database::new(url, Limits { connections, timeout, pause: timeout })?)
}

/// The process of PostgreSQL that serves the connection: its identity.
async fn backend(pool: &Pool) -> sqlx::Result<i32> {
    let ask = async |c: &mut _| sqlx::query_scalar("select pg_backend_pid()").fetch_one(c).await;
    pool.within(ask).await
}

async fn doze(pool: &Pool, seconds: f64) -> sqlx::Result<()> {
    let doze = sqlx::query("select pg_sleep($1)").bind(seconds);
    pool.within(async |c| doze.execute(c).await.map(drop)).await
}

async fn good_calls_share_a_connection() -> Outcome {
    let pool = pool(4, TIMEOUT).await?;
    let first = backend(&pool).await?;
    for _ in 0..20 {
        ensure!(backend(&pool).await? == first, "one call after another needs one connection");
    }
    Ok(())
}

async fn a_call_takes_no_longer_than_its_time_out() -> Outcome {
    let pool = pool(1, TIMEOUT).await?;
    let begun = Instant::now();
    let late = doze(&pool, 30.0).await.err().context("thirty seconds have passed")?;
    ensure!(is_away(&late), "{late:?}");
    ensure!(begun.elapsed() < 4 * TIMEOUT, "{:?}", begun.elapsed());
    backend(&pool).await.context("the next call")?;
    Ok(())
}

async fn a_call_that_is_dropped_takes_its_connection_with_it() -> Outcome {
    let pool = pool(1, Duration::from_secs(10)).await?;
    let first = backend(&pool).await?;
    let dropped = timeout(Duration::from_millis(50), doze(&pool, 0.5)).await;
    ensure!(dropped.is_err(), "it was not dropped in the middle");
    let begun = Instant::now();
    ensure!(backend(&pool).await? != first, "an answer may still be on its way to it");
    ensure!(begun.elapsed() < Duration::from_millis(400), "the next call had to wait for it");
    Ok(())
}

async fn a_call_that_fails_takes_its_connection_with_it() -> Outcome {
    let pool = pool(1, TIMEOUT).await?;
    let first = backend(&pool).await?;
    let wrong = sqlx::query("select 1 / 0");
    let error = pool.within(async |c| wrong.execute(c).await).await.err();
    ensure!(error.is_some_and(|error| !is_away(&error)), "a division by zero is our own fault");
    ensure!(backend(&pool).await? != first);
    Ok(())
}

async fn a_transaction_that_fails_is_undone() -> Outcome {
    let (pool, other) = (pool(1, TIMEOUT).await?, pool(1, TIMEOUT).await?);
    let lock = "select pg_advisory_xact_lock(7309453672)";
    let failed = pool.transaction(async |c| {
        sqlx::query(lock).execute(&mut *c).await?;
        Err::<(), _>(sqlx::Error::RowNotFound)
    });
    ensure!(matches!(failed.await, Err(sqlx::Error::RowNotFound)));
    // Within the time limit of a call: nobody holds the lock any more.
    other.transaction(async |c| sqlx::query(lock).execute(c).await).await?;
    Ok(())
}

async fn a_transaction_that_refuses_is_undone_and_keeps_its_connection() -> Outcome {
    let pool = pool(1, TIMEOUT).await?;
    let first = backend(&pool).await?;
    let refused = pool.transaction_or_refusal(async |c| {
        let made = sqlx::query("create temporary table half_done ()").execute(c).await;
        ensure!(made.is_ok(), "{made:?}");
        Err::<(), _>(anyhow::anyhow!("refused"))
    });
    let words = refused.await?.err().map(|error| error.to_string());
    ensure!(words.as_deref() == Some("refused"), "{words:?}");
    ensure!(backend(&pool).await? == first, "it was no failure of the database");
    let gone = sqlx::query_scalar("select to_regclass('pg_temp.half_done') is null");
    let gone: bool = pool.within(async |c| gone.fetch_one(c).await).await?;
    ensure!(gone, "it is not undone");
    Ok(())
}

async fn calls_come_one_after_another_when_there_is_one_connection() -> Outcome {
    let pool = pool(1, Duration::from_secs(10)).await?;
    let begun = Instant::now();
    let calls = (0..5).map(|_| doze(&pool, 0.05));
    futures_util::future::try_join_all(calls).await?;
    ensure!(begun.elapsed() >= Duration::from_millis(250), "{:?}", begun.elapsed());
    Ok(())
}

async fn a_refused_connection_is_told_at_once() -> Outcome {
    // A port on which nothing listens.
    let port = lab::port::free()?;
    let url = format!("postgres://nobody@127.0.0.1:{port}/nothing");
    let pool = pool_of(&url, 2, Duration::from_secs(20))?;
    let begun = Instant::now();
    // More calls than connections: the waiting calls get the error too.
    for answer in futures_util::future::join_all((0..6).map(|_| backend(&pool))).await {
        let error = answer.err().context("there is nobody")?;
        ensure!(is_away(&error), "{error:?}");
    }
    ensure!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    Ok(())
}

/// A crowd needs this after an outage. Otherwise each call connects, gives up just before it is done, and begins again.
async fn a_connection_that_one_call_gave_up_serves_the_next() -> Outcome {
    let server = stack::server(Service::Postgres).await?.url;
    let proxy = Proxy::to_url(&server).await?;
    proxy.set(Fault::BlackHole);
    let pool = pool_of(&proxy.url(&server)?, 1, TIMEOUT)?;
    let first = backend(&pool).await.err().context("a black hole has answered")?;
    ensure!(is_away(&first), "{first:?}");
    proxy.heal();
    // On a busy machine this takes more than one call, but each waits for the connection that the first has begun.
    eventually("a call is served", async || Ok(backend(&pool).await.ok())).await?;
    ensure!(proxy.connections() <= 2, "it connected {} times", proxy.connections());
    Ok(())
}

/// Why the pool is not sqlx's own: sqlx's begins again with each call, and never finishes.
async fn a_connection_that_takes_longer_than_a_call_is_there_for_a_later_one() -> Outcome {
    let server = stack::server(Service::Postgres).await?.url;
    let proxy = Proxy::to_url(&server).await?;
    // A login takes three round trips, longer than the limit of a call. A ping takes one.
    let (one_way, call) = (Duration::from_millis(80), Duration::from_millis(400));
    proxy.set(Fault::Delay(one_way));
    let url = proxy.url(&server)?;
    let pool = pool_of(&url, 1, call)?;
    eventually("a call is served", async || Ok(pool.ping().await.ok())).await?;
    let theirs = PgPoolOptions::new().max_connections(1).acquire_timeout(call);
    let theirs = theirs.connect_lazy(&url)?;
    for _ in 0..10 {
        ensure!(theirs.acquire().await.is_err(), "sqlx's own pool does it too: take that one");
    }
    proxy.heal();
    eventually("it was only too slow", async || Ok(theirs.acquire().await.ok())).await?;
    Ok(())
}

/// PostgreSQL was restarted while the connections were idle. One is found dead, and the others are not even tried.
async fn connections_that_died_while_they_rested_are_replaced_unseen() -> Outcome {
    let server = stack::server(Service::Postgres).await?.url;
    let proxy = Proxy::to_url(&server).await?;
    let pool = pool_of(&proxy.url(&server)?, 8, Duration::from_secs(10))?;
    let calls = (0..8).map(|_| doze(&pool, 0.5));
    futures_util::future::try_join_all(calls).await?;
    let before = proxy.connections();
    ensure!(before > 1, "eight calls at once shared a connection");
    proxy.set(Fault::Cut);
    // Longer than an idle connection is trusted without a ping.
    tokio::time::sleep(Duration::from_millis(150)).await;
    proxy.heal();
    let begun = Instant::now();
    backend(&pool).await.context("the first call afterwards")?;
    ensure!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    ensure!(proxy.connections() == before + 1, "{} connections", proxy.connections());
    Ok(())
}
