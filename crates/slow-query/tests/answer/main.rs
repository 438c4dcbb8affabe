//! What needs a fault, or a look inside. It also runs the experiments, with quick parameters, and the cases.

use std::process::ExitCode;

use anyhow::ensure;
use conform::http::{header, lives_and_is_ready, problem};
use conform::target::{Target, eventually};
use lab::fault::{Fault, Proxy};
use lab::harness::{Outcome, Served, run};
use serde_json::json;
use slow_query::cases::client::{Client, found, pages};
use slow_query::experiments::fixture::{Fixture, WAITING};

fn main() -> ExitCode {
    run(slow_query::answer(), || Box::pin(serve_for_cases()), tests())
}

/// The program as its cases want it.
async fn serve_for_cases() -> anyhow::Result<Served> {
    let fixture = Fixture::fresh(50_000).await?;
    Ok(Served::new(fixture.serve().start().await?, fixture))
}

lab::tests![
    tables_are_filled_once_however_many_processes_start,
    a_remedy_whose_program_is_killed_half_way_leaves_the_database_as_it_was,
    a_remedy_whose_connection_is_ended_half_way_leaves_the_database_as_it_was,
    a_query_that_never_gets_its_lock_is_diagnosed_all_the_same,
    every_remedy_does_what_the_catalogue_says,
    taking_a_remedy_back_restores_the_plans,
    partitions_stand_alone_and_keep_what_was_written_meanwhile,
    a_database_that_is_away_is_told_and_the_next_request_works,
    the_service_says_that_it_lives_and_is_ready_and_stops_cleanly,
];

async fn tables_are_filled_once_however_many_processes_start() -> Outcome {
    let fixture = Fixture::fresh(0).await?;
    let fill = || fixture.store.fill_if_empty(2_000);
    tokio::try_join!(fill(), fill(), fill())?;
    ensure!(fixture.number("select count(*) from events").await? == 2_000);
    ensure!(fixture.number("select count(*) from loads").await? == 1_500);
    Ok(())
}

/// Indexes and statistics, and the remedies that are noted.
const OBJECTS: &str =
    "select (select count(*) from pg_index join pg_class on pg_class.oid = indrelid
        where relnamespace = 'public'::regnamespace)
    + (select count(*) from pg_statistic_ext) + (select count(*) from treatments)";

/// Begins a remedy that has to wait half-way: its index on `users` is made, and that on `events` waits for a writer.
async fn half_way(fixture: &Fixture, client: &Client) -> anyhow::Result<sqlx::PgConnection> {
    let mut writer = fixture.connect().await?;
    sqlx::raw_sql("begin; lock table events in row exclusive mode").execute(&mut writer).await?;
    let client = client.clone();
    // Its answer never comes: the program, or its connection, is killed.
    let _lost = tokio::spawn(async move { client.ask("of-name", "two-indexes", false).await });
    let making = "select count(*) from pg_stat_activity where datname = current_database()
        and query like 'create index%' and wait_event_type = 'Lock'";
    eventually("the second index waits", async || {
        Ok((fixture.number(making).await? > 0).then_some(()))
    })
    .await?;
    Ok(writer)
}

async fn a_remedy_whose_program_is_killed_half_way_leaves_the_database_as_it_was() -> Outcome {
    let fixture = Fixture::fresh(5_000).await?;
    let (mut child, client) = fixture.start().await?;
    let before = fixture.number(OBJECTS).await?;
    let mut writer = half_way(&fixture, &client).await?;
    child.kill().await?;
    sqlx::raw_sql("commit").execute(&mut writer).await?;
    // PostgreSQL sees that its client has gone when it has made the index.
    eventually("the transaction of the killed program ends", async || {
        let open = "select count(*) from pg_stat_activity where datname = current_database()
            and application_name = 'slow-query'";
        Ok((fixture.number(open).await? == 0).then_some(()))
    })
    .await?;
    ensure!(fixture.number(OBJECTS).await? == before);
    let (_again, client) = fixture.start().await?;
    ensure!(client.treat("of-name", "two-indexes", false).await?.effect == "helps");
    ensure!(fixture.number(OBJECTS).await? == before + 3);
    Ok(())
}

async fn a_remedy_whose_connection_is_ended_half_way_leaves_the_database_as_it_was() -> Outcome {
    let fixture = Fixture::fresh(5_000).await?;
    let (_child, client) = fixture.start().await?;
    let before = fixture.number(OBJECTS).await?;
    let _writer = half_way(&fixture, &client).await?;
    let end = "select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity
        where datname = current_database() and application_name = 'slow-query'";
    fixture.number(end).await?;
    ensure!(fixture.number(OBJECTS).await? == before);
    ensure!(client.in_effect("of-name").await? == json!([]));
    Ok(())
}

async fn a_query_that_never_gets_its_lock_is_diagnosed_all_the_same() -> Outcome {
    let fixture = Fixture::fresh(2_000).await?;
    let (_child, client) = fixture.start().await?;
    let mut holder = fixture.connect().await?;
    let lock = "begin; select id from users where id = 1 for update";
    sqlx::raw_sql(lock).execute(&mut holder).await?;
    let diagnosis = client.diagnose("busy-row").await?;
    ensure!(found(&diagnosis) == ["waits"], "{diagnosis}");
    ensure!(diagnosis["plan"].is_null() && diagnosis["rows"].is_null(), "{diagnosis}");
    let path = "patients/busy-row/remedies/plain-read";
    let refused = client.target.post(path, &json!({ "dry_run": true })).await?;
    ensure!(header(&refused, "retry-after") == "1", "{refused:?}");
    problem(refused, 503).await?;
    sqlx::raw_sql("commit").execute(&mut holder).await?;
    ensure!(found(&client.diagnose("busy-row").await?).is_empty());
    Ok(())
}

async fn every_remedy_does_what_the_catalogue_says() -> Outcome {
    let fixture = Fixture::fresh(50_000).await?;
    let (_child, client) = fixture.start().await?;
    let objects = fixture.number(OBJECTS).await?;
    let mut wrong = Vec::new();
    for patient in client.patients().await? {
        let name = patient["name"].as_str().unwrap_or_default();
        // Its effects need somebody who keeps the row locked: the experiment `waiting` tries them.
        if patient["cause"] == "waits" {
            continue;
        }
        for remedy in patient["remedies"].as_array().into_iter().flatten() {
            let remedy_name = remedy["name"].as_str().unwrap_or_default();
            let trial = client.try_out(name, remedy_name).await?;
            if remedy["effect"] != trial.effect.as_str() {
                let (before, after) = trial.pages();
                wrong.push(format!("{name} {remedy_name}: {} ({before}, {after})", trial.effect));
            }
        }
    }
    ensure!(wrong.is_empty(), "{wrong:#?}");
    ensure!(fixture.number(OBJECTS).await? == objects, "a dry run left something");
    Ok(())
}

async fn taking_a_remedy_back_restores_the_plans() -> Outcome {
    let fixture = Fixture::fresh(50_000).await?;
    let (_child, client) = fixture.start().await?;
    let objects = fixture.number(OBJECTS).await?;
    for (patient, remedy) in [
        ("one-device", "statistics"),
        ("of-name", "two-indexes"),
        ("one-device", "statistics-target"),
    ] {
        let before = pages(&client.diagnose(patient).await?);
        client.treat(patient, remedy, false).await?;
        ensure!(fixture.number(OBJECTS).await? > objects);
        ensure!(client.undo(patient, remedy).await?.status() == 204);
        let after = pages(&client.diagnose(patient).await?);
        ensure!(fixture.number(OBJECTS).await? == objects);
        // The statistics of single columns are a new sample, so an estimate may differ a little.
        ensure!((after - before).abs() < before / 10.0, "{patient} {remedy}: {before}, {after}");
    }
    Ok(())
}

async fn partitions_stand_alone_and_keep_what_was_written_meanwhile() -> Outcome {
    let fixture = Fixture::fresh(5_000).await?;
    let (_child, client) = fixture.start().await?;
    let objects = fixture.number(OBJECTS).await?;
    client.treat("by-user", "index-user", false).await?;
    problem(client.ask("buyers", "partitions", false).await?, 409).await?;
    ensure!(client.undo("by-user", "index-user").await?.status() == 204);
    client.treat("buyers", "partitions", false).await?;
    for (patient, remedy) in
        [("by-user", "index-user"), ("totals", "trigger"), ("by-user", "partitions")]
    {
        problem(client.ask(patient, remedy, false).await?, 409).await?;
    }
    fixture.sql("delete from events where id = 1").await?;
    fixture.sql("update events set url = '/moved' where id = 2").await?;
    fixture
        .sql(
            "insert into events (id, user_id, kind, url, created_at)
              select 1000000, user_id, kind, url, created_at from events where id = 3",
        )
        .await?;
    fixture.sql("create view clicks as select id from events where kind = 'click'").await?;
    problem(client.undo("buyers", "partitions").await?, 409).await?;
    fixture.sql("drop view clicks").await?;
    ensure!(client.undo("buyers", "partitions").await?.status() == 204);
    ensure!(fixture.number(OBJECTS).await? == objects);
    let kept = "select count(*) from events where id = 1000000 or id = 2 and url = '/moved'";
    ensure!(fixture.number(kept).await? == 2);
    ensure!(fixture.number("select count(*) from events where id > 1").await? == 5_000);
    ensure!(fixture.number("select count(*) from events").await? == 5_000);
    Ok(())
}

async fn a_database_that_is_away_is_told_and_the_next_request_works() -> Outcome {
    let fixture = Fixture::fresh(2_000).await?;
    let proxy = Proxy::to_url(fixture.database.url()).await?;
    let url = proxy.url(fixture.database.url())?;
    let child = fixture.serve().env("DATABASE_URL", url).start().await?;
    let client = Client::at(child.url())?;
    for fault in [Fault::Cut, Fault::BlackHole] {
        proxy.set(fault);
        for path in ["patients/by-user", "patients/by-user/plan.svg", "readyz"] {
            let response = client.target.get(path).await?;
            ensure!(header(&response, "retry-after") == "1", "{fault:?} {path}: {response:?}");
            problem(response, 503).await?;
        }
        ensure!(client.target.get("healthz").await?.status() == 200);
        ensure!(client.target.get("patients").await?.status() == 200);
        proxy.heal();
        ensure!(client.target.get("readyz").await?.status() == 200);
        client.diagnose("by-id").await?;
    }
    ensure!(fixture.number(WAITING).await? == 0);
    Ok(())
}

async fn the_service_says_that_it_lives_and_is_ready_and_stops_cleanly() -> Outcome {
    let fixture = Fixture::fresh(2_000).await?;
    let mut child = fixture.serve().start().await?;
    lives_and_is_ready(&Target::new(child.url(), None)?).await?;
    let status = child.stop().await?;
    ensure!(status.success(), "SIGTERM should end in exit status 0: {status}");
    Ok(())
}
