//! A value is filled in just after it was deleted. What keeps it out?

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use conform::target::eventually;
use lab::{Experiment, Lab, Sabotage};
use rand::Rng;
use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;

use super::{
    compare::textbook::Textbook,
    fixture::{self, Fixture, believing, renamed},
};
use crate::{
    cases::client::name,
    service::Service,
    user::{Email, Name, UserId},
    value::Source,
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
        file: "src/link.rs",
        replace: "~= ARGV[1] then",
        with: "== 'never' then",
        check: "with the lease: the name that is read after the update",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let (name, ttl) = forced_textbook(&lab).await?;
    lab.check_eq("textbook: the name that is read after the update", "old", &name);
    lab.figure("textbook: the old name would be read for", ttl as f64, "s");
    lab.check("textbook: and for how long", "3,000 s or more", format!("{ttl} s"), ttl >= 3_000);
    let name = forced(&lab).await?;
    lab.check_eq("with the lease: the name that is read after the update", "new", &name);

    let textbook = interleave_textbook(&params, &lab).await?;
    let lease = interleave(&params, &lab).await?;
    let share = textbook.stale as f64 / textbook.runs as f64 * 100.0;
    lab.figure("stale values left by the textbook at random", share, "%");
    let asked = u64::from(params.interleavings);
    lab.check_eq("random interleavings that were run with the lease", asked, lease.runs);
    lab.check_eq("stale values among them", 0, lease.stale);
    // A reader that goes around Redis would race with nobody.
    lab.check_eq("readers among them that missed in Redis", asked, lease.loaded);
    let row = |fill: &str, seen: &Interleaved| {
        vec![fill.to_owned(), seen.runs.to_string(), seen.stale.to_string()]
    };
    let rows = vec![row("textbook", &textbook), row("lease", &lease)];
    let columns = ["fill", "interleavings", "stale values"];
    lab.table("A reader and a writer of one cold key, let loose at random moments", &columns, rows);
    Ok(())
}

/// Holds up the queries of one program between their look at the table and their answer. The program is known by the
/// name of its connections. A view in the table's place makes them wait for a lock of ours.
struct Held {
    lock: PgConnection,
    url: String,
}

impl Held {
    async fn new(fixture: &Fixture) -> anyhow::Result<Self> {
        let mut lock = PgConnection::connect(fixture.database.url()).await?;
        sqlx::raw_sql(
            r#"
            alter table users rename to users_kept;
            create view users as
            select *
            from users_kept
            where case current_setting('application_name')
                when 'held' then pg_advisory_xact_lock_shared(16) is not null
                else true
            end;
            select pg_advisory_lock(16);
            "#,
        )
        .execute(&mut lock)
        .await?;
        let url = fixture.database.url();
        let and = if url.contains('?') { '&' } else { '?' };
        Ok(Self { lock, url: format!("{url}{and}application_name=held") })
    }

    /// Waits until a query is held up.
    async fn caught(&mut self) -> anyhow::Result<()> {
        let lock = tokio::sync::Mutex::new(&mut self.lock);
        eventually("a reader has read, and waits for its answer", async || {
            let waiting: i64 = sqlx::query_scalar(
                r#"
                select count(*)
                from pg_locks
                where locktype = 'advisory' and not granted
                    and database = (select oid from pg_database where datname = current_database())
                "#,
            )
            .fetch_one(&mut **lock.lock().await)
            .await?;
            Ok((waiting > 0).then_some(()))
        })
        .await
    }

    async fn release(mut self) -> anyhow::Result<()> {
        sqlx::query("select pg_advisory_unlock(16)").execute(&mut self.lock).await?;
        Ok(self.lock.close().await?)
    }
}

/// Holds up the reader until the writer is done. Returns the name that is read then, and for how many seconds it would
/// still be read.
async fn forced_textbook(lab: &Lab) -> anyhow::Result<(String, i64)> {
    let fixture = Fixture::of(lab).await?;
    fixture.make_users(1).await?;
    let id = fixture::id(1)?;
    let mut held = Held::new(&fixture).await?;
    let (redis, prefix) = (&fixture.redis_url, &fixture.key_prefix);
    let reader = Textbook::new(&held.url, redis, prefix, false).await?;
    let writer = Textbook::new(fixture.database.url(), redis, prefix, false).await?;
    writer.update(id, "old").await?;
    let read = tokio::spawn(async move { reader.get(id).await });
    held.caught().await?;
    writer.update(id, "new").await?;
    held.release().await?;
    ensure!(read.await??.as_deref() == Some("old"), "the reader has read something else");
    Ok((writer.get(id).await?.context("nobody")?, writer.ttl(id).await?))
}

/// The same with two processes of the service.
async fn forced(lab: &Lab) -> anyhow::Result<String> {
    let fixture = Fixture::of(lab).await?;
    fixture.make_users(1).await?;
    let mut held = Held::new(&fixture).await?;
    let calm = ["--trust", "300", "--redis-timeout", "20"];
    let calm = [&calm[..], &["--database-timeout", "30"]].concat();
    let reader = fixture.serve().env("DATABASE_URL", &held.url).args(&calm).start().await?;
    let writer = fixture.serve().args(&calm).start().await?;
    let (reading, writing) = (believing(&reader).await?, believing(&writer).await?);
    ensure!(writing.change(1, &renamed(1, "old")).await?.status() == 200);
    let read = tokio::spawn(async move { name(reading.read(1).await?).await });
    held.caught().await?;
    let changed = writing.change(1, &renamed(1, "new")).await?;
    ensure!(changed.status() == 200, "the change was answered with {}", changed.status());
    held.release().await?;
    let read = read.await??;
    ensure!(read == "old", "the reader had read {read:?}");
    name(writing.read(1).await?).await
}

#[derive(Default)]
struct Interleaved {
    runs: u64,
    stale: u64,
    loaded: u64,
}

struct Once {
    stale: bool,
    /// The reader looked into Redis in vain, and went to the database.
    loaded: bool,
}

/// A reader and a writer, each with connections of its own, as in two processes.
#[derive(Clone)]
enum Pair {
    Textbook(Textbook, Textbook),
    Lease(Arc<Service>, Arc<Service>),
}

async fn interleave_textbook(params: &Params, lab: &Lab) -> anyhow::Result<Interleaved> {
    let fixture = Fixture::of(lab).await?;
    fixture.make_users(params.at_once).await?;
    let new = || {
        let url = fixture.database.url();
        Textbook::new(url, &fixture.redis_url, &fixture.key_prefix, false)
    };
    let pair = Pair::Textbook(new().await?, new().await?);
    // The textbook needs fewer runs, because a stale value is soon found.
    many(params.interleavings / 5, params.at_once, lab, "textbook", &pair).await
}

async fn interleave(params: &Params, lab: &Lab) -> anyhow::Result<Interleaved> {
    let fixture = Fixture::of(lab).await?;
    fixture.make_users(params.at_once).await?;
    let tuning = fixture.no_timeouts();
    let (reader, writer) = (fixture.app(&tuning).await?, fixture.app(&tuning).await?);
    let pair = Pair::Lease(Arc::clone(&reader), Arc::clone(&writer));
    let seen = many(params.interleavings, params.at_once, lab, "lease", &pair).await?;
    drop(pair);
    for app in [reader, writer] {
        app.stop().await;
    }
    Ok(seen)
}

async fn many(
    interleavings: u32,
    at_once: u32,
    lab: &Lab,
    mode: &'static str,
    pair: &Pair,
) -> anyhow::Result<Interleaved> {
    let mut work = JoinSet::new();
    for n in 0..at_once {
        let runs = interleavings / at_once + u32::from(n < interleavings % at_once);
        let (pair, lab) = (pair.clone(), lab.clone());
        work.spawn(async move {
            let mut all = Interleaved::default();
            for run in 0..runs {
                let seen = pair.once(fixture::id(n + 1)?, &format!("name {run}")).await?;
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
    let mut all = Interleaved::default();
    for one in work.join_all().await {
        let one = one?;
        all.runs += one.runs;
        all.stale += one.stale;
        all.loaded += one.loaded;
    }
    Ok(all)
}

impl Pair {
    /// One reader, one writer, one cold key.
    async fn once(&self, id: UserId, new: &str) -> anyhow::Result<Once> {
        let (read_after, written_after) = {
            let mut chance = rand::rng();
            (chance.random_range(0..1_500), chance.random_range(0..1_500))
        };
        match self {
            Self::Textbook(reader, writer) => {
                writer.forget(id).await?;
                let (read, written) = tokio::join!(
                    after(read_after, reader.get(id)),
                    after(written_after, writer.update(id, new)),
                );
                read?;
                written?;
                let stale = reader.get(id).await?.as_deref() != Some(new);
                Ok(Once { stale, loaded: true })
            }
            Self::Lease(reader, writer) => {
                let link = writer.trust.any_link().context("no link")?;
                link.forget(&[id]).await?;
                let email = Email::parse(&format!("user{}@example.org", id.get()));
                let (name, email) = (Name::parse(new), email.map_err(anyhow::Error::msg)?);
                let name = name.map_err(anyhow::Error::msg)?;
                let (read, written) = tokio::join!(
                    after(read_after, reader.get(id)),
                    after(written_after, writer.update(id, None, &name, &email)),
                );
                written?;
                let user = reader.get(id).await?.0.context("nobody")?;
                let seen: serde_json::Value = serde_json::from_slice(&user.json)?;
                let loaded = matches!(read?.1, Source::Miss { .. });
                Ok(Once { stale: seen["name"] != new, loaded })
            }
        }
    }
}

/// Waits this many microseconds first. It does not sleep, because a timer is a hundred times too coarse.
async fn after<T>(micros: u64, work: impl Future<Output = T>) -> T {
    let until = std::time::Instant::now() + Duration::from_micros(micros);
    while std::time::Instant::now() < until {
        tokio::task::yield_now().await;
    }
    work.await
}
