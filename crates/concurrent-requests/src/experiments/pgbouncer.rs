//! Hundreds of clients want one PostgreSQL. What does a pooler between them give, and what does it take?

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use lab::{Experiment, Lab, Need, Sabotage, Service};
use sqlx::{Connection, Executor, PgConnection, Row, raw_sql};

use super::fixture::{Fixture, product};

/// Connections between PgBouncer and PostgreSQL.
const SHARED: i64 = 20;
/// Connections of the shop.
const POOL: u32 = 10;
/// Each way to its database and back.
const DELAY: Duration = Duration::from_millis(5);

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Clients at the same time; the PostgreSQL of the lab takes 300
    #[arg(long, default_value_t = 900, value_parser = clap::value_parser!(u32).range(310..=950))]
    clients: u32,
    /// New connections, and statements, whose cost is measured
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    costs: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "pgbouncer",
        "Of hundreds of clients that connect to PostgreSQL, some are refused. Through PgBouncer all share twenty connections, \
         and all clients of one shop share its ten. In transaction mode what belongs to a session breaks: PREPARE, SET, \
         session-level advisory locks, LISTEN",
        &["--clients", "310", "--costs", "10"],
        run,
    )
    .needs(&[Need::Own(Service::Postgres), Need::Own(Service::PgBouncer)])
    .sabotage(Sabotage {
        file: "src/store.rs",
        replace: "let limits = Limits { connections, timeout, pause: Duration::from_secs(2) };",
        with: "let limits = Limits { connections: connections * 3, timeout, pause: Duration::from_secs(2) };",
        check: "sessions in PostgreSQL for all clients of the shop",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    lab::open_files::allow_many();
    lab.progress(0, 4, "starting PostgreSQL and PgBouncer");
    let postgres = lab.own_server(Service::Postgres).await?;
    let direct = postgres.url()?;
    let settings = [("default_pool_size", SHARED.to_string()), ("max_client_conn", "2000".into())];
    let pooler =
        lab.pgbouncer(&direct, &settings.each_ref().map(|(a, b)| (*a, b.as_str()))).await?;
    let pooled = pooler.url()?;
    lab.progress(1, 4, "clients at the same time");
    let mut rows = Vec::new();
    for (name, url) in [("direct", &direct), ("through PgBouncer", &pooled)] {
        let (served, sessions) = together(url, &direct, params.clients).await?;
        rows.push([name.to_owned(), served.to_string(), sessions.to_string()].to_vec());
        let check = format!("{name}: clients that were served, of {}", params.clients);
        if name == "direct" {
            lab.check(check, "fewer than all", served, served < params.clients as usize);
        } else {
            lab.check_eq(check, params.clients as usize, served);
            let check = "sessions in PostgreSQL for all clients of PgBouncer";
            lab.check(check, format!("{SHARED} or fewer"), sessions, sessions <= SHARED);
        }
    }
    let (served, sessions) = shop(&lab, params.clients).await?;
    rows.push(
        ["clients of the shop".to_owned(), served.to_string(), sessions.to_string()].to_vec(),
    );
    let check = "sessions in PostgreSQL for all clients of the shop";
    lab.check(check, format!("{POOL} or fewer"), sessions, sessions <= POOL.into());
    lab.table("Clients at the same time", &["clients", "served", "sessions"], rows);
    lab.progress(2, 4, "what breaks in transaction mode");
    breaks(&lab, &direct, &pooled).await?;
    lab.progress(3, 4, "what connections and statements cost");
    let mut costs = Vec::new();
    for (name, url) in [("direct", &direct), ("through PgBouncer", &pooled)] {
        let cost = cost(url, params.costs).await?;
        lab.figure(format!("{name}: new connections a second"), cost[0], "connections/s");
        lab.figure(format!("{name}: statements a second of one client"), cost[1], "statements/s");
        costs.push(cost);
    }
    let name = "new connections a second: through PgBouncer ÷ direct";
    lab.figure(name, costs[1][0] / costs[0][0], "");
    let name = "statements a second of one client: through PgBouncer ÷ direct";
    lab.figure(name, costs[1][1] / costs[0][1], "");
    Ok(())
}

/// Each client connects, asks something and stays. How many were served, and the sessions in PostgreSQL then.
async fn together(url: &str, direct: &str, clients: u32) -> anyhow::Result<(usize, i64)> {
    // One for us, before the others take all that there are.
    let mut ours = PgConnection::connect(direct).await?;
    let clients = join_all((0..clients).map(async |_| {
        let mut client = PgConnection::connect(url).await?;
        client.execute(raw_sql("select pg_sleep(0.01)")).await?;
        Ok::<_, sqlx::Error>(client)
    }));
    let clients: Vec<_> = clients.await.into_iter().flatten().collect();
    let sessions = "select count(*) from pg_stat_activity
                    where backend_type = 'client backend' and pid <> pg_backend_pid()";
    let sessions = sqlx::query_scalar(sessions).fetch_one(&mut ours).await?;
    Ok((clients.len(), sessions))
}

/// The same for clients of the shop, each with an HTTP connection of its own.
async fn shop(lab: &Lab, clients: u32) -> anyhow::Result<(usize, i64)> {
    let fixture = Fixture::of(lab, 1).await?;
    // Far from its database, so that all of its connections are needed.
    let words = ["--in-flight", "1000", "--timeout-ms", "60000"];
    let far = fixture.far(POOL, DELAY, &words).await?;
    let answers = join_all((0..clients).map(|n| {
        let (clients, path) = (&far.clients, product(n.into()));
        async move { clients.get(&path).await }
    }));
    let served = answers.await.into_iter().filter(|it| matches!(it, Ok(200))).count();
    let sessions = "select count(*) from pg_stat_activity
                    where datname = current_database() and backend_type = 'client backend'";
    let sessions: i64 = sqlx::query_scalar(sessions).fetch_one(&fixture.pool).await?;
    Ok((served, sessions - i64::from(fixture.pool.size())))
}

/// What a client of a pooler that lends connections for a transaction does not find again in its next one, and a client of
/// PostgreSQL does. Between the two, another client holds the connection on which the first was done.
async fn breaks(lab: &Lab, direct: &str, pooled: &str) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for (way, url, kept) in [("direct", direct, true), ("through PgBouncer", pooled, false)] {
        rows.extend(keeps(lab, way, url, kept).await?);
    }
    let columns = ["clients", "what", "first", "then", "answer"];
    lab.table("What the next transaction finds", &columns, rows);
    named_statement(lab, pooled).await
}

/// What becomes of a statement that a driver has prepared under a name. PgBouncer 1.21 and later can keep it, so that depends
/// on the version and its settings: it is told, and not judged.
async fn named_statement(lab: &Lab, pooled: &str) -> anyhow::Result<()> {
    let mut one = PgConnection::connect(pooled).await?;
    let mut other = PgConnection::connect(pooled).await?;
    // sqlx gives it a name, and uses that name the next time.
    sqlx::query("select 1").fetch_one(&mut one).await?;
    other.execute(raw_sql("begin")).await?;
    other.execute(raw_sql("select 1")).await?;
    let again = match sqlx::query("select 1").fetch_one(&mut one).await {
        Ok(_) => "found".to_owned(),
        Err(sqlx::Error::Database(error)) => error.message().to_owned(),
        Err(error) => return Err(error.into()),
    };
    other.execute(raw_sql("rollback")).await?;
    other.execute(raw_sql("discard all")).await?;
    lab.text(format!(
        "A driver's named statement, after another client held the connection: {again}."
    ));
    Ok(())
}

/// What each kind of session state becomes on this way, which keeps it or not.
async fn keeps(lab: &Lab, way: &str, url: &str, kept: bool) -> anyhow::Result<Vec<Vec<String>>> {
    let mut rows = Vec::new();
    for (what, first, then, left) in [
        ("PREPARE", "prepare one as select 'found'", "execute one", "found"),
        ("SET", "set statement_timeout = '7s'", "show statement_timeout", "7s"),
        (
            "session-level advisory lock",
            "select pg_advisory_lock(1)",
            "select max(locktype) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
            "advisory",
        ),
        (
            "LISTEN",
            "listen sale",
            "select string_agg(it, ' ') from pg_listening_channels() as it",
            "sale",
        ),
    ] {
        let mut one = PgConnection::connect(url).await?;
        let mut other = PgConnection::connect(url).await?;
        one.execute(raw_sql(first)).await?;
        // PgBouncer lends the connection that came back last.
        other.execute(raw_sql("begin")).await?;
        other.execute(raw_sql("select 1")).await?;
        let seen = match one.fetch_one(raw_sql(then)).await {
            Ok(row) => row.try_get::<Option<String>, _>(0)?.unwrap_or_else(|| "nothing".to_owned()),
            Err(sqlx::Error::Database(error)) => error.message().to_owned(),
            Err(error) => return Err(error.into()),
        };
        other.execute(raw_sql("rollback")).await?;
        // What was left behind on the connection would reach the next one who gets it.
        other.execute(raw_sql("discard all")).await?;
        // With it go its locks.
        one.close().await?;
        let check =
            format!("{way}, {what}: the next transaction finds what the one before it left");
        lab.check_eq(check, kept, seen == left);
        rows.push([way, what, first, then, &seen].map(str::to_owned).to_vec());
    }
    Ok(rows)
}

/// New connections a second, one after another, and statements a second on one that stays.
async fn cost(url: &str, count: u32) -> anyhow::Result<[f64; 2]> {
    let begun = Instant::now();
    for _ in 0..count {
        let mut client = PgConnection::connect(url).await?;
        client.execute(raw_sql("select 1")).await?;
        client.close().await?;
    }
    let connections = f64::from(count) / begun.elapsed().as_secs_f64();
    let mut client = PgConnection::connect(url).await?;
    let begun = Instant::now();
    for _ in 0..10 * count {
        client.execute(raw_sql("select 1")).await?;
    }
    Ok([connections, f64::from(10 * count) / begun.elapsed().as_secs_f64()])
}
