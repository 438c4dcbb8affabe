//! What does a hit cost, beside the query that it saves, beside a bare `GET`, and beside a hit in the process itself?

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use futures_util::future::BoxFuture;
use lab::{
    Experiment, Lab, Sabotage, Target,
    load::{self, Outcome, Request, Stop},
};
use redis::{AsyncConnectionConfig, Client, aio::MultiplexedConnection, cmd};

use super::fixture::{self, Fixture};
use crate::{
    service::{Service, Tuning},
    user::UserId,
    value::Source,
};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Readers at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=512))]
    readers: u16,
    /// Seconds for each measurement
    #[arg(long, default_value_t = 0.1, value_parser = lab::experiment::seconds)]
    seconds: f64,
    /// Measurements of each, taken in turn
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "latency",
        "With many readers Redis answers several times as many hits as PostgreSQL queries, though one reader \
         alone hardly notices; the read path, called as a function, makes two thirds of the rate of bare GETs at least, \
         and a near cache answers without any",
        &["--rounds", "2", "--seconds", "0.1", "--readers", "16"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/value.rs",
        replace: "let user = (json != NOBODY)",
        with: "let user = (json == NOBODY)",
        check: "reads that failed, or were not what they should be",
    })
}

/// What one reader needs for its reads.
#[derive(Clone)]
struct Hand {
    service: Arc<Service>,
    /// The same with a near cache.
    near: Arc<Service>,
    bare: MultiplexedConnection,
    key: String,
    id: UserId,
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    fixture.make_users(1_000).await?;
    let app = fixture.app(&fixture.no_timeouts()).await?;
    let near_app = fixture.app(&Tuning { near: 1_000, ..fixture.no_timeouts() }).await?;
    let (service, near) = (Arc::clone(&app), Arc::clone(&near_app));
    let id = fixture::id(500)?;
    // Fills Redis, and then the near cache, which keeps what Redis has.
    for service in [&service, &near, &near] {
        service.get(id).await?;
    }
    let key = fixture.key(id.get()).await?;
    // The same kind of connection as ours: with room for all readers, and a time-out for each command.
    let config = AsyncConnectionConfig::new()
        .set_pipeline_buffer_size(4_096)
        .set_response_timeout(Some(Duration::from_secs(20)));
    let bare = Client::open(fixture.redis_url.as_str())?;
    let bare = bare.get_multiplexed_async_connection_with_config(&config).await?;
    let key_of_user = key.clone();
    let hand = Hand { service, near, bare, key, id };

    let ways: [(&str, Request<Hand>); 4] =
        [("bare GET", bare_get), ("hit", hit), ("query", query), ("near hit", near_hit)];
    let (mut rows, mut failed, mut answered) = (Vec::new(), 0, 0);
    let (mut of_bare, mut of_query, mut near_of_bare) = (Vec::new(), Vec::new(), Vec::new());
    let mut p50 = [vec![], vec![], vec![], vec![]];
    let (mut hits, mut queries) = (Vec::new(), Vec::new());
    for round in 0..params.rounds {
        lab.progress(round.into(), params.rounds.into(), "measured in turn");
        let mut throughputs = Vec::new();
        for (at_once, name) in [(1, "one reader"), (params.readers, "many readers")] {
            // For one reader alone we only take the latency, which needs fewer measurements.
            if at_once == 1 && round % 5 != 0 {
                continue;
            }
            for (n, (way, request)) in ways.into_iter().enumerate() {
                let clients = vec![hand.clone(); at_once.into()];
                let stop = Stop::After(Duration::from_secs_f64(params.seconds));
                let outcome = load::closed(clients, stop, request).await?;
                failed += outcome.failed;
                answered += outcome.ok;
                if at_once == 1 {
                    p50[n].push(outcome.percentile(50.0));
                } else {
                    throughputs.push(outcome.throughput());
                }
                rows.push([vec![way.to_owned(), name.to_owned()], outcome.cells()].concat());
            }
        }
        of_bare.push(throughputs[1] / throughputs[0]);
        of_query.push(throughputs[1] / throughputs[2]);
        near_of_bare.push(throughputs[3] / throughputs[0]);
        hits.push(throughputs[1]);
        queries.push(throughputs[2]);
    }
    let columns = [&["read", "by"][..], &Outcome::COLUMNS].concat();
    lab.table("Each measurement", &columns, rows);
    let readers = params.readers;
    lab.figure_with_target(
        format!("throughput of hits ÷ that of bare GETs, {readers} readers, median"),
        load::median(of_bare),
        "",
        Target::AtLeast(0.9),
    );
    lab.figure_with_target(
        format!("throughput of hits ÷ that of queries, {readers} readers, median"),
        load::median(of_query),
        "",
        Target::AtLeast(2.0),
    );
    lab.figure_with_target(
        format!("throughput of near hits ÷ that of bare GETs, {readers} readers, median"),
        load::median(near_of_bare),
        "",
        Target::AtLeast(10.0),
    );
    lab.figure(format!("hits a second, {readers} readers, median"), load::median(hits), "/s");
    lab.figure(format!("queries a second, {readers} readers, median"), load::median(queries), "/s");
    let kept: u64 = cmd("MEMORY")
        .arg("USAGE")
        .arg(&key_of_user)
        .query_async(&mut fixture.redis().await?)
        .await?;
    lab.figure("a cached user in Redis", kept as f64, "bytes");
    for (way, p50) in ways.into_iter().map(|(way, _)| way).zip(p50) {
        lab.figure(format!("{way}: p50 for one reader, median"), load::median(p50), "ms");
    }
    lab.check_eq("reads that failed, or were not what they should be", 0, failed);
    lab.check("there was something to measure", "1,000 or more", answered, answered >= 1_000);
    app.stop().await;
    near_app.stop().await;
    Ok(())
}

fn bare_get(hand: &mut Hand) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let bytes: Vec<u8> = cmd("GET").arg(&hand.key).query_async(&mut hand.bare).await?;
        ensure!(bytes.len() > 100, "something else");
        Ok(())
    })
}

fn hit(hand: &mut Hand) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let (user, source) = hand.service.get(hand.id).await?;
        ensure!(matches!(source, Source::Hit(_)), "{source:?}");
        ensure!(user.is_some_and(|user| user.json.len() > 100), "no user");
        Ok(())
    })
}

fn near_hit(hand: &mut Hand) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let (user, source) = hand.near.get(hand.id).await?;
        ensure!(matches!(source, Source::Near(_)), "{source:?}");
        ensure!(user.is_some_and(|user| user.json.len() > 100), "no user");
        Ok(())
    })
}

fn query(hand: &mut Hand) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        let user = hand.service.store.find(hand.id).await?;
        ensure!(user.is_some_and(|user| user.json.len() > 100), "no user");
        Ok(())
    })
}
