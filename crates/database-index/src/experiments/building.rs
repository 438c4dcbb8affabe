//! Who has to wait while an index is built, and what is left when the build is ended half-way?

use std::time::Duration;

use conform::target::within;
use futures_util::future::join_all;
use lab::{Experiment, Lab, Sabotage, child::Child};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::fixture::Fixture;
use crate::{cases::client::Client, error::code};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Rows of the table
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(i64).range(10_000..=5_000_000))]
    rows: i64,
    /// Users who are created while the index is built
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=200))]
    users: u16,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "building",
        "While `create index` waits or runs, nobody writes; with `concurrently` everybody does. A build that is ended half-way \
         leaves an invalid index, which no query uses and each write pays for; it is found, and another PUT mends it. If only the \
         program is killed, PostgreSQL finishes the build",
        &["--rows", "20000", "--users", "20"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/store/catalogue.rs",
        replace: r#"AssertSqlSafe(index.statement("concurrently", name))"#,
        with: r#"AssertSqlSafe(index.statement("", name))"#,
        check: "users who were created while the index was built",
    })
    .sabotage(Sabotage {
        file: "src/store/mod.rs",
        replace: "select pg_advisory_xact_lock(hashtext('fill'))",
        with: "lock table users in exclusive mode",
        check: "a program that starts while that build waits lets others write",
    })
}

/// For users to be created. Nobody has to be quick: those who are blocked are blocked until the build ends.
const PATIENCE: Duration = Duration::from_secs(6);

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, params.rows).await?;
    let (mut child, client) = fixture.start().await?;
    let users = usize::from(params.users);
    lab.progress(0, 4, "users are created while an index is built");
    let created = meanwhile(&fixture, &client, users).await?;
    let check = "users who were created while the index was built";
    lab.check_eq(check, users, created);
    lab.progress(1, 4, "and while one is built without `concurrently`");
    let blocked = plain(&fixture, users).await?;
    let check = "users who were created while an index was built without `concurrently`";
    lab.check_eq(check, 0, blocked);
    if created < users {
        lab.text("The rest needs a build that lets others write.");
        return Ok(());
    }
    lab.progress(2, 4, "a build is ended half-way");
    ended_half_way(&lab, &fixture, &mut child).await?;
    lab.progress(3, 4, "and mended");
    let client = Client::at(child.url())?;
    let index = client.target.get("indexes/idx_born").await?;
    let seen: Value = conform::expect::json_of(index, 200).await?;
    lab.check_eq("what is found of it", r#"["invalid"]"#.to_owned(), seen["findings"].to_string());
    let plan = client.run("by_born", json!({ "born": "2000-01-01" })).await?;
    lab.check_eq("a query uses it", false, plan.plan().contains("idx_born"));
    client.put("idx_born", &json!({ "columns": ["born"] })).await?;
    let seen = client.ended("idx_born").await?;
    lab.check_eq(
        "its state after another PUT",
        "ready",
        seen["state"].as_str().unwrap_or_default(),
    );
    let plan = client.run("by_born", json!({ "born": "2000-01-01" })).await?;
    lab.check_eq("a query uses it now", true, plan.plan().contains("idx_born"));
    lab.check_eq("invalid indexes that are left", 0, fixture.invalid().await?);
    without_us(&lab, &fixture, &mut child).await
}

/// The program is killed while it builds, and nobody ends the build.
async fn without_us(lab: &Lab, fixture: &Fixture, child: &mut Child) -> anyhow::Result<()> {
    let reader = fixture.old_reader().await?;
    let client = Client::at(child.url())?;
    client.put("idx_name", &json!({ "columns": ["name"] })).await?;
    fixture.waiting_build().await?;
    child.kill().await?;
    // The next one must be ready, and its users written, while that build still waits.
    let next = async {
        child.restart().await?;
        Client::at(child.url())?.sign_up("next").await
    };
    let check = "a program that starts while that build waits lets others write";
    lab.check_eq(check, true, next.await.is_ok());
    reader.rollback().await?;
    let valid = within(PATIENCE * 10, "the index is valid", async || {
        let valid = "select count(*) from pg_index where indexrelid = to_regclass('idx_name') and indisvalid";
        Ok((fixture.number(valid).await? == 1).then_some(()))
    });
    let check = "the build ends well without the program that asked for it";
    lab.check_eq(check, true, valid.await.is_ok());
    Ok(())
}

/// A transaction that has written keeps the build waiting, however fast the machine is. How many users get in meanwhile?
async fn meanwhile(fixture: &Fixture, client: &Client, users: usize) -> anyhow::Result<usize> {
    let mut writer = fixture.pool.begin().await?;
    sqlx::query("update users set notes = 'x' where id = 1").execute(&mut *writer).await?;
    let index = json!({ "columns": ["city"] });
    let put = client.put("idx_city", &index);
    let create = async {
        fixture.waiting_build().await?;
        let created = join_all((0..users).map(|n| {
            let user = client.user(&format!("meanwhile{n}"));
            async move {
                let created = timeout(PATIENCE, client.target.post("users", &user)).await;
                matches!(created, Ok(Ok(answer)) if answer.status() == 201)
            }
        }));
        let created = created.await.into_iter().filter(|created| *created).count();
        writer.rollback().await?;
        anyhow::Ok(created)
    };
    // A program that builds within the request answers only now.
    let (_, created) = tokio::try_join!(put, create)?;
    // What has a URL for its build says there when it has ended; what has none has answered.
    within(PATIENCE * 10, "the build ends", async || {
        let builds = "select count(*) from pg_stat_activity where datname = current_database() and query ilike 'create index%' and state = 'active'";
        Ok((fixture.number(builds).await? == 0).then_some(()))
    })
    .await?;
    Ok(created)
}

/// The same with the plain statement. It has been run and nothing else is under way: its lock alone keeps the others waiting,
/// until its transaction ends.
async fn plain(fixture: &Fixture, users: usize) -> anyhow::Result<usize> {
    let mut build = fixture.pool.begin().await?;
    sqlx::query("create index idx_plain on users (city)").execute(&mut *build).await?;
    let mut connection = fixture.pool.acquire().await?;
    sqlx::query("set lock_timeout = '50ms'").execute(&mut *connection).await?;
    let mut created = 0;
    for n in 0..users {
        let insert =
            "insert into users (email, name, city, born) values ($1, 'Ada', 'Rome', '2001-12-31')";
        let insert = sqlx::query(insert).bind(format!("plain{n}@example.org"));
        match insert.execute(&mut *connection).await {
            Ok(_) => created += 1,
            // The lock did not come in time.
            Err(error) if code(&error) == "55P03" => {}
            Err(error) => return Err(error.into()),
        }
    }
    sqlx::query("reset lock_timeout").execute(&mut *connection).await?;
    build.rollback().await?;
    Ok(created)
}

/// The server process is ended in the last step of the build.
async fn ended_half_way(lab: &Lab, fixture: &Fixture, child: &mut Child) -> anyhow::Result<()> {
    let client = Client::at(child.url())?;
    let without = insert(fixture).await?;
    let reader = fixture.old_reader().await?;
    client.put("idx_born", &json!({ "columns": ["born"] })).await?;
    let pid = fixture.waiting_build().await?;
    child.kill().await?;
    fixture.number(&format!("select pg_terminate_backend({pid}, 5000)::int::bigint")).await?;
    reader.rollback().await?;
    child.restart().await?;
    let with = insert(fixture).await?;
    let check = "records in the log for 1,000 new users, more than without the invalid index";
    lab.check(check, "900 at least", with - without, with - without >= 900.0);
    Ok(())
}

/// Records that PostgreSQL writes into its log for a thousand users: one for each row, and one for each entry of an index.
async fn insert(fixture: &Fixture) -> anyhow::Result<f64> {
    let insert = "insert into users (email, name, city, born)
        select 'more' || n || '@example.org', 'Ada', 'Rome', date '2001-12-31' from generate_series(1, 1000) as n";
    let plan = fixture.explain("", "wal", insert).await?;
    Ok(plan.number("WAL Records"))
}
