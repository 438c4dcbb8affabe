//! Two users must never have one address: who keeps this rule when a hundred clients want the same one?

use std::sync::Arc;

use futures_util::future::try_join_all;
use lab::{Experiment, Lab, Sabotage};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use tokio::{sync::Barrier, task::JoinSet};

use super::fixture::Fixture;
use crate::error::code;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Clients that want the same address at the same moment
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(2..=150))]
    clients: u16,
    /// Addresses
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "unique",
        "A unique index keeps a rule under concurrency; look-then-insert at read committed does not. A lock and serializable \
         transactions keep it too, as long as every program uses them",
        &["--clients", "10", "--rounds", "2"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/index.rs",
        replace: r#"let unique = if self.unique { "unique " } else { "" };"#,
        with: r#"let unique = "";"#,
        check: "by a unique index: addresses that two users have",
    })
}

/// How a client makes sure that nobody has the address.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    LookThenInsert,
    Lock,
    Serializable,
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, 1_000).await?;
    let ways = [
        ("look, then insert, at read committed", Way::LookThenInsert),
        ("by an advisory lock on the address", Way::Lock),
        ("by serializable transactions", Way::Serializable),
    ];
    let mut rows = Vec::new();
    let clients = try_join_all((0..params.clients).map(|_| connect(&fixture))).await?;
    let mut clients = Some(clients);
    for (n, (name, way)) in ways.into_iter().enumerate() {
        let (mut twice, mut refused) = (0, 0);
        for round in 0..params.rounds {
            lab.progress(n as u64, 4, name);
            let email = format!("wanted{n}-{round}@example.org");
            let (back, again) = at_once(clients.take().unwrap_or_default(), way, &email).await?;
            clients = Some(back);
            refused += again;
            twice += u16::from(users(&fixture, &email).await? > 1);
        }
        rows.push(vec![name.to_owned(), twice.to_string(), refused.to_string()]);
        let check = format!("{name}: addresses that two users have");
        if way == Way::LookThenInsert {
            let least = params.rounds.div_ceil(2);
            lab.check(check, format!("{least} at least"), twice, twice >= least);
        } else {
            lab.check_eq(check, 0, twice);
        }
    }
    drop(clients);
    lab.progress(3, 4, "by a unique index");
    // What the first way has left would be in the way of a unique index.
    fixture.sql("delete from users where email like 'wanted%'").await?;
    let (_child, client) = fixture.start().await?;
    client.build("idx_email", &json!({ "columns": ["email"], "unique": true })).await?;
    let (mut twice, mut created, mut conflicts) = (0, 0, 0);
    for round in 0..params.rounds {
        let user = client.user(&format!("wanted{round}"));
        let email = user["email"].as_str().unwrap_or_default().to_owned();
        let bodies = vec![user; params.clients.into()];
        for (answer, _) in client.target.post_together("users", &bodies).await? {
            created += u16::from(answer.status() == 201);
            conflicts += u32::from(answer.status() == 409);
        }
        twice += u16::from(users(&fixture, &email).await? > 1);
    }
    rows.push(vec!["by a unique index".to_owned(), twice.to_string(), "0".to_owned()]);
    lab.check_eq("by a unique index: addresses that two users have", 0, twice);
    lab.check_eq("by a unique index: users who were created", params.rounds, created);
    let others = u32::from(params.rounds) * u32::from(params.clients - 1);
    lab.check_eq("by a unique index: clients that were told of a conflict", others, conflicts);
    let columns = ["way", "addresses that two users have", "attempts that had to be made again"];
    lab.table(
        format!("{} addresses, each wanted by {} clients", params.rounds, params.clients),
        &columns,
        rows,
    );
    Ok(())
}

async fn connect(fixture: &Fixture) -> anyhow::Result<PgConnection> {
    Ok(PgConnection::connect(fixture.database.url()).await?)
}

async fn users(fixture: &Fixture, email: &str) -> anyhow::Result<i64> {
    let count = sqlx::query_scalar("select count(*) from users where email = $1").bind(email);
    Ok(count.fetch_one(&fixture.pool).await?)
}

/// All clients want this address at the same moment. Returns them, and how often an attempt was refused and made again.
async fn at_once(
    clients: Vec<PgConnection>,
    way: Way,
    email: &str,
) -> anyhow::Result<(Vec<PgConnection>, u32)> {
    let all_looked = Arc::new(Barrier::new(clients.len()));
    let mut work = JoinSet::new();
    for mut client in clients {
        let (all_looked, email) = (all_looked.clone(), email.to_owned());
        work.spawn(async move {
            let (mut first, mut again) = (true, 0);
            while let Err(error) = attempt(&mut client, way, &email, &all_looked, first).await {
                // 40001: could not serialize. The same once more, from the beginning.
                anyhow::ensure!(code(&error) == "40001", error);
                sqlx::query("rollback").execute(&mut client).await?;
                (first, again) = (false, again + 1);
            }
            anyhow::Ok((client, again))
        });
    }
    let (mut back, mut refused) = (Vec::new(), 0);
    while let Some(done) = work.join_next().await {
        let (client, again) = done??;
        back.push(client);
        refused += again;
    }
    Ok((back, refused))
}

async fn attempt(
    client: &mut PgConnection,
    way: Way,
    email: &str,
    all_looked: &Barrier,
    first: bool,
) -> sqlx::Result<()> {
    let begin =
        if way == Way::Serializable { "begin isolation level serializable" } else { "begin" };
    sqlx::query(begin).execute(&mut *client).await?;
    if way == Way::Lock {
        let lock = sqlx::query("select pg_advisory_xact_lock(hashtextextended($1, 0))");
        lock.bind(email).execute(&mut *client).await?;
    }
    let look = sqlx::query_scalar("select exists (select from users where email = $1)");
    let taken: bool = look.bind(email).fetch_one(&mut *client).await?;
    // Nobody writes before all have looked; but whoever waits for a lock cannot look yet.
    if way != Way::Lock && first {
        all_looked.wait().await;
    }
    if !taken {
        let insert =
            "insert into users (email, name, city, born) values ($1, 'Ada', 'Rome', '2001-12-31')";
        sqlx::query(insert).bind(email).execute(&mut *client).await?;
    }
    sqlx::query("commit").execute(&mut *client).await.map(drop)
}
