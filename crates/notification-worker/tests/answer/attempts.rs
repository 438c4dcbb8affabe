//! What counts as a death, and what becomes of a job that nobody hears of?

use std::time::Duration;

use anyhow::{Context, ensure};
use lab::{
    child::Child,
    fault::{Fault, Proxy},
    harness::{Outcome, eventually},
};
use lapin::options::{QueueDeclareOptions, QueuePurgeOptions};
use notification_worker::{
    cases::{PATIENCE, client::Client},
    experiments::{
        fcm::{FakeFcm, Fate},
        fixture::Fixture,
    },
};
use sqlx::{Connection, PgConnection};
use tokio::time::sleep;

use crate::{start, user_of};

lab::tests![
    a_database_that_is_slow_after_the_push_is_no_death_and_the_phone_rings_once,
    a_shard_that_changes_hands_while_the_database_is_slow_is_no_death,
    a_worker_that_is_stopped_while_the_database_is_slow_is_no_death,
    a_worker_that_alone_cannot_reach_the_database_gives_back_what_it_has_begun,
    a_worker_that_cannot_reach_the_database_for_long_loses_its_queue,
    a_worker_that_cannot_reach_the_database_and_has_begun_nothing_leaves_its_queue_at_once,
    overload_is_no_death,
    a_panic_in_a_delivery_costs_an_attempt_and_no_queue,
    a_statement_that_fails_costs_an_attempt_and_no_lane,
    a_job_that_cannot_be_settled_is_buried_and_blocks_no_lane,
    a_server_that_is_read_only_for_a_while_costs_no_attempt_and_no_job,
    a_job_whose_message_the_broker_lost_is_published_again,
    jobs_for_a_full_shard_do_not_keep_the_sweep_from_the_others,
    old_jobs_are_deleted_as_fast_as_they_come,
    a_dead_job_comes_back_by_the_update_of_the_chapter,
];

async fn a_database_that_is_slow_after_the_push_is_no_death_and_the_phone_rings_once() -> Outcome {
    let fcm = FakeFcm::start(|_| Fate::TAKEN).await?;
    let (fixture, _server, client) = start(&["--role", "api"]).await?;
    client.add_device("ann", "phone").await?;
    let mut database = PgConnection::connect(fixture.database.url()).await?;
    let mut slow = database.begin().await?;
    // Whoever writes down that the phone has it waits for this.
    sqlx::query("lock table pushes in share mode").execute(&mut *slow).await?;
    let _worker = fixture.worker(&fcm).start().await?;
    client.push("one", "ann").await?;
    fcm.until("the push", PATIENCE, |sent| !sent.is_empty()).await?;
    // Longer than two statements may take.
    sleep(Duration::from_secs(5)).await;
    slow.commit().await?;
    let progress = client.until("one", "delivered").await?;
    ensure!(fcm.sent().len() == 1, "the phone rang {} times", fcm.sent().len());
    ensure!(progress["attempts"] == 1, "{progress}");
    ensure!(crashes(&fixture).await? == 0, "a slow database was taken for a death");
    Ok(())
}

async fn a_shard_that_changes_hands_while_the_database_is_slow_is_no_death() -> Outcome {
    let [fcm, others] =
        [FakeFcm::start(|_| Fate::TAKEN).await?, FakeFcm::start(|_| Fate::TAKEN).await?];
    let (fixture, _server, client) = start(&["--role", "api"]).await?;
    let users = users_with_phones(&fixture, &client).await?;
    let mut database = PgConnection::connect(fixture.database.url()).await?;
    let mut slow = database.begin().await?;
    sqlx::query("lock table pushes in share mode").execute(&mut *slow).await?;
    let _worker = fixture.worker(&fcm).start().await?;
    for user in &users {
        client.push(&format!("begun-{user}"), user).await?;
    }
    fcm.until("both pushes", PATIENCE, |sent| sent.len() == 2).await?;
    // One of the two shards is for the other worker.
    let _other = fixture.worker(&others).start().await?;
    both_live(&fixture).await?;
    // Longer than two statements may take, and both have read the new list.
    sleep(Duration::from_secs(5)).await;
    slow.commit().await?;
    for user in &users {
        let progress = client.until(&format!("begun-{user}"), "delivered").await?;
        ensure!(progress["attempts"] == 1, "{progress}");
    }
    ensure!(crashes(&fixture).await? == 0, "a slow database was taken for a death");
    let rang = (fcm.sent().len(), others.sent().len());
    ensure!(rang == (2, 0), "the phones rang {rang:?} times");
    // Now the shard changes hands.
    for user in &users {
        client.push(&format!("next-{user}"), user).await?;
        client.until(&format!("next-{user}"), "delivered").await?;
    }
    let rang = (fcm.sent().len(), others.sent().len());
    ensure!(rang.0 + rang.1 == 4 && rang.1 > 0, "the phones rang {rang:?} times");
    Ok(())
}

async fn a_worker_that_is_stopped_while_the_database_is_slow_is_no_death() -> Outcome {
    let fcm = FakeFcm::start(|_| Fate::TAKEN).await?;
    let (fixture, _server, client) = start(&["--role", "api"]).await?;
    client.add_device("ann", "phone").await?;
    let mut database = PgConnection::connect(fixture.database.url()).await?;
    let mut slow = database.begin().await?;
    sqlx::query("lock table pushes in share mode").execute(&mut *slow).await?;
    let mut worker = fixture.worker(&fcm).start().await?;
    client.push("one", "ann").await?;
    fcm.until("the push", PATIENCE, |sent| !sent.is_empty()).await?;
    let recovers = async {
        sleep(Duration::from_secs(3)).await;
        Ok(slow.commit().await?)
    };
    let (status, ()) = tokio::try_join!(worker.stop(), recovers)?;
    ensure!(status.success(), "{status}");
    let _next = fixture.worker(&fcm).start().await?;
    let progress = client.until("one", "delivered").await?;
    ensure!(progress["attempts"] == 1, "{progress}");
    ensure!(crashes(&fixture).await? == 0, "a stop was taken for a death");
    ensure!(fcm.sent().len() == 1, "the phone rang {} times", fcm.sent().len());
    Ok(())
}

async fn a_worker_that_alone_cannot_reach_the_database_gives_back_what_it_has_begun() -> Outcome {
    let cut_off = CutOff::start(2_000).await?;
    // Longer than the lease and two statements.
    sleep(Duration::from_secs(7)).await;
    cut_off.proxy.heal();
    let progress = cut_off.client.until("begun", "delivered").await?;
    ensure!(progress["attempts"] == 1, "{progress}");
    ensure!(crashes(&cut_off.fixture).await? == 0, "it lives, and a death was counted");
    let rang = (cut_off.fcm.sent().len(), cut_off.others.sent().len());
    ensure!(rang == (1, 0), "the phone rang {rang:?} times");
    Ok(())
}

async fn a_worker_that_cannot_reach_the_database_for_long_loses_its_queue() -> Outcome {
    let cut_off = CutOff::start(200).await?;
    let progress = cut_off.client.until("begun", "delivered").await?;
    ensure!(progress["attempts"] == 2, "{progress}");
    ensure!(crashes(&cut_off.fixture).await? == 1, "it counts as a death");
    Ok(())
}

async fn a_worker_that_cannot_reach_the_database_and_has_begun_nothing_leaves_its_queue_at_once()
-> Outcome {
    let [fcm, others] =
        [FakeFcm::start(|_| Fate::TAKEN).await?, FakeFcm::start(|_| Fate::TAKEN).await?];
    let (fixture, _server, client) = start(&["--role", "api"]).await?;
    let users = users_with_phones(&fixture, &client).await?;
    let url = fixture.database.url();
    let proxy = Proxy::to_url(url).await?;
    let lease = ["--lease-ms", "2000"];
    let worker = fixture.worker(&fcm).args(&lease).env("DATABASE_URL", proxy.url(url)?);
    let (_worker, _other) =
        tokio::try_join!(worker.start(), fixture.worker(&others).args(&lease).start())?;
    both_live(&fixture).await?;
    proxy.set(Fault::BlackHole);
    // Longer than the lease and two statements, and far less than thirty leases.
    sleep(Duration::from_secs(7)).await;
    for user in &users {
        client.push(&format!("for-{user}"), user).await?;
        client.until(&format!("for-{user}"), "delivered").await?;
    }
    let rang = (fcm.sent().len(), others.sent().len());
    ensure!(rang == (0, 2), "the phones rang {rang:?} times");
    Ok(())
}

/// Two workers, of which one has pushed a job and cannot write it down: it has lost the database.
struct CutOff {
    client: Client,
    /// What the worker that is cut off pushes, and what the other one does.
    fcm: FakeFcm,
    others: FakeFcm,
    proxy: Proxy,
    _processes: [Child; 3],
    fixture: Fixture,
}

impl CutOff {
    async fn start(lease_ms: u64) -> anyhow::Result<Self> {
        let [fcm, others] =
            [FakeFcm::start(|_| Fate::TAKEN).await?, FakeFcm::start(|_| Fate::TAKEN).await?];
        let (fixture, server, client) = start(&["--role", "api"]).await?;
        let users = users_with_phones(&fixture, &client).await?;
        let url = fixture.database.url();
        let proxy = Proxy::to_url(url).await?;
        let mut database = PgConnection::connect(url).await?;
        let mut slow = database.begin().await?;
        sqlx::query("lock table pushes in share mode").execute(&mut *slow).await?;
        let lease = ["--lease-ms", &lease_ms.to_string()];
        let worker = fixture.worker(&fcm).args(&lease).env("DATABASE_URL", proxy.url(url)?);
        let worker = worker.start().await?;
        client.push("begun", &users[0]).await?;
        fcm.until("the push", PATIENCE, |sent| !sent.is_empty()).await?;
        proxy.set(Fault::BlackHole);
        slow.commit().await?;
        let other = fixture.worker(&others).args(&lease).start().await?;
        let processes = [server, worker, other];
        Ok(Self { client, fcm, others, proxy, _processes: processes, fixture })
    }
}

/// A user of each shard, each with a phone.
async fn users_with_phones(fixture: &Fixture, client: &Client) -> anyhow::Result<[String; 2]> {
    let users = [user_of(fixture, 0, |_| true)?, user_of(fixture, 1, |_| true)?];
    for user in &users {
        client.add_device(user, &format!("phone-of-{user}")).await?;
    }
    Ok(users)
}

async fn both_live(fixture: &Fixture) -> Outcome {
    eventually("two workers live", async || {
        Ok((number(fixture, "select count(*) from workers").await? == 2).then_some(()))
    })
    .await
}

async fn overload_is_no_death() -> Outcome {
    let (fixture, _server, client) = start(&["--role", "api"]).await?;
    for n in 0..60 {
        client.notify(&format!("job-{n}"), &format!("user-{n}")).await?;
    }
    run(
        &fixture,
        "create function slowly() returns trigger language plpgsql as \
         $$ begin perform pg_sleep(0.5); return new; end $$; \
         create trigger slowly before update on notifications for each row execute function slowly()",
    )
    .await?;
    // More deliveries than connections: most of the time-out is spent waiting for one. A beat that comes too late costs
    // a worker its shards.
    let overloaded = fixture.serve().args(&["--role", "worker", "--concurrency", "60"]);
    let _worker = overloaded.clone().start().await?;
    let _other = overloaded.start().await?;
    eventually("some of them are delivered", async || {
        let count = "select count(*) from notifications where status = 'delivered'";
        Ok((number(&fixture, count).await? >= 10).then_some(()))
    })
    .await?;
    run(&fixture, "drop trigger slowly on notifications").await?;
    for n in 0..60 {
        client.until(&format!("job-{n}"), "delivered").await?;
    }
    let crashes = crashes(&fixture).await?;
    ensure!(crashes == 0, "nobody died, and {crashes} deaths were counted");
    Ok(())
}

async fn a_panic_in_a_delivery_costs_an_attempt_and_no_queue() -> Outcome {
    let fcm = FakeFcm::start(|_| Fate::TAKEN).await?;
    fcm.tokens_expire_in(u64::MAX);
    let (fixture, _server, client) = start(&["--role", "api"]).await?;
    client.add_device("ann", "phone").await?;
    let _worker = fixture.worker(&fcm).start().await?;
    // The second one finds out that the first one's lane has gone.
    client.push("one", "ann").await?;
    client.push("two", "ann").await?;
    for job in ["one", "two"] {
        let progress = client.until(job, "dead").await?;
        ensure!(progress["attempts"] == 4, "{progress}");
        ensure!(progress["last_error"].as_str().context("none")?.contains("panicked"));
    }
    for n in 0..8 {
        let (job, user) = (format!("job-{n}"), format!("user-{n}"));
        client.notify(&job, &user).await?;
        client.until(&job, "delivered").await?;
    }
    fcm.tokens_expire_in(3_600);
    client.push("three", "ann").await?;
    client.until("three", "delivered").await?;
    Ok(())
}

async fn a_statement_that_fails_costs_an_attempt_and_no_lane() -> Outcome {
    let (fixture, _server, client) = start(&[]).await?;
    fails(&fixture, "before update of position").await?;
    client.notify("poison", "ann").await?;
    client.notify("next", "ann").await?;
    client.until("next", "delivered").await?;
    let progress = client.until("poison", "dead").await?;
    ensure!(progress["attempts"] == 4, "{progress}");
    let error = progress["last_error"].as_str().context("no error")?;
    ensure!(error.contains("gave up after 4") && !error.contains("no such luck"), "{error}");
    ensure!(crashes(&fixture).await? == 0, "a statement that fails is no death");
    Ok(())
}

async fn a_job_that_cannot_be_settled_is_buried_and_blocks_no_lane() -> Outcome {
    let (fixture, _server, client) = start(&[]).await?;
    fails(&fixture, "before update of status").await?;
    client.notify("poison", "ann").await?;
    client.notify("next", "ann").await?;
    client.until("next", "delivered").await?;
    ensure!(String::from_utf8_lossy(&fixture.buried().await?).contains("poison"));
    Ok(())
}

async fn a_server_that_is_read_only_for_a_while_costs_no_attempt_and_no_job() -> Outcome {
    let (fixture, _server, client) = start(&[]).await?;
    // 25006: the server was demoted. A sequence counts on although the statement fails.
    run(
        &fixture,
        "create sequence failures; \
         create function fails() returns trigger language plpgsql as \
         $$ begin perform nextval('failures'); raise 'not now' using errcode = '25006'; end $$; \
         create trigger fails before update of claimed_by on notifications for each row \
         execute function fails()",
    )
    .await?;
    client.notify("one", "ann").await?;
    eventually("a claim fails", async || {
        let failed = "select count(*) from failures where is_called";
        Ok((number(&fixture, failed).await? == 1).then_some(()))
    })
    .await?;
    run(&fixture, "drop trigger fails on notifications").await?;
    let progress = client.until("one", "delivered").await?;
    ensure!(progress["attempts"] == 1, "{progress}");
    ensure!(messages(&fixture, &fixture.topology.dead()).await? == 0, "it is buried too");
    Ok(())
}

async fn a_job_whose_message_the_broker_lost_is_published_again() -> Outcome {
    let (fixture, _server, client) = start(&["--role", "api"]).await?;
    client.notify("one", "ann").await?;
    let connection = fixture.queues.connection().await?;
    let channel = connection.create_channel().await?;
    let mut purged = 0;
    for shard in 0..2 {
        let queue = fixture.topology.queue(shard);
        purged += channel.queue_purge(queue.as_str().into(), QueuePurgeOptions::default()).await?;
    }
    ensure!(purged == 1, "{purged} messages were lost");
    let _worker = fixture.serve().args(&["--role", "worker"]).start().await?;
    // An hour later.
    run(&fixture, "update notifications set sweep_at = sweep_at - interval '1 hour'").await?;
    client.until("one", "delivered").await?;
    Ok(())
}

async fn jobs_for_a_full_shard_do_not_keep_the_sweep_from_the_others() -> Outcome {
    let (fixture, _server, client) = start(&["--role", "api", "--max-queue", "5"]).await?;
    let (full, free) = (user_of(&fixture, 0, |_| true)?, user_of(&fixture, 1, |_| true)?);
    for n in 0..20 {
        client.try_notify(&format!("full-{n}"), &full, "websocket").await?;
    }
    let left = "insert into notifications (job_id, user_id, channel, title, body, sweep_at) \
         select job, usr, 'websocket', 't', 'b', now() - interval '1 minute' + n * interval '1 millisecond' \
         from (select 'left-' || n as job, '{full}' as usr, n from generate_series(1, 250) n \
               union all select 'free', '{free}', 900) as left_behind";
    let left = left.replace("{full}", &full).replace("{free}", &free);
    run(&fixture, &left).await?;
    // Nobody works, so the full shard stays full; a process that sweeps, and can take no shard for now.
    let mut database = PgConnection::connect(fixture.database.url()).await?;
    let mut nobody = database.begin().await?;
    sqlx::query("lock table workers in exclusive mode").execute(&mut *nobody).await?;
    ensure!(depth(&fixture, 0).await? >= 5 && depth(&fixture, 1).await? == 0);
    let worker = ["--role", "worker", "--max-queue", "5"];
    let _worker = fixture.serve().args(&worker).start().await?;
    eventually("the job for the free shard is published", async || {
        Ok((depth(&fixture, 1).await? == 1).then_some(()))
    })
    .await
}

async fn old_jobs_are_deleted_as_fast_as_they_come() -> Outcome {
    let (fixture, _server, _client) = start(&["--role", "api"]).await?;
    run(
        &fixture,
        "insert into notifications (job_id, user_id, channel, title, body, status, created_at) \
         select 'old-' || n, 'ann', 'websocket', 't', 'b', 'delivered', now() - interval '8 days' \
         from generate_series(1, 3000) n",
    )
    .await?;
    let _worker = fixture.serve().args(&["--role", "worker"]).start().await?;
    eventually("three thousand old jobs are deleted", async || {
        Ok((number(&fixture, "select count(*) from notifications").await? == 0).then_some(()))
    })
    .await
}

/// A statement fails for this one job: a constraint that nobody thought of.
async fn fails(fixture: &Fixture, when: &str) -> Outcome {
    let trigger = format!(
        "create function fails() returns trigger language plpgsql as \
         $$ begin raise exception 'no such luck'; end $$; \
         create trigger fails {when} on notifications for each row \
         when (new.job_id = 'poison') execute function fails()"
    );
    run(fixture, &trigger).await
}

async fn run(fixture: &Fixture, statements: &str) -> Outcome {
    let mut database = PgConnection::connect(fixture.database.url()).await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(statements)).execute(&mut database).await?;
    Ok(database.close().await?)
}

async fn number(fixture: &Fixture, query: &'static str) -> anyhow::Result<i64> {
    let mut database = PgConnection::connect(fixture.database.url()).await?;
    Ok(sqlx::query_scalar(query).fetch_one(&mut database).await?)
}

async fn crashes(fixture: &Fixture) -> anyhow::Result<i64> {
    number(fixture, "select coalesce(sum(crashes), 0)::bigint from notifications").await
}

/// How many messages wait in a shard's queue.
async fn depth(fixture: &Fixture, shard: u16) -> anyhow::Result<u32> {
    messages(fixture, &fixture.topology.queue(shard)).await
}

async fn messages(fixture: &Fixture, queue: &str) -> anyhow::Result<u32> {
    let connection = fixture.queues.connection().await?;
    let channel = connection.create_channel().await?;
    let passive = QueueDeclareOptions { passive: true, ..Default::default() };
    let queue = channel.queue_declare(queue.into(), passive, lapin::types::FieldTable::default());
    let count = queue.await?.message_count();
    connection.close(200, "goodbye".into()).await?;
    Ok(count)
}

async fn a_dead_job_comes_back_by_the_update_of_the_chapter() -> Outcome {
    let (fixture, _server, client) = start(&[]).await?;
    run(
        &fixture,
        "insert into notifications (job_id, user_id, channel, title, body, status, failures, crashes, sweep_at) \
         values ('dead', 'ann', 'websocket', 't', 'b', 'dead', 9, 9, null)",
    )
    .await?;
    run(
        &fixture,
        "update notifications set status = 'queued', failures = 0, crashes = 0, due_at = now(), sweep_at = now() \
         where status = 'dead'",
    )
    .await?;
    client.until("dead", "delivered").await?;
    Ok(())
}
