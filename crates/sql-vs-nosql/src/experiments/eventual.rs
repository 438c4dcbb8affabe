//! Does a client see what it has just written? On a replica that is some milliseconds away, mostly not.

use std::time::{Duration, Instant};

use anyhow::Context;
use lab::{
    Experiment, Lab, Need, Sabotage, Service,
    child::Child,
    database::Database,
    fault::{Fault, Proxy},
    group::{
        PostgresGroup,
        postgres::{ASYNCHRONOUS, PRIMARY},
        until,
    },
    load::median,
    needs::Group,
};
use redis::{AsyncCommands, aio::MultiplexedConnection, cmd};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use url::Url;

use crate::{
    MIGRATIONS,
    cases::client::{Client, new_id},
};
use conform::http::header;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Writes with a read right after each, for each way
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(5..=10_000))]
    writes: u32,
    /// Milliseconds that each byte is under way to a replica
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u64).range(2..=1_000))]
    delay: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "eventual",
        "Eventual consistency is not a matter of SQL or NoSQL: right after a write, an asynchronous replica of PostgreSQL and \
         one of Redis both still have the old value; reading the primary, naming the position of the write, which the \
         replica serves as soon as it has it, and waiting for the replica each give the new one",
        &["--writes", "10", "--delay", "60"],
        run,
    )
    .needs(&[Need::Group(Group::PostgresStandbys), Need::Own(Service::Redis)])
    .sabotage(Sabotage {
        file: "src/postgres.rs",
        replace: "matches!(is_there, Ok(Some(true))).then_some(replica)",
        with: "is_there.is_ok().then_some(replica)",
        check: "PostgreSQL, read at the replica after the position of the write: stale reads",
    })
    .sabotage(Sabotage {
        file: "src/postgres.rs",
        replace: "pg_last_wal_replay_lsn() >= $1::text::pg_lsn",
        with: "pg_last_wal_replay_lsn() >= $1::text::pg_lsn and not pg_is_in_recovery()",
        check: "PostgreSQL, read at the replica after the position of the write: writes that the replica served later",
    })
}

/// What reads after writes have seen.
#[derive(Default)]
struct Seen {
    stale: u32,
    /// How many of the first reads after a write the replica served.
    by_replica: u32,
    /// How many writes the replica served in the end, to a client that named their position.
    later: u32,
    /// How long that took.
    after: Vec<f64>,
    writes: Vec<f64>,
    /// How long an old value could be read.
    old_for: Vec<f64>,
}

impl Seen {
    /// Who answered? A client that reads its own writes at the primary only needs no replica.
    fn judge_servers(&self, lab: &Lab, name: &str, all: u32, way: Way) {
        let check = format!("{name}: reads that the replica served");
        match way {
            Way::Replica | Way::Wait => lab.check_eq(check, all, self.by_replica),
            // This program has no replica.
            Way::Primary => {}
            Way::Position => {
                let most = all / 2;
                let expected = format!("{most} or fewer, since it is not there yet");
                lab.check(check, expected, self.by_replica, self.by_replica <= most);
                let check = format!("{name}: writes that the replica served later");
                lab.check_eq(check, all, self.later);
                let figure = format!("{name}: the replica serves it after, median");
                lab.figure(figure, median(self.after.clone()), "ms");
            }
        }
    }

    fn judge(self, lab: &Lab, name: &str, all: u32, is_promised: bool) -> [String; 5] {
        let check = format!("{name}: stale reads");
        if is_promised {
            lab.check_eq(check, 0, self.stale);
        } else {
            let most = all * 9 / 10;
            lab.check(check, format!("{most} or more of {all}"), self.stale, self.stale >= most);
            lab.figure(
                format!("{name}: an old value is read for, median"),
                median(self.old_for),
                "ms",
            );
        }
        let write = median(self.writes);
        lab.figure(format!("{name}: a write, median"), write, "ms");
        let [all, stale, by_replica] = [all, self.stale, self.by_replica].map(|it| it.to_string());
        [name.to_owned(), all, stale, by_replica, format!("{write:.2}")]
    }
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    lab.progress(0, 3, "PostgreSQL with a replica");
    let mut rows = postgres(&params, &lab).await?;
    lab.progress(2, 3, "Redis with a replica");
    rows.extend(redis(&params, &lab).await?);
    let columns = ["way", "writes", "stale reads", "served by the replica", "a write (ms, median)"];
    let rows = rows.into_iter().map(|row| row.to_vec()).collect();
    lab.table("A read right after a write", &columns, rows);
    Ok(())
}

/// How a client reads what it has written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Replica,
    Primary,
    Position,
    Wait,
}

async fn postgres(params: &Params, lab: &Lab) -> anyhow::Result<Vec<[String; 5]>> {
    let group = lab.group::<PostgresGroup>().await?;
    let (primary, standby) = (&group.members[PRIMARY], &group.members[ASYNCHRONOUS]);
    let database = Database::fresh_on(&primary.url()?, "sql-vs-nosql", &MIGRATIONS).await?;
    // The log takes its time from here to the standby.
    let proxy = Proxy::to_url(&primary.url()?).await?;
    let mut admin = PgConnection::connect(&standby.url()?).await?;
    let conninfo: String =
        sqlx::query_scalar("show primary_conninfo").fetch_one(&mut admin).await?;
    let port = |port: u16| format!("port={port}");
    let far = conninfo.replace(&port(primary.port()?), &port(proxy.address().port()));
    let far = format!("alter system set primary_conninfo = '{}'", far.replace('\'', "''"));
    sqlx::query(AssertSqlSafe(far)).execute(&mut admin).await?;
    sqlx::query("select pg_reload_conf()").execute(&mut admin).await?;
    until("the replica follows through the proxy", Duration::from_secs(30), || async {
        Ok((proxy.connections() > 0).then_some(()))
    })
    .await?;
    let mut replica = Url::parse(&standby.url()?)?;
    replica.set_path(database.name());
    until("the replica has the database", Duration::from_secs(30), || async {
        let mut there = PgConnection::connect(replica.as_str()).await?;
        let table = "select to_regclass('customers') is not null";
        let is_there: bool = sqlx::query_scalar(table).fetch_one(&mut there).await?;
        Ok(is_there.then_some(()))
    })
    .await?;
    let serve = || Child::serve("sql-vs-nosql").env("DATABASE_URL", database.url());
    let far = serve().args(&["--replica", replica.as_str()]).start().await?;
    let near = serve().start().await?;
    let (far, near) =
        (Client::at(far.url()).map(|it| (far, it))?, Client::at(near.url()).map(|it| (near, it))?);
    let id = new_id();
    write(&near.1, &id, 0).await?;
    until("the replica has the customer", Duration::from_secs(30), || async {
        let mut there = PgConnection::connect(replica.as_str()).await?;
        let select = sqlx::query_scalar("select exists (select from customers where id = $1)");
        let is_there: bool = select.bind(&id).fetch_one(&mut there).await?;
        Ok(is_there.then_some(()))
    })
    .await?;
    // A connection to the replica is there before anything is counted. If it never serves, the checks say so.
    let _ = until("the replica serves", Duration::from_secs(5), || async {
        let answer = far.1.target.get(&format!("customers/{id}")).await?;
        Ok((header(&answer, "served-by") == "replica").then_some(()))
    })
    .await;
    proxy.set(Fault::Delay(Duration::from_millis(params.delay)));
    let mut rows = Vec::new();
    for (way, name) in [
        (Way::Replica, "PostgreSQL, read at the replica"),
        (Way::Primary, "PostgreSQL, read at the primary"),
        (Way::Position, "PostgreSQL, read at the replica after the position of the write"),
        (Way::Wait, "PostgreSQL, the commit waits for the replica"),
    ] {
        if way == Way::Wait {
            group.wait_for_commits_on(PRIMARY, Some(ASYNCHRONOUS)).await?;
            let mut admin = PgConnection::connect(&primary.url()?).await?;
            for set in
                ["alter system set synchronous_commit = remote_apply", "select pg_reload_conf()"]
            {
                sqlx::query(set).execute(&mut admin).await?;
            }
            until("commits wait for the replica", Duration::from_secs(30), || async {
                let mut look = PgConnection::connect(&primary.url()?).await?;
                let setting: String = sqlx::query_scalar("show synchronous_commit").fetch_one(&mut look).await?;
                let state = "select count(*) from pg_stat_replication where sync_state = 'sync' and application_name = 'member_2'";
                let sync: i64 = sqlx::query_scalar(state).fetch_one(&mut look).await?;
                Ok((setting == "remote_apply" && sync == 1).then_some(()))
            })
            .await?;
        }
        let client = if way == Way::Primary { &near.1 } else { &far.1 };
        let seen = writes(params, client, &id, way).await?;
        seen.judge_servers(lab, name, params.writes, way);
        rows.push(seen.judge(lab, name, params.writes, way != Way::Replica));
    }
    // Dropping a database is a commit too.
    group.wait_for_commits_on(PRIMARY, None).await?;
    proxy.heal();
    Ok(rows)
}

/// Writes number `n`; where in the log that is.
async fn write(client: &Client, id: &str, n: u32) -> anyhow::Result<String> {
    let body = json!({ "name": "Ada", "country": "GB", "n": n });
    let answer = client.put(&format!("customers/{id}"), &body).await?;
    anyhow::ensure!(answer.status().is_success(), "{answer:?}");
    Ok(header(&answer, "written-at").to_owned())
}

/// For one write to come to the replica.
const PATIENCE: Duration = Duration::from_secs(20);

async fn writes(params: &Params, client: &Client, id: &str, way: Way) -> anyhow::Result<Seen> {
    let (mut seen, path) = (Seen::default(), format!("customers/{id}"));
    for n in 1..=params.writes {
        let begun = Instant::now();
        let position = write(client, id, n).await?;
        seen.writes.push(begun.elapsed().as_secs_f64() * 1e3);
        let written = Instant::now();
        let read = || async {
            let mut request = client.target.request(reqwest::Method::GET, &path);
            if way == Way::Position {
                request = request.header("read-after", &position);
            }
            let answer = client.target.send(request).await?;
            let by_replica = header(&answer, "served-by") == "replica";
            let answer = conform::expect::json_of(answer, 200).await?;
            anyhow::Ok((answer["n"] == json!(n), by_replica))
        };
        let (is_new, by_replica) = read().await?;
        seen.by_replica += u32::from(by_replica);
        if !is_new {
            seen.stale += 1;
            // Also before the next write: the replica must not be behind by more than one.
            while !read().await?.0 {
                anyhow::ensure!(written.elapsed() < PATIENCE, "it never comes");
            }
            seen.old_for.push(written.elapsed().as_secs_f64() * 1e3);
        }
        // If the replica has not served one in all this time, the others need not be waited for.
        while way == Way::Position && seen.later == n - 1 && written.elapsed() < PATIENCE {
            let (is_new, by_replica) = read().await?;
            seen.stale += u32::from(!is_new);
            if by_replica {
                seen.later += 1;
                seen.after.push(written.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    Ok(seen)
}

async fn redis(params: &Params, lab: &Lab) -> anyhow::Result<Vec<[String; 5]>> {
    let (primary, replica) =
        (lab.own_server(Service::Redis).await?, lab.own_server(Service::Redis).await?);
    let proxy = Proxy::to_url(&primary.url()?).await?;
    let connect = async |url: String| {
        let client = redis::Client::open(url)?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        connection.set_response_timeout(Duration::from_secs(20));
        anyhow::Ok(connection)
    };
    let (mut one, mut other) = (connect(primary.url()?).await?, connect(replica.url()?).await?);
    let password = Url::parse(&primary.url()?)?.password().context("no password")?.to_owned();
    set(&mut one, "repl-diskless-sync-delay", "0").await?;
    set(&mut other, "masterauth", &password).await?;
    cmd("REPLICAOF").arg("127.0.0.1").arg(proxy.address().port()).exec_async(&mut other).await?;
    until("the replica follows", Duration::from_secs(30), || {
        let mut other = other.clone();
        async move {
            let about: String = cmd("INFO").arg("replication").query_async(&mut other).await?;
            Ok(about.contains("master_link_status:up").then_some(()))
        }
    })
    .await?;
    proxy.set(Fault::Delay(Duration::from_millis(params.delay)));
    let mut rows = Vec::new();
    for (way, name) in [
        (Way::Replica, "Redis, read at the replica"),
        (Way::Primary, "Redis, read at the primary"),
        (Way::Wait, "Redis, the writer WAITs for the replica"),
    ] {
        let mut seen = Seen::default();
        for n in 1..=params.writes {
            let begun = Instant::now();
            let () = one.set("n", n).await?;
            if way == Way::Wait {
                let heard: u32 = cmd("WAIT").arg(1).arg(20_000).query_async(&mut one).await?;
                anyhow::ensure!(heard == 1, "no replica has heard of it");
            }
            seen.writes.push(begun.elapsed().as_secs_f64() * 1e3);
            let written = Instant::now();
            let reader = if way == Way::Primary { &mut one } else { &mut other };
            seen.by_replica += u32::from(way != Way::Primary);
            if reader.get::<_, Option<u32>>("n").await? != Some(n) {
                seen.stale += 1;
                while reader.get::<_, Option<u32>>("n").await? != Some(n) {
                    anyhow::ensure!(written.elapsed() < PATIENCE, "it never comes");
                }
                seen.old_for.push(written.elapsed().as_secs_f64() * 1e3);
            }
        }
        rows.push(seen.judge(lab, name, params.writes, way != Way::Replica));
    }
    Ok(rows)
}

async fn set(redis: &mut MultiplexedConnection, name: &str, value: &str) -> anyhow::Result<()> {
    Ok(cmd("CONFIG").arg("SET").arg(name).arg(value).exec_async(redis).await?)
}
