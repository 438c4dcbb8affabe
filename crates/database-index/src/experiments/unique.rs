//! Two users must never have one address: who keeps this rule when a hundred clients want the same one?

use std::{sync::Arc, time::Instant};

use futures_util::future::try_join_all;
use lab::{Experiment, Lab, Sabotage};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::{sync::Barrier, task::JoinSet};

use super::fixture::Fixture;
use crate::{cases::client::Client, error::code};

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
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    LookThenInsert,
    Lock,
    Serializable,
    UniqueIndex,
}

impl Way {
    const ALL: [Self; 4] =
        [Self::LookThenInsert, Self::Lock, Self::Serializable, Self::UniqueIndex];

    const fn name(self) -> &'static str {
        match self {
            Self::LookThenInsert => "look, then insert, at read committed",
            Self::Lock => "by an advisory lock on the address",
            Self::Serializable => "by serializable transactions",
            Self::UniqueIndex => "by a unique index",
        }
    }
}

/// Connections that are left to others.
const OTHERS: i64 = 30;

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, 1_000).await?;
    let (_child, client) = fixture.start().await?;
    let free = "select current_setting('max_connections')::bigint - count(*) from pg_stat_activity";
    let most = (fixture.number(free).await? - OTHERS).max(2);
    let many = i64::from(params.clients).min(most);
    if many < i64::from(params.clients) {
        lab.text(format!("This server has room for {many} clients."));
    }
    let mut clients = try_join_all((0..many).map(|_| connect(&fixture))).await?;
    let mut rows = Vec::new();
    for (n, way) in (0..).zip(Way::ALL) {
        lab.progress(n, 5, way.name());
        if way == Way::UniqueIndex {
            // What the first way has left would be in the way.
            fixture.sql("delete from users where email like 'wanted%'").await?;
            client.build("idx_email", &json!({ "columns": ["email"], "unique": true })).await?;
        }
        let (mut twice, mut none, mut refused) = (0, 0, 0);
        let begun = Instant::now();
        for round in 0..params.rounds {
            let email = format!("wanted{n}-{round}@example.org");
            let again;
            (clients, again) = at_once(clients, way, &email).await?;
            refused += again;
            let users = users(&fixture, &email).await?;
            (twice, none) = (twice + u16::from(users > 1), none + u16::from(users == 0));
        }
        let milliseconds = begun.elapsed().as_secs_f64() * 1_000.0 / f64::from(params.rounds);
        let cells = [twice.to_string(), refused.to_string(), format!("{milliseconds:.0}")];
        rows.push([vec![way.name().to_owned()], cells.to_vec()].concat());
        let check = format!("{}: addresses that two users have", way.name());
        if way == Way::LookThenInsert {
            let least = params.rounds.div_ceil(2);
            lab.check(check, format!("{least} at least"), twice, twice >= least);
        } else {
            lab.check_eq(check, 0, twice);
            lab.check_eq(format!("{}: addresses that nobody has", way.name()), 0, none);
        }
    }
    drop(clients);
    let columns =
        ["way", "addresses that two users have", "attempts that had to be made again", "ms each"];
    let title = format!("{} addresses, each wanted by {many} clients at once", params.rounds);
    lab.table(title, &columns, rows);
    lab.progress(4, 5, "by the program, with the unique index");
    by_the_program(&lab, &fixture, &client, params).await
}

/// The program looks at nothing: it inserts, and says what the index says.
async fn by_the_program(
    lab: &Lab,
    fixture: &Fixture,
    client: &Client,
    params: Params,
) -> anyhow::Result<()> {
    let user = client.user("asked");
    let bodies = vec![user.clone(); params.clients.into()];
    let answers = client.target.post_together("users", &bodies).await?;
    let clear = answers.iter().filter(|(it, _)| [201, 409].contains(&it.status().as_u16()));
    let email = user["email"].as_str().unwrap_or_default();
    lab.check_eq("POST /users: users who have the address", 1, users(fixture, email).await?);
    let check = "POST /users: clients that were told 201 or 409";
    lab.check_eq(check, params.clients.into(), clear.count());
    Ok(())
}

async fn connect(fixture: &Fixture) -> anyhow::Result<PgConnection> {
    let mut client = PgConnection::connect(fixture.database.url()).await?;
    // A commit that is refused has ended its transaction, and PostgreSQL warns of the rollback that follows.
    sqlx::query("set client_min_messages = error").execute(&mut client).await?;
    Ok(client)
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
    if way == Way::UniqueIndex {
        all_looked.wait().await;
        let insert = format!("{INSERT} on conflict do nothing");
        return insert_by(client, &insert, email).await;
    }
    let begin =
        if way == Way::Serializable { "begin isolation level serializable" } else { "begin" };
    sqlx::query(begin).execute(&mut *client).await?;
    if way == Way::Lock {
        // All are there; but nobody can wait for the others while it has the lock.
        all_looked.wait().await;
        let lock = sqlx::query("select pg_advisory_xact_lock(hashtextextended($1, 0))");
        lock.bind(email).execute(&mut *client).await?;
    }
    let look = sqlx::query_scalar("select exists (select from users where email = $1)");
    let taken: bool = look.bind(email).fetch_one(&mut *client).await?;
    // Nobody writes before all have looked.
    if way != Way::Lock && first {
        all_looked.wait().await;
    }
    if !taken {
        insert_by(client, INSERT, email).await?;
    }
    sqlx::query("commit").execute(&mut *client).await.map(drop)
}

const INSERT: &str =
    "insert into users (email, name, city, born) values ($1, 'Ada', 'Rome', '2001-12-31')";

async fn insert_by(client: &mut PgConnection, sql: &str, email: &str) -> sqlx::Result<()> {
    let insert = sqlx::query(AssertSqlSafe(sql.to_owned())).bind(email);
    insert.execute(client).await.map(drop)
}
