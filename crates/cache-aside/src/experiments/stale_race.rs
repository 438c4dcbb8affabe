//! A value is filled in just after it was deleted. What keeps it out?

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use lab::{
    Experiment, Lab, Sabotage,
    fault::{Proxy, Side},
};
use rand::Rng;
use tokio::{task::JoinSet, time::timeout};

use super::fixture::{self, Fixture, believing, renamed};
use crate::{
    cases::client::{name, ttl},
    read::Stampede,
    service::{App, Service},
    source::Source,
    tuning::Tuning,
    user::{Email, Name},
};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Random interleavings
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    interleavings: u32,
    /// Interleavings at once
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=64))]
    at_once: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "stale-race",
        "Textbook \"delete on update\" leaves a stale value for up to an hour when a reader fills in what \
         it read before the update; with the lease no interleaving does",
        &["--interleavings", "600"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/lease.rs",
        replace: "link.replace(&key, old, &new, life).await?",
        with: "link.set(&key, &new, life).await?",
        check: "with the lease: the name that is read after the update",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let textbook = forced(&lab, "naive").await?;
    lab.check_eq("textbook: the name that is read after the update", "old", &textbook.0);
    let ttl = textbook.1.unwrap_or_default();
    lab.figure("textbook: the old name would be read for", ttl as f64, "s");
    lab.check("textbook: and for how long", "3,000 s or more", format!("{ttl} s"), ttl >= 3_000);
    let lease = forced(&lab, "lease").await?;
    lab.check_eq("with the lease: the name that is read after the update", "new", &lease.0);

    let mut rows = Vec::new();
    for (mode, stampede) in [("textbook", Stampede::Naive), ("lease", Stampede::Lease)] {
        let seen = interleave(&params, &lab, mode, stampede).await?;
        rows.push(vec![mode.to_owned(), seen.runs.to_string(), seen.stale.to_string()]);
        if stampede == Stampede::Lease {
            let asked = u64::from(params.interleavings);
            lab.check_eq("random interleavings that were run with the lease", asked, seen.runs);
            lab.check_eq("stale values among them", 0, seen.stale);
            // One that goes around Redis would race with nobody.
            lab.check_eq("readers among them that missed in Redis", asked, seen.loaded);
        } else {
            let share = seen.stale as f64 / seen.runs as f64 * 100.0;
            lab.figure("stale values left by the textbook at random", share, "%");
        }
    }
    let columns = ["fill", "interleavings", "stale values"];
    lab.table("A reader and a writer of one cold key, let loose at random moments", &columns, rows);
    Ok(())
}

/// Holds up the reader's fill until the writer is done. Returns the name that is read then, and for how long it
/// would be.
async fn forced(lab: &Lab, mode: &str) -> anyhow::Result<(String, Option<i64>)> {
    let fixture = Fixture::of(lab).await?;
    let to_redis = Proxy::to_url(&fixture.redis_url).await?;
    // Nothing else is sent to Redis meanwhile, so that messages can be counted: the next confirmation is far off.
    let calm = ["--stampede", mode, "--trust", "300", "--redis-timeout", "20", "--lease", "60"];
    let calm = [&calm[..], &["--database-timeout", "30"]].concat();
    let writer = fixture.serve().args(&calm).start().await?;
    let reader = fixture.serve_through(&to_redis.url(&fixture.redis_url)?).args(&calm);
    let reader = reader.start().await?;
    let (reading, writing) = (believing(&reader).await?, believing(&writer).await?);
    let id = writing.sign_up("old").await?;

    // The look is the next message; with a lease comes its own; then the fill.
    let fill = to_redis.messages() + if mode == "naive" { 2 } else { 3 };
    let caught = to_redis.at_message(fill, Side::Before);
    let read = tokio::spawn({
        let reading = reading.clone();
        async move { name(reading.read(id).await?).await }
    });
    let held = timeout(Duration::from_secs(10), caught).await.context("no fill came")??;
    ensure!(!read.is_finished(), "the reader did not wait for its fill");
    let changed = writing.change(id, &renamed(id, "new")).await?;
    ensure!(changed.status() == 200, "the change was answered with {}", changed.status());
    drop(held);
    let read = read.await??;
    ensure!(read == "old", "the reader had read {read:?}");
    let after = writing.read(id).await?;
    let ttl = ttl(&after).ok();
    Ok((name(after).await?, ttl))
}

struct Interleaved {
    runs: u64,
    stale: u64,
    loaded: u64,
}

/// A reader and a writer in two processes' worth of state, each on its own connections.
async fn interleave(
    params: &Params,
    lab: &Lab,
    mode: &str,
    stampede: Stampede,
) -> anyhow::Result<Interleaved> {
    let fixture = Fixture::of(lab).await?;
    fixture.make_users(params.at_once).await?;
    let tuning = Tuning { stampede, ..fixture.no_timeouts() };
    let (reader, writer) = (fixture.app(&tuning).await?, fixture.app(&tuning).await?);
    // The textbook needs fewer: it does not take long to find one.
    let some = if stampede == Stampede::Naive { 5 } else { 1 };
    let interleavings = params.interleavings / some;
    let mut work = JoinSet::new();
    for n in 0..params.at_once {
        let apps = (Arc::clone(&reader.service), Arc::clone(&writer.service));
        let runs = interleavings / params.at_once + u32::from(n < interleavings % params.at_once);
        let lab = lab.clone();
        let mode = mode.to_owned();
        work.spawn(async move {
            let mut all = Interleaved { runs: 0, stale: 0, loaded: 0 };
            for run in 0..runs {
                let name = format!("name {run}");
                let seen = one(&apps.0, &apps.1, n + 1, &name).await?;
                all.runs += 1;
                all.stale += u64::from(seen.stale);
                all.loaded += u64::from(seen.loaded);
                if n == 0 && run % 16 == 0 {
                    lab.progress(run.into(), runs.into(), format!("interleavings, {mode}"));
                }
            }
            anyhow::Ok(all)
        });
    }
    let mut all = Interleaved { runs: 0, stale: 0, loaded: 0 };
    for one in work.join_all().await {
        let one = one?;
        all.runs += one.runs;
        all.stale += one.stale;
        all.loaded += one.loaded;
    }
    for app in [reader, writer] {
        App::stop(app).await;
    }
    Ok(all)
}

struct Once {
    stale: bool,
    /// The reader looked into Redis in vain, and went to the database.
    loaded: bool,
}

/// One reader, one writer, one cold key. The key is cold because the last writer has deleted it, or the last
/// reader's value is deleted here.
async fn one(
    reader: &Arc<Service>,
    writer: &Arc<Service>,
    n: u32,
    new: &str,
) -> anyhow::Result<Once> {
    let id = fixture::id(n)?;
    let link = writer.reader.trust.any_link().context("no link")?;
    link.delete(&[link.key(id)]).await?;
    let (name, email) = (Name::parse(new), Email::parse(&format!("user{n}@example.org")));
    let (name, email) = (name.map_err(anyhow::Error::msg)?, email.map_err(anyhow::Error::msg)?);
    let (read_after, written_after) = {
        let mut chance = rand::rng();
        (chance.random_range(0..1_500), chance.random_range(0..1_500))
    };
    let read = async {
        pause(read_after).await;
        reader.reader.get(id).await
    };
    let written = async {
        pause(written_after).await;
        writer.writer.update(id, &name, &email).await
    };
    let (read, written) = tokio::join!(read, written);
    written?;
    let after = reader.reader.get(id).await?;
    Ok(Once {
        stale: after.user.is_none_or(|user| !user.as_str().contains(&format!("\"{new}\""))),
        loaded: matches!(read?.source, Source::Miss { .. }),
    })
}

/// So many microseconds. A timer is a hundred times too coarse.
async fn pause(micros: u64) {
    let until = std::time::Instant::now() + Duration::from_micros(micros);
    while std::time::Instant::now() < until {
        tokio::task::yield_now().await;
    }
}
