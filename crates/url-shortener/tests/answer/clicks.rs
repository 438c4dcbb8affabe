//! Do clicks get counted, and can those that are counted do harm?

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use conform::expect::{integer, json, list, status};
use futures_util::future::try_join_all;
use lab::{
    child::Child,
    fault::{Fault, Proxy},
    harness::{Outcome, eventually},
};
use serde_json::json;
use sqlx::PgPool;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use url_shortener::{
    code::Code,
    experiments::fixture::{Fixture, start},
    ring::{Ring, VIRTUAL_NODES},
};

lab::tests![
    expired_links_with_many_clicks_are_swept_like_any_other,
    links_that_are_gone_are_swept_however_many_they_are,
    a_popular_link_is_deleted_at_once,
    a_link_does_not_inherit_the_clicks_of_a_deleted_one,
    referrers_that_are_made_up_are_counted_as_other,
    the_statistics_of_a_link_with_many_rows_are_short,
    a_shard_that_is_away_does_not_stop_the_clicks_of_the_others,
    a_deadlock_or_a_read_only_server_costs_no_clicks,
    a_stop_does_not_wait_for_a_slow_database,
];

/// A disk on which each row of `clicks` takes a millisecond to delete: one in ten sleeps for ten, because a short sleep
/// takes longer than it should.
const SLOW_DELETES: &str = r#"
    create function slow() returns trigger language plpgsql as
        $$begin perform pg_sleep(0.01) where old.referrer like '%0'; return old; end$$;
    create trigger slow before delete on clicks for each row execute function slow();
"#;

/// Gives each link this many rows of clicks, by SQL: to click that often would take a minute.
pub async fn add_clicks(pool: &PgPool, rows: i32) -> anyhow::Result<()> {
    let add = r#"
        insert into clicks (link, day, referrer, clicks)
        select id, current_date - n % 2000, 'host' || n, 1
        from links, generate_series(1, $1) as n
    "#;
    sqlx::query(add).bind(rows).execute(pool).await?;
    Ok(())
}

/// Waits until this query counts nothing.
async fn nothing_is_left(what: &str, count: &'static str, pool: &PgPool) -> Outcome {
    eventually(what, async || {
        let left: i64 = sqlx::query_scalar(count).fetch_one(pool).await?;
        Ok((left == 0).then_some(()))
    })
    .await
}

async fn expired_links_with_many_clicks_are_swept_like_any_other() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let pool = fixture.database().pool().await?;
    let expired = r#"
        insert into links (code, id, url, expires_at)
        select 'old' || n, gen_random_uuid(), 'https://example.com/', now() - interval '1 day'
        from generate_series(1, 4) as n
    "#;
    sqlx::query(expired).execute(&pool).await?;
    // One statement for all of them would take longer than the five seconds that it has.
    add_clicks(&pool, 1_500).await?;
    sqlx::raw_sql(SLOW_DELETES).execute(&pool).await?;
    let (_child, _) = fixture.start(&[]).await?;
    let left = "select (select count(*) from links) + (select count(*) from clicks)";
    nothing_is_left("the expired links are gone, and their clicks", left, &pool).await
}

async fn links_that_are_gone_are_swept_however_many_they_are() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let pool = fixture.database().pool().await?;
    // As after a move to another shard. A millisecond each: all of them take longer than a statement may. One in sixteen
    // sleeps for sixteen, because a short sleep takes longer than it should.
    let moved = r#"
        insert into links (code, id, url)
        select 'moved' || n, gen_random_uuid(), 'https://example.com/'
        from generate_series(1, 6000) as n;
        delete from links;
        create function slow() returns trigger language plpgsql as
            $$begin perform pg_sleep(0.016) where old.id::text like '%0'; return old; end$$;
        create trigger slow before delete on deleted_links for each row execute function slow();
    "#;
    sqlx::raw_sql(moved).execute(&pool).await?;
    let (_child, _) = fixture.start(&[]).await?;
    nothing_is_left("no link is left to sweep", "select count(*) from deleted_links", &pool).await
}

async fn a_popular_link_is_deleted_at_once() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, client) = fixture.start(&[]).await?;
    let link = json!({ "url": "https://example.com/", "alias": "popular" });
    let (_, token) = client.create_owned(&link).await?;
    let pool = fixture.database().pool().await?;
    add_clicks(&pool, 2_000).await?;
    sqlx::raw_sql(SLOW_DELETES).execute(&pool).await?;
    status(&client.delete("popular", Some(&token)).await?, 204)?;
    status(&client.follow("popular").await?, 404)
}

async fn a_link_does_not_inherit_the_clicks_of_a_deleted_one() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, client) = fixture.start(&[]).await?;
    let link = json!({ "url": "https://example.com/", "alias": "again" });
    let (_, token) = client.create_owned(&link).await?;
    let pool = fixture.database().pool().await?;
    add_clicks(&pool, 2_000).await?;
    sqlx::raw_sql(SLOW_DELETES).execute(&pool).await?;
    status(&client.delete("again", Some(&token)).await?, 204)?;
    status(&client.create(&link).await?, 201)?;
    let clicks = client.clicks("again").await?;
    ensure!(clicks == 0, "the new link begins with {clicks} clicks");
    Ok(())
}

async fn referrers_that_are_made_up_are_counted_as_other() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (child, client) = fixture.start(&[]).await?;
    let code = client.shorten("https://example.com/").await?;
    let made_up = |hosts: Range<u32>| hosts.map(|n| format!("h{n}.example")).collect::<Vec<_>>();
    for _ in 0..2 {
        follow_from(child.address(), &code, &made_up(0..150)).await?;
    }
    client.stats_with(&code, 300).await?;
    // A real host comes late, and each of its clicks is written before the next one comes.
    let real = ["news.example".to_owned()];
    for clicks in 301..=304 {
        follow_from(child.address(), &code, &real).await?;
        client.stats_with(&code, clicks).await?;
    }
    follow_from(child.address(), &code, &made_up(150..846)).await?;
    let stats = client.stats_with(&code, 1_000).await?;
    ensure!(integer(&stats, "clicks")? == 1_000, "{stats}");
    let pool = fixture.database().pool().await?;
    let rows: i64 = sqlx::query_scalar("select count(*) from clicks").fetch_one(&pool).await?;
    // Midnight may pass.
    ensure!(rows <= 2 * 201, "a thousand clicks made {rows} rows");
    let hosts = list(&stats, "referrers")?;
    let news = hosts.iter().find(|host| host["host"] == "news.example");
    ensure!(news.is_some_and(|it| it["clicks"] == 4), "a real host is lost among them: {stats}");
    ensure!(hosts.iter().any(|host| host["host"] == "other"), "{stats}");
    Ok(())
}

async fn the_statistics_of_a_link_with_many_rows_are_short() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, client) = fixture.start(&[]).await?;
    let code = client.shorten("https://example.com/").await?;
    add_clicks(&fixture.database().pool().await?, 5_000).await?;
    let stats = json(client.stats(&code).await?).await?;
    ensure!(integer(&stats, "clicks")? == 5_000, "{stats}");
    let (days, hosts) = (list(&stats, "by_day")?, list(&stats, "referrers")?);
    ensure!(days.len() <= 366, "{} days", days.len());
    ensure!(hosts.len() <= 101, "{} hosts", hosts.len());
    let of_hosts: i64 = hosts.iter().filter_map(|host| host["clicks"].as_i64()).sum();
    ensure!(of_hosts == 5_000, "the hosts have {of_hosts} of 5,000 clicks: {stats}");
    Ok(())
}

async fn a_shard_that_is_away_does_not_stop_the_clicks_of_the_others() -> Outcome {
    let mut fixture = Fixture::fresh().await?;
    fixture.add_shard().await?;
    let proxy = Proxy::to_url(fixture.shards[1].url()).await?;
    let serve = Child::serve("url-shortener").database(fixture.database());
    let away = proxy.url(fixture.shards[1].url())?;
    let serve = serve.args(&["--shard", fixture.shards[0].url(), "--shard", &away]);
    let (child, client) = start(serve).await?;
    let ring = Ring::new(2, VIRTUAL_NODES);
    let code_on = |shard| {
        let mut codes = (0..).map(|n| format!("code-{n}"));
        codes.find(|code| {
            Code::parse(code.clone()).is_some_and(|code| ring.shard_of(&code) == shard)
        })
    };
    let (here, there) = (code_on(0).context("none")?, code_on(1).context("none")?);
    for code in [&here, &there] {
        client.create(&json!({ "url": "https://example.com/", "alias": code })).await?;
        client.follow(code).await?;
    }
    client.stats_with(&there, 1).await?;
    proxy.set(Fault::Cut);
    // More sums than may wait for one shard.
    try_join_all((0..16).map(|client| {
        let hosts: Vec<_> = (0..4_000).map(|n| format!("h{n}.c{client}.example")).collect();
        let (address, there) = (child.address(), &there);
        async move { follow_from(address, there, &hosts).await }
    }))
    .await?;
    client.follow(&here).await?;
    client.stats_with(&here, 2).await?;
    Ok(())
}

async fn a_deadlock_or_a_read_only_server_costs_no_clicks() -> Outcome {
    // 40P01: a deadlock. 25006: the server is read-only, because it was demoted.
    for state in ["40P01", "25006"] {
        let fixture = Fixture::fresh().await?;
        let (child, client) = fixture.start(&[]).await?;
        let code = client.shorten("https://example.com/").await?;
        let pool = fixture.database().pool().await?;
        let fail = format!(
            "create function fail() returns trigger language plpgsql as
                 $$begin raise exception 'not now' using errcode = '{state}'; end$$;
             create trigger fail before insert on clicks for each statement execute function fail();"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(fail)).execute(&pool).await?;
        for _ in 0..5 {
            client.follow(&code).await?;
        }
        eventually("the failure is in the log", async || {
            Ok(child.log().contains("clicks").then_some(()))
        })
        .await?;
        sqlx::raw_sql("drop trigger fail on clicks").execute(&pool).await?;
        client.stats_with(&code, 5).await.with_context(|| format!("after {state}"))?;
    }
    Ok(())
}

async fn a_stop_does_not_wait_for_a_slow_database() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (mut child, _) = fixture.start(&[]).await?;
    let pool = fixture.database().pool().await?;
    let links = r#"
        insert into links (code, id, url)
        select 'many' || n, gen_random_uuid(), 'https://example.com/'
        from generate_series(1, 15000) as n
    "#;
    sqlx::query(links).execute(&pool).await?;
    // For now nothing can be written. After the commit below, each statement is slow, but within its time-out.
    let mut hold = pool.begin().await?;
    sqlx::query("lock table clicks in share row exclusive mode").execute(&mut *hold).await?;
    let followed = try_join_all((0..6).map(|client| {
        let address = child.address();
        async move {
            let (mut connection, mut followed) = (TcpStream::connect(address).await?, 0);
            for n in 1..=2_500 {
                let code = format!("many{}", client * 2_500 + n);
                // On a busy machine some links are not found in time. A 503 counts as no click, so it does not matter
                // here.
                let found = follow(&mut connection, &code, "a.example").await;
                followed += usize::from(found.is_ok());
            }
            anyhow::Ok(followed)
        }
    }))
    .await?;
    let followed: usize = followed.iter().sum();
    ensure!(followed > 10_000, "only {followed} of 15,000 were followed");
    let slow = r#"
        create function slow() returns trigger language plpgsql as
            'begin perform pg_sleep(0.6); return null; end';
        create trigger slow before insert on clicks for each statement execute function slow();
    "#;
    sqlx::raw_sql(slow).execute(&mut *hold).await?;
    hold.commit().await?;
    let begun = Instant::now();
    let status = child.stop().await?;
    let took = begun.elapsed();
    ensure!(status.success() && took < Duration::from_secs(7), "{status} after {took:?}");
    Ok(())
}

/// Follows a link from each of these pages, one after the other.
async fn follow_from(address: &str, code: &str, hosts: &[String]) -> anyhow::Result<()> {
    let mut connection = TcpStream::connect(address).await?;
    for host in hosts {
        follow(&mut connection, code, host).await?;
    }
    Ok(())
}

/// A quicker client than a real one: these tests follow thousands of times.
async fn follow(connection: &mut TcpStream, code: &str, host: &str) -> anyhow::Result<()> {
    let request =
        format!("GET /{code} HTTP/1.1\r\nhost: localhost\r\nreferer: http://{host}/\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = [0; 1_024];
    let read = connection.read(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer[..read]);
    ensure!(answer.starts_with("HTTP/1.1 302"), "/{code} does not redirect: {answer}");
    Ok(())
}
