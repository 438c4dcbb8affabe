//! Is a prepared statement fast five times, and then slow?

use conform::expect::json_of;
use lab::{Experiment, Lab, Sabotage};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection, types::Json};

use super::{Rows, fixture::Fixture};
use crate::cases::client::{found, pages};
use crate::store::execute;

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "generic-plan",
        "A generic plan knows no value. For the user who has most events it reads many times the pages, and the clinic calls it a wrong \
         estimate. After five runs PostgreSQL takes it if it costs no more, by estimate, than the first five runs on average. So the \
         first five values decide: after users with many events it takes it for all that follow, after users with few it does not",
        Rows::QUICK,
        run,
    )
    .sabotage(Sabotage {
        file: "src/finding.rs",
        replace: "came >= expected * TENFOLD || ",
        with: "",
        check: "the first finding for the generic plan",
    })
}

const LATEST: &str = "prepare latest(bigint) as
    select id, kind from events where user_id = $1 order by id desc limit 20";
const BUSY: &str = "prepare busy(bigint) as
    select id, kind from events where user_id = $1 order by id desc limit 20";
const BY_KEY: &str = "prepare by_key(bigint) as select id, kind from events where id = $1";

async fn run(params: Rows, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, params.rows).await?;
    let (_child, client) = fixture.start().await?;
    fixture.sql("create index events_user on events (user_id)").await?;
    fixture.sql("analyze events").await?;
    let mut session = fixture.connect().await?;
    for sql in ["set max_parallel_workers_per_gather = 0", "set jit = off", LATEST, BUSY, BY_KEY] {
        execute(&mut session, sql).await?;
    }
    for user in 1..=10 {
        // Users who have more than a hundred events each: to walk from the newest event until twenty are found costs much.
        execute(&mut session, &format!("execute busy({})", 20 + user)).await?;
        // Users who have a few events each.
        execute(&mut session, &format!("execute latest({})", params.rows / 25 + user)).await?;
        execute(&mut session, &format!("execute by_key({user})")).await?;
    }
    for (name, check, expected) in [
        (
            "busy",
            "runs of ten with the generic plan: the latest of a user, after users with many",
            5,
        ),
        (
            "latest",
            "runs of ten with the generic plan: the latest of a user, after users with few",
            0,
        ),
        ("by_key", "runs of ten with the generic plan: by key", 5),
    ] {
        let count = "select generic_plans from pg_prepared_statements where name = $1";
        let count: i64 = sqlx::query_scalar(count).bind(name).fetch_one(&mut session).await?;
        lab.check_eq(check, expected, count);
    }
    let mut read = Vec::new();
    for (mode, name) in
        [("force_custom_plan", "latest"), ("force_generic_plan", "latest"), ("auto", "busy")]
    {
        execute(&mut session, &format!("set plan_cache_mode = {mode}")).await?;
        let plan = explained(&mut session, name).await?;
        let answer = client.target.post("diagnosis", &json!({ "plan": plan })).await?;
        read.push(json_of(answer, 200).await?);
    }
    let first = |at: usize| found(&read[at]).into_iter().next().unwrap_or_default();
    lab.check_eq("the first finding for the custom plan", String::new(), first(0));
    lab.check_eq("the first finding for the generic plan", "misestimate".to_owned(), first(1));
    let check = "the first finding for the generic plan that nobody forced";
    lab.check_eq(check, "misestimate".to_owned(), first(2));
    for (at, check) in [
        (1, "pages for the user with most events: generic ÷ custom plan"),
        (2, "pages for the user with most events: after users with many, unforced ÷ custom plan"),
    ] {
        let ratio = pages(&read[at]) / pages(&read[0]);
        lab.check(check, "at least 10", ratio, ratio >= 10.0);
    }
    Ok(())
}

/// The plan of this prepared statement for the user with most events.
async fn explained(session: &mut PgConnection, name: &str) -> anyhow::Result<Value> {
    let explain = format!("explain (analyze, buffers, format json) execute {name}(1)");
    // A statement that sqlx would keep has a plan of its own, and so would not follow the setting.
    let explain = sqlx::query_scalar(AssertSqlSafe(explain)).persistent(false);
    let Json(plan): Json<Value> = explain.fetch_one(session).await?;
    Ok(plan)
}
