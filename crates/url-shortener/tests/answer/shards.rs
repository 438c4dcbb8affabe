//! Is a link found when shards are added, and is none lost?

use anyhow::{Context, ensure};
use lab::{child::Child, database::Database, harness::Outcome};
use serde_json::json;
use url_shortener::{
    code::Code,
    experiments::fixture::{Fixture, start},
    ring::{Ring, VIRTUAL_NODES},
};

use crate::clicks::add_clicks;

lab::tests![
    links_are_spread_over_shards,
    a_start_that_does_not_fit_the_ring_is_refused,
    a_reshard_that_was_cut_off_has_to_be_finished,
    a_reshard_deletes_only_what_it_has_copied,
    a_popular_link_is_moved_with_its_clicks,
];

/// A shortener on these databases, in this order.
async fn serve(
    shards: &[&Database],
    options: &[&str],
) -> anyhow::Result<(Child, url_shortener::cases::client::Client)> {
    let serve = Child::serve("url-shortener").database(shards[0]).args(options);
    start(shards.iter().fold(serve, |serve, shard| serve.args(&["--shard", shard.url()]))).await
}

/// The first alias that the last of this many shards owns.
fn alias_on_the_last_of(shards: usize) -> anyhow::Result<String> {
    let ring = Ring::new(shards, VIRTUAL_NODES);
    let mut aliases = (0..).map(|n| format!("alias-{n}"));
    let moves = |alias: &String| {
        Code::parse(alias.clone()).is_some_and(|code| ring.shard_of(&code) == shards - 1)
    };
    aliases.find(moves).context("a shard that owns nothing")
}

async fn links_are_spread_over_shards() -> Outcome {
    let mut fixture = Fixture::fresh().await?;
    fixture.add_shard().await?;
    let (_child, client) = fixture.start(&[]).await?;
    let mut links = Vec::new();
    for n in 0..60 {
        let url = format!("https://example.com/{n}");
        links.push((client.shorten(&url).await?, url));
    }
    for (code, url) in &links {
        ensure!(client.destination(code).await? == *url);
    }
    for shard in &fixture.shards {
        let pool = shard.pool().await?;
        let links: i64 = sqlx::query_scalar("select count(*) from links").fetch_one(&pool).await?;
        ensure!((5..=55).contains(&links), "a shard holds {links} of 60 links");
        pool.close().await;
    }
    Ok(())
}

async fn a_start_that_does_not_fit_the_ring_is_refused() -> Outcome {
    let mut fixture = Fixture::fresh().await?;
    fixture.add_shard().await?;
    fixture.add_shard().await?;
    let [one, two, three] = &fixture.shards[..] else { anyhow::bail!("not three") };
    drop(serve(&[one, two], &[]).await?);
    for (what, shards) in [
        ("a shard is missing", &[one][..]),
        ("the order is another", &[two, one]),
        ("a shard is there twice", &[one, one]),
        ("a shard is new, and nothing was moved to it", &[one, two, three]),
        ("a shard that others share", &[three, two]),
    ] {
        let refused = serve(shards, &[]).await.err().context(what)?.to_string();
        ensure!(refused.contains("shard") && !refused.contains("panicked"), "{what}: {refused}");
    }
    drop(serve(&[one, two], &[]).await?);
    drop(serve(&[one, two, three], &["--reshard"]).await?);
    drop(serve(&[one, two, three], &[]).await?);
    Ok(())
}

async fn a_reshard_that_was_cut_off_has_to_be_finished() -> Outcome {
    let mut fixture = Fixture::fresh().await?;
    fixture.add_shard().await?;
    let [one, two] = &fixture.shards[..] else { anyhow::bail!("not two") };
    let (child, client) = serve(&[one], &[]).await?;
    let alias = alias_on_the_last_of(2)?;
    client.create(&json!({ "url": "https://example.com/", "alias": alias })).await?;
    drop(child);
    // The link cannot be written there: the reshard breaks off.
    let pool = two.pool().await?;
    let fail = r#"
        create function fail() returns trigger language plpgsql as
            $$begin raise exception 'full' using errcode = '53100'; end$$;
        create trigger fail before insert on links for each statement execute function fail();
    "#;
    sqlx::raw_sql(fail).execute(&pool).await?;
    ensure!(serve(&[one, two], &["--reshard"]).await.is_err(), "it was served without the move");
    sqlx::raw_sql("drop trigger fail on links").execute(&pool).await?;
    for shards in [&[one][..], &[one, two]] {
        let served = serve(shards, &[]).await;
        ensure!(served.is_err(), "half-moved links are served on {} shards", shards.len());
    }
    let (_child, client) = serve(&[one, two], &["--reshard"]).await?;
    ensure!(client.destination(&alias).await? == "https://example.com/");
    Ok(())
}

async fn a_reshard_deletes_only_what_it_has_copied() -> Outcome {
    let mut fixture = Fixture::fresh().await?;
    fixture.add_shard().await?;
    let [one, two] = &fixture.shards[..] else { anyhow::bail!("not two") };
    let (child, client) = serve(&[one], &[]).await?;
    let alias = alias_on_the_last_of(2)?;
    client.create(&json!({ "url": "https://example.com/first", "alias": alias })).await?;
    drop(child);
    // While the link was hidden, somebody else took its alias.
    let pool = two.pool().await?;
    let take =
        "insert into links (code, id, url) values ($1, gen_random_uuid(), 'https://a.example/')";
    sqlx::query(take).bind(&alias).execute(&pool).await?;
    let _served = serve(&[one, two], &["--reshard"]).await;
    let left: i64 = sqlx::query_scalar("select count(*) from links where code = $1")
        .bind(&alias)
        .fetch_one(&one.pool().await?)
        .await?;
    ensure!(left == 1, "the first owner's link is gone");
    Ok(())
}

async fn a_popular_link_is_moved_with_its_clicks() -> Outcome {
    let mut fixture = Fixture::fresh().await?;
    fixture.add_shard().await?;
    let [one, two] = &fixture.shards[..] else { anyhow::bail!("not two") };
    let (child, client) = serve(&[one], &[]).await?;
    let alias = alias_on_the_last_of(2)?;
    client.create(&json!({ "url": "https://example.com/", "alias": alias })).await?;
    drop(child);
    add_clicks(&one.pool().await?, 2_500).await?;
    // A disk on which each row takes a millisecond.
    let slow = r#"
        create function slow() returns trigger language plpgsql as
            'begin perform pg_sleep(0.001); return coalesce(new, old); end';
        create trigger slow before insert or delete on clicks for each row execute function slow();
    "#;
    for shard in [one, two] {
        sqlx::raw_sql(slow).execute(&shard.pool().await?).await?;
    }
    let (_child, client) = serve(&[one, two], &["--reshard"]).await?;
    let clicks = client.clicks(&alias).await?;
    ensure!(clicks == 2_500, "{clicks} of 2,500 clicks came along");
    Ok(())
}
