//! What do a thousand fast queries cost, and who sees them?

use std::time::Instant;

use conform::expect::json_of;
use lab::{Experiment, Lab, Need, Sabotage, Service, harness::eventually};
use lab::{load::median, skip, stack::own::OwnServer};
use sqlx::{Connection, PgConnection};

use super::fixture::Fixture;
use crate::cases::client::found;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Users that are looked up, one by one
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(i64).range(100..=5_000))]
    lookups: i64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "n-plus-one",
        "Each of a thousand lookups is healthy, and the log of slow queries has none of them. Counted by statement they are at hand. \
         One query with `= any` returns the same rows from fewer pages, in one round trip; so do `unnest` and a join",
        &["--lookups", "300"],
        run,
    )
    .needs(&[Need::Own(Service::Postgres)])
    .sabotage(Sabotage {
        file: "src/store/slow.sql",
        replace: "order by total_exec_time desc",
        with: "order by max_exec_time",
        check: "statements in the order of their total time",
    })
}

/// How often all are fetched at once.
const AGAIN: u32 = 5;
const LOOKUP: &str = "select id, name from users where id = $1";
const ANY: &str = "select id, name from users where id = any($1)";
const UNNEST: &str =
    "select u.id, u.name from unnest($1::bigint[]) as w (id) join users u on u.id = w.id";
/// The list that the page shows is in the database too, so nobody has to send it.
const JOIN: &str = "select u.id, u.name from listed l join users u on u.id = l.user_id";
/// The remedies.
const AT_ONCE: [(&str, &str); 3] = [("= any", ANY), ("unnest", UNNEST), ("a join", JOIN)];

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let mut server = lab.own_server(Service::Postgres).await?;
    count_statements(&mut server).await?;
    let fixture = Fixture::on(&server.url()?, i64::max(20_000, params.lookups * 10)).await?;
    fixture.sql("create extension pg_stat_statements").await?;
    let (_child, client) = fixture.start().await?;
    lab.check_eq("findings for one lookup", 0, found(&client.diagnose("by-id").await?).len());
    lab.progress(1, 2, "lookups");
    let ids: Vec<i64> = (1..=params.lookups).collect();
    let list = "create table listed as select id as user_id from users where id <=";
    fixture.sql(&format!("{list} {}; analyze listed", params.lookups)).await?;
    // One connection, so that no pool asks it first whether it is alive; and each statement is prepared before it is measured.
    let mut session = fixture.connect().await?;
    one_by_one(&mut session, &ids[..1]).await?;
    for (_, sql) in AT_ONCE {
        at_once(&mut session, sql, &ids[..1]).await?;
    }
    fixture.sql("select pg_stat_statements_reset()").await?;
    let begun = Instant::now();
    let all = one_by_one(&mut session, &ids).await?;
    let slowly = begun.elapsed().as_secs_f64();
    let mut quickly = Vec::new();
    for (name, sql) in AT_ONCE {
        let (mut times, mut same) = (Vec::new(), true);
        for _ in 0..AGAIN {
            let begun = Instant::now();
            let users = at_once(&mut session, sql, &ids).await?;
            times.push(begun.elapsed().as_secs_f64());
            same &= users == all;
        }
        lab.check_eq(format!("with {name}: the rows are the same"), true, same);
        quickly.push(median(times));
    }
    let slow = json_of(client.target.get("slow").await?, 200).await?;
    let items = slow["items"].as_array().cloned().unwrap_or_default();
    let totals: Vec<_> = items.iter().filter_map(|it| it["total_ms"].as_f64()).collect();
    let sorted = !totals.is_empty() && totals.is_sorted_by(|a, b| a >= b);
    lab.check_eq("statements in the order of their total time", true, sorted);
    let number = |sql: &str, field: &str| {
        let item = items.iter().find(|it| it["sql"] == sql);
        item.and_then(|it| it[field].as_f64()).unwrap_or_default()
    };
    let calls = number(LOOKUP, "calls");
    lab.check_eq("lookups that are counted as one statement", params.lookups as f64, calls);
    let slowest = items.iter().filter_map(|it| it["slowest_ms"].as_f64()).fold(0.0, f64::max);
    lab.figure(
        "slowest single lookup ÷ slowest statement",
        number(LOOKUP, "slowest_ms") / slowest,
        "",
    );
    let more = number(LOOKUP, "pages") * f64::from(AGAIN) / number(ANY, "pages");
    lab.check("pages: one by one ÷ at once", "more than 1", more, more > 1.0);
    let ratio = slowly / quickly[0];
    lab.figure("time of the program: one by one ÷ at once, on loopback", ratio, "");
    for ((name, sql), time) in AT_ONCE.into_iter().zip(quickly).skip(1) {
        let more = number(LOOKUP, "pages") * f64::from(AGAIN) / number(sql, "pages");
        lab.figure(format!("with {name}: pages, one by one ÷ at once"), more, "");
        let ratio = slowly / time;
        lab.figure(format!("with {name}: time of the program, one by one ÷ at once"), ratio, "");
    }
    let rows = items.iter().take(8).map(|it| {
        let text = |field: &str| it[field].to_string();
        let sql: String = it["sql"].as_str().unwrap_or_default().chars().take(80).collect();
        vec![sql.replace('\n', " "), text("calls"), text("total_ms"), text("slowest_ms")]
    });
    let columns = ["statement", "calls", "ms in all", "ms, slowest"];
    lab.table("What the server has counted", &columns, rows.collect::<Vec<Vec<String>>>());
    logged(&lab, &fixture).await
}

/// What the server's log of slow queries has. A query that is slow comes last, so that a log without lookups proves something.
async fn logged(lab: &Lab, fixture: &Fixture) -> anyhow::Result<()> {
    fixture.sql("select pg_sleep(0.8)").await?;
    let read = "select pg_read_file(pg_current_logfile())";
    let log = eventually("the log has the query that sleeps", async || {
        let log: String = sqlx::query_scalar(read).fetch_one(&fixture.pool).await?;
        Ok(log.contains("pg_sleep").then_some(log))
    })
    .await?;
    lab.check_eq("lookups in the log of queries above 500 ms", 0, log.matches(LOOKUP).count());
    Ok(())
}

async fn one_by_one(session: &mut PgConnection, ids: &[i64]) -> anyhow::Result<Vec<(i64, String)>> {
    let mut users = Vec::new();
    for id in ids {
        users.push(sqlx::query_as(LOOKUP).bind(id).fetch_one(&mut *session).await?);
    }
    Ok(users)
}

async fn at_once(
    session: &mut PgConnection,
    sql: &'static str,
    ids: &[i64],
) -> anyhow::Result<Vec<(i64, String)>> {
    let mut query = sqlx::query_as::<_, (i64, String)>(sql);
    if sql != JOIN {
        query = query.bind(ids);
    }
    let mut users = query.fetch_all(session).await?;
    users.sort_unstable();
    Ok(users)
}

/// Starts the server again with the library that counts, if it has it, and with a log of slow queries.
async fn count_statements(server: &mut OwnServer) -> anyhow::Result<()> {
    let mut admin = PgConnection::connect(&server.url()?).await?;
    let there =
        "select exists (select from pg_available_extensions where name = 'pg_stat_statements')";
    if !sqlx::query_scalar(there).fetch_one(&mut admin).await? {
        return Err(skip("this server has no pg_stat_statements"));
    }
    for set in [
        "alter system set shared_preload_libraries = 'pg_stat_statements'",
        "alter system set logging_collector = on",
        "alter system set log_directory = 'slow-log'",
        "alter system set log_min_duration_statement = '500ms'",
    ] {
        sqlx::query(set).execute(&mut admin).await?;
    }
    admin.close().await?;
    server.kill().await?;
    server.restart().await
}
