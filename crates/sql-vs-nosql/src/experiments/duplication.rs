//! What does a copy cost when it changes? A customer's name is in each of a thousand orders, or in one place.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::ensure;
use lab::{Experiment, Lab, Sabotage, report::number};
use redis::{AsyncCommands, Script, aio::MultiplexedConnection, pipe};
use serde_json::json;
use sqlx::PgPool;
use tokio::{task::yield_now, time::timeout};

use super::fixture::{Fixture, MODELS, customer, make, one_of_each};
use crate::{entity::Kind, store::Store};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Copies of the name
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    copies: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "duplication",
        "A name that is kept once changes with one write, and every reader has the new one; a name that is copied into each \
         order changes with as many writes as there are copies, and a reader sees old and new ones side by side, unless one \
         transaction or one script changes all of them",
        &["--copies", "200"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/tables.rs",
        replace: "set name = excluded.name, country = excluded.country,",
        with: "set country = excluded.country,",
        check: "tables: readers of a name that is kept once who see the old one",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let mut rows = Vec::new();
    for (n, (model, name)) in (0..).zip(MODELS) {
        lab.progress(n, 5, format!("a name that is kept once, with {name}"));
        let ms = kept_once(&lab, &fixture.store(model)?, name).await?;
        rows.push(vec![format!("{name}, kept once"), "1".to_owned(), "0".to_owned(), number(ms)]);
    }
    lab.progress(3, 5, "copies in documents");
    let mut changes = in_documents(&params, &fixture).await?;
    lab.progress(4, 5, "copies under keys");
    changes.extend(under_keys(&params, &fixture).await?);
    for Change { name, writes, mixed, ms, is_whole } in changes {
        lab.check_eq(format!("{name}: copies that were written"), params.copies, writes);
        let check = format!("{name}: reads that saw old and new names side by side");
        if is_whole {
            lab.check_eq(check, 0, mixed);
        } else {
            lab.check(check, "1 or more", mixed, mixed > 0);
        }
        lab.figure(format!("{name}: all copies"), ms, "ms");
        rows.push(vec![name.to_owned(), writes.to_string(), mixed.to_string(), number(ms)]);
    }
    let columns = ["the name", "writes", "mixed reads", "ms"];
    lab.table("A name changes", &columns, rows);
    Ok(())
}

/// A customer changes its name, and a product too; how long the first took.
async fn kept_once(lab: &Lab, store: &Store, name: &str) -> anyhow::Result<f64> {
    let (ada, tea) = ("ada".to_owned(), "tea".to_owned());
    customer(store, &ada, "GB", 1_000).await?;
    make(store, Kind::Product, &tea, json!({ "name": "Tea", "price_cents": 1 }), 10).await?;
    for _ in 0..5 {
        store.place(&one_of_each(&ada, [&tea])).await?;
    }
    let begun = Instant::now();
    let changed = json!({ "name": "Countess of Lovelace", "country": "GB" });
    make(store, Kind::Customer, &ada, changed, 0).await?;
    let ms = begun.elapsed().as_secs_f64() * 1e3;
    make(store, Kind::Product, &tea, json!({ "name": "Old tea", "price_cents": 1 }), 0).await?;
    let (seen, _) = store.get(Kind::Customer, &ada, None).await?;
    let old = u32::from(seen["name"] != json!("Countess of Lovelace"));
    lab.check_eq(
        format!("{name}: readers of a name that is kept once who see the old one"),
        0,
        old,
    );
    let lines = store.orders_of(&ada).await?.into_iter().flat_map(|order| order.lines);
    let kept = lines.filter(|line| line.name == "Tea").count();
    lab.check_eq(format!("{name}: old orders that say what was bought then"), 5, kept);
    lab.figure(format!("{name}: a name that is kept once"), ms, "ms");
    Ok(ms)
}

/// What was seen of one way to change all copies.
struct Change {
    name: &'static str,
    writes: u32,
    mixed: u64,
    ms: f64,
    /// Whether nobody may see a part of it.
    is_whole: bool,
}

const PATIENCE: Duration = Duration::from_secs(20);

/// Counts what readers see while something is written.
#[derive(Default)]
struct Watch {
    over: AtomicBool,
    reads: AtomicU64,
    mixed: AtomicU64,
}

impl Watch {
    /// Reads until the writing is over. `distinct` says how many names there are.
    async fn reading<W>(&self, mut distinct: impl FnMut() -> W) -> anyhow::Result<()>
    where
        W: Future<Output = anyhow::Result<i64>>,
    {
        while !self.over.load(Ordering::Relaxed) {
            let is_mixed = distinct().await? > 1;
            self.mixed.fetch_add(u64::from(is_mixed), Ordering::Relaxed);
            self.reads.fetch_add(1, Ordering::Relaxed);
            yield_now().await;
        }
        Ok(())
    }

    /// Waits for a read that began after this. A program that changes one copy after the other may be interrupted for as
    /// long as this, and for longer.
    async fn a_read(&self) -> anyhow::Result<()> {
        let wanted = self.reads.load(Ordering::Relaxed) + 2;
        let wait = async {
            while self.reads.load(Ordering::Relaxed) < wanted {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        Ok(timeout(PATIENCE, wait).await?)
    }
}

async fn in_documents(params: &Params, fixture: &Fixture) -> anyhow::Result<Vec<Change>> {
    let pool = &fixture.pool;
    let fill = "insert into order_documents (id, body)
                select 'copy-' || n, jsonb_build_object('customer', 'ada', 'name', 'Ada', 'total_cents', n)
                from generate_series(1, $1) as n";
    sqlx::query(fill).bind(i64::from(params.copies)).execute(pool).await?;
    let mut changes = Vec::new();
    for (name, is_whole) in
        [("documents, one after the other", false), ("documents, one statement", true)]
    {
        let (watch, new) = (Watch::default(), format!("by {name}"));
        let reading = watch.reading(|| names_in(pool.clone()));
        let writing = async {
            watch.a_read().await?;
            let begun = Instant::now();
            let writes = if is_whole {
                at_once(pool, &new).await
            } else {
                one_by_one(params, pool, &new, &watch).await
            };
            let ms = begun.elapsed().as_secs_f64() * 1e3;
            watch.over.store(true, Ordering::Relaxed);
            anyhow::Ok((writes?, ms))
        };
        let ((), (writes, ms)) = tokio::try_join!(reading, writing)?;
        let mixed = watch.mixed.into_inner();
        changes.push(Change { name, writes, mixed, ms, is_whole });
    }
    Ok(changes)
}

async fn names_in(pool: PgPool) -> anyhow::Result<i64> {
    let names = r#"
        select count(distinct body ->> 'name')
        from order_documents
        where id like 'copy-%'
    "#;
    Ok(sqlx::query_scalar(names).fetch_one(&pool).await?)
}

async fn at_once(pool: &PgPool, new: &str) -> anyhow::Result<u32> {
    let change = "update order_documents set body = body || jsonb_build_object('name', $1::text) where id like 'copy-%'";
    Ok(sqlx::query(change).bind(new).execute(pool).await?.rows_affected().try_into()?)
}

async fn one_by_one(
    params: &Params,
    pool: &PgPool,
    new: &str,
    watch: &Watch,
) -> anyhow::Result<u32> {
    let mut writes = 0;
    for n in 1..=params.copies {
        let change = "update order_documents set body = body || jsonb_build_object('name', $2::text) where id = $1";
        let change = sqlx::query(change).bind(format!("copy-{n}")).bind(new);
        writes += u32::try_from(change.execute(pool).await?.rows_affected())?;
        if n == params.copies / 2 {
            watch.a_read().await?;
        }
    }
    Ok(writes)
}

/// All in one script: nobody else is served meanwhile.
const CHANGE: &str = r#"
    for n = 1, #KEYS do
        redis.call('set', KEYS[n], ARGV[1])
    end
    return #KEYS
"#;

async fn under_keys(params: &Params, fixture: &Fixture) -> anyhow::Result<Vec<Change>> {
    let prefix = fixture.keys.prefix();
    let keys: Vec<_> = (0..params.copies).map(|n| format!("{prefix}copy:{n}")).collect();
    let (mut writer, reader) = (fixture.keys.connection().await?, fixture.keys.connection().await?);
    let mut fill = pipe();
    for key in &keys {
        fill.set(key, "Ada").ignore();
    }
    let () = fill.query_async(&mut writer).await?;
    let mut changes = Vec::new();
    for (name, is_whole) in
        [("key-value, one after the other", false), ("key-value, one script", true)]
    {
        let watch = Watch::default();
        let reading = watch.reading(|| names_under(keys.clone(), reader.clone()));
        let writing = async {
            watch.a_read().await?;
            let begun = Instant::now();
            let mut writes = 0;
            if is_whole {
                let change = Script::new(CHANGE);
                let mut change = change.prepare_invoke();
                writes = change.key(&keys).arg(name).invoke_async(&mut writer).await?;
            } else {
                for key in &keys {
                    let () = writer.set(key, name).await?;
                    writes += 1;
                    if writes == params.copies / 2 {
                        watch.a_read().await?;
                    }
                }
            }
            let ms = begun.elapsed().as_secs_f64() * 1e3;
            watch.over.store(true, Ordering::Relaxed);
            anyhow::Ok((writes, ms))
        };
        let ((), (writes, ms)) = tokio::try_join!(reading, writing)?;
        let mixed = watch.mixed.into_inner();
        changes.push(Change { name, writes, mixed, ms, is_whole });
    }
    Ok(changes)
}

async fn names_under(keys: Vec<String>, mut redis: MultiplexedConnection) -> anyhow::Result<i64> {
    let mut names: Vec<String> = redis.mget(&keys).await?;
    ensure!(names.len() == keys.len(), "{} names", names.len());
    names.sort_unstable();
    names.dedup();
    Ok(names.len().try_into()?)
}
