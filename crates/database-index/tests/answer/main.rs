//! What needs a fault, or a look inside. It also runs the experiments, with quick parameters, and the cases.

use std::{
    env, fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::{Command, ExitCode, id},
    time::Duration,
};

use anyhow::{anyhow, ensure};
use conform::expect::json_of;
use conform::http::{header, lives_and_is_ready, problem};
use conform::target::{Target, eventually};
use database_index::{
    cases::client::{Client, long_text},
    experiments::fixture::Fixture,
    index::{Index, Name},
    store::Store,
};
use lab::{
    Need, Service,
    fault::{Fault, Proxy},
    harness::{Outcome, Served, run},
    skip,
    stack::own::OwnServer,
};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tokio::time::sleep;

fn main() -> ExitCode {
    run(database_index::answer(), || Box::pin(serve_for_cases()), tests())
}

/// The program as its cases want it.
async fn serve_for_cases() -> anyhow::Result<Served> {
    let fixture = Fixture::fresh(5_000).await?;
    Ok(Served::new(fixture.serve().start().await?, fixture))
}

lab::tests![
    the_catalogue_says_of_an_index_what_its_statement_says,
    a_value_that_fits_into_no_index_is_told_and_nothing_is_left,
    a_full_disk_is_told_and_nothing_is_left,
    a_table_is_filled_once_however_many_processes_start,
    a_database_that_is_away_is_told_and_the_next_request_works,
    an_index_that_a_foreign_key_needs_is_not_called_superfluous,
    advice_proposes_trigrams_in_a_fresh_database,
    advice_proposes_what_is_there_and_invalid,
    an_index_that_is_dropped_before_the_trial_begins_is_no_error,
    an_index_that_has_become_ready_meanwhile_is_not_built_again,
    a_build_whose_connection_is_ended_leaves_nothing,
    a_build_that_was_asked_for_during_a_drop_comes_after_it,
    indexes_are_listed_while_one_is_dropped,
    a_build_waits_for_a_server_that_is_busy,
    the_service_says_that_it_lives_and_is_ready_and_stops_cleanly,
];

/// Otherwise a PUT that comes twice would be a conflict, and advice would propose what is there.
async fn the_catalogue_says_of_an_index_what_its_statement_says() -> Outcome {
    let fixture = Fixture::fresh(100).await?;
    let (_child, client) = fixture.start().await?;
    for (n, index) in [
        json!({ "columns": ["email"] }),
        json!({ "columns": ["status", "born"], "include": ["name", "id"] }),
        json!({ "expression": "lower(email)" }),
        json!({ "expression": "id::numeric", "columns": ["created_at"] }),
        json!({ "columns": ["created_at"], "where": "status = 'blocked'" }),
        json!({ "columns": ["id", "email"], "unique": true, "where": "status = 'active'" }),
        json!({ "kind": "hash", "columns": ["city"] }),
        json!({ "kind": "gin", "columns": ["tags"] }),
        json!({ "kind": "trigram", "columns": ["email", "name"] }),
        json!({ "kind": "gist", "columns": ["name"] }),
        json!({ "kind": "brin", "columns": ["created_at"] }),
        json!({ "columns": ["notes", "referred_by"] }),
    ]
    .iter()
    .enumerate()
    {
        let name = format!("select_{n}");
        let built = client.build(&name, index).await?;
        let again = client.put(&name, index).await?;
        ensure!(again.status() == 200, "{index} became {}", built["definition"]);
    }
    Ok(())
}

async fn a_value_that_fits_into_no_index_is_told_and_nothing_is_left() -> Outcome {
    let fixture = Fixture::fresh(100).await?;
    let (_child, client) = fixture.start().await?;
    let mut user = client.user("long");
    user["notes"] = json!(long_text());
    ensure!(client.create(&user).await?.status() == 201);
    let index = json!({ "columns": ["notes"] });
    ensure!(client.put("idx_notes", &index).await?.status() == 202);
    let ended = client.ended("idx_notes").await?;
    let error = ended["error"].as_str().unwrap_or_default();
    ensure!(ended["state"] == "failed" && error.contains("longer"), "{ended}");
    ensure!(fixture.invalid().await? == 0);
    fixture.sql("delete from users where notes is not null").await?;
    client.build("idx_notes", &index).await?;
    Ok(())
}

async fn a_full_disk_is_told_and_nothing_is_left() -> Outcome {
    for need in [Need::Linux, Need::Root] {
        if let Some(why) = need.obstacle() {
            return Err(skip(why));
        }
    }
    let server = OwnServer::start(Service::Postgres).await?;
    let mut session = PgConnection::connect(&server.url()?).await?;
    let data: String = sqlx::query_scalar("show data_directory").fetch_one(&mut session).await?;
    let disk = SmallDisk::mount(&data)?;
    let fixture = Fixture::on(&server.url()?, 50_000).await?;
    let small = format!("create tablespace small location '{}'", disk.0.display());
    fixture.sql(&small).await?;
    let database = fixture.database.name();
    fixture.sql(&format!("alter database \"{database}\" set default_tablespace = small")).await?;
    let (_child, client) = fixture.start().await?;
    let index = json!({ "columns": ["email"] });
    ensure!(client.put("idx_email", &index).await?.status() == 202);
    let ended = client.ended("idx_email").await?;
    ensure!(ended["state"] == "failed" && ended["error"] == "the disk is full", "{ended}");
    ensure!(fixture.invalid().await? == 0);
    client.sign_up("ada").await?;
    fixture.sql(&format!("alter database \"{database}\" reset default_tablespace")).await?;
    client.build("idx_email", &index).await?;
    Ok(())
}

/// A file system of one megabyte, until this is dropped. Only root can have one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// For the owner of this file.
    fn mount(owned: &str) -> anyhow::Result<Self> {
        let owner = fs::metadata(owned)?;
        let disk = Self(env::temp_dir().join(format!("worked-answers-disk-{}", id())));
        fs::create_dir(&disk.0)?;
        let options = format!("size=1m,mode=700,uid={},gid={}", owner.uid(), owner.gid());
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(&disk.0)
            .output()?;
        if !mount.status.success() {
            return Err(skip("root may not mount anything here"));
        }
        Ok(disk)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The server may have files open in it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
        let _ = fs::remove_dir(&self.0);
    }
}

async fn a_table_is_filled_once_however_many_processes_start() -> Outcome {
    let fixture = Fixture::fresh(0).await?;
    let fill = || fixture.store.fill_if_empty(1_000);
    tokio::try_join!(fill(), fill(), fill())?;
    ensure!(fixture.number("select count(*) from users").await? == 1_000);
    Ok(())
}

async fn a_database_that_is_away_is_told_and_the_next_request_works() -> Outcome {
    let fixture = Fixture::fresh(100).await?;
    let proxy = Proxy::to_url(fixture.database.url()).await?;
    let url = proxy.url(fixture.database.url())?;
    let child = fixture.serve().env("DATABASE_URL", url).start().await?;
    let client = Client::at(child.url())?;
    let (user, _) = client.sign_up("ada").await?;
    for fault in [Fault::Cut, Fault::BlackHole] {
        proxy.set(fault);
        for path in [user.as_str(), "indexes", "advice", "readyz"] {
            let response = client.target.get(path).await?;
            ensure!(header(&response, "retry-after") == "1", "{fault:?} {path}: {response:?}");
            problem(response, 503).await?;
        }
        ensure!(client.target.get("healthz").await?.status() == 200);
        ensure!(client.target.get("queries").await?.status() == 200);
        proxy.heal();
        ensure!(client.target.get(&user).await?.status() == 200);
        client.build("idx_after", &json!({ "columns": ["city"] })).await?;
        client.dropped("idx_after").await?;
    }
    Ok(())
}

/// What the adviser says, when the table is free for a trial.
async fn advice(client: &Client) -> anyhow::Result<Value> {
    json_of(client.target.get("advice").await?, 200).await
}

async fn an_index_that_a_foreign_key_needs_is_not_called_superfluous() -> Outcome {
    let fixture = Fixture::fresh(5_000).await?;
    let (_child, client) = fixture.start().await?;
    client.build("idx_referred_by", &json!({ "columns": ["referred_by"] })).await?;
    client.build("idx_born", &json!({ "columns": ["born"] })).await?;
    client.run("by_email", json!({ "email": "user777@example.org" })).await?;
    let advice = advice(&client).await?;
    ensure!(advice["not_missed"] == json!(["idx_born"]), "{advice}");
    let index = client.ended("idx_referred_by").await?;
    ensure!(index["scans"] == 0 && index["findings"] == json!([]), "{index}");
    Ok(())
}

async fn advice_proposes_trigrams_in_a_fresh_database() -> Outcome {
    let fixture = Fixture::fresh(50_000).await?;
    if !fixture.has_trigrams().await? {
        return Err(skip("this server has no pg_trgm"));
    }
    let (_child, client) = fixture.start().await?;
    client.run("by_end_of_email", json!({ "end": "r777@example.org" })).await?;
    let advice = advice(&client).await?;
    ensure!(advice["missing"][0]["index"]["kind"] == "trigram", "{advice}");
    Ok(())
}

async fn advice_proposes_what_is_there_and_invalid() -> Outcome {
    let fixture = Fixture::fresh(5_000).await?;
    let (_child, client) = fixture.start().await?;
    let mut writer = fixture.pool.begin().await?;
    sqlx::query("update users set notes = 'x' where id = 1").execute(&mut *writer).await?;
    let mut build = PgConnection::connect(fixture.database.url()).await?;
    sqlx::query("set lock_timeout = '50ms'").execute(&mut build).await?;
    let create = "create index concurrently idx_email on users (email)";
    ensure!(sqlx::query(create).execute(&mut build).await.is_err(), "it must wait for the writer");
    writer.rollback().await?;
    ensure!(fixture.invalid().await? == 1);
    client.run("by_email", json!({ "email": "user777@example.org" })).await?;
    let advice = advice(&client).await?;
    ensure!(advice["missing"][0]["name"] == "idx_email", "{advice}");
    Ok(())
}

/// A connection that keeps the program from building, dropping and trying, as another process would.
async fn alone(fixture: &Fixture) -> anyhow::Result<PgConnection> {
    let mut other = PgConnection::connect(fixture.database.url()).await?;
    let lock = "select pg_advisory_lock(hashtext('indexes of users'))";
    sqlx::query(lock).execute(&mut other).await?;
    Ok(other)
}

/// Waits until the program has tried to take that lock.
async fn tries(fixture: &Fixture) -> anyhow::Result<()> {
    eventually("the program tries to take the lock", async || {
        let tries = "select count(*) from pg_stat_activity
            where datname = current_database() and query like 'select pg_try_advisory_lock%'";
        Ok((fixture.number(tries).await? > 0).then_some(()))
    })
    .await
}

async fn an_index_that_is_dropped_before_the_trial_begins_is_no_error() -> Outcome {
    let fixture = Fixture::fresh(1_000).await?;
    let (_child, client) = fixture.start().await?;
    client.build("idx_born", &json!({ "columns": ["born"] })).await?;
    client.run("by_email", json!({ "email": "user777@example.org" })).await?;
    let other = alone(&fixture).await?;
    let dropped = async {
        tries(&fixture).await?;
        fixture.sql("drop index idx_born").await?;
        other.close().await?;
        anyhow::Ok(())
    };
    let (advice, ()) = tokio::try_join!(advice(&client), dropped)?;
    ensure!(advice["not_missed"] == json!([]), "{advice}");
    Ok(())
}

async fn an_index_that_has_become_ready_meanwhile_is_not_built_again() -> Outcome {
    let fixture = Fixture::fresh(1_000).await?;
    let (_child, client) = fixture.start().await?;
    for (name, column, error) in [
        ("idx_same", "city", json!(null)),
        ("idx_other", "name", json!("another index has this name")),
    ] {
        let other = alone(&fixture).await?;
        let index = json!({ "columns": ["city"] });
        ensure!(client.put(name, &index).await?.status() == 202);
        tries(&fixture).await?;
        fixture.sql(&format!("create index {name} on users ({column})")).await?;
        other.close().await?;
        let ended = client.ended(name).await?;
        ensure!(ended["state"] == "ready" && ended["error"] == error, "{ended}");
    }
    Ok(())
}

async fn a_build_whose_connection_is_ended_leaves_nothing() -> Outcome {
    let fixture = Fixture::fresh(1_000).await?;
    let (_child, client) = fixture.start().await?;
    let reader = fixture.old_reader().await?;
    ensure!(client.put("idx_born", &json!({ "columns": ["born"] })).await?.status() == 202);
    let pid = fixture.waiting_build().await?;
    fixture.number(&format!("select pg_terminate_backend({pid}, 5000)::int::bigint")).await?;
    reader.rollback().await?;
    let ended = client.ended("idx_born").await?;
    ensure!(ended["state"] == "failed" && ended["error"] == "somebody ended the build", "{ended}");
    ensure!(fixture.invalid().await? == 0);
    Ok(())
}

async fn a_build_that_was_asked_for_during_a_drop_comes_after_it() -> Outcome {
    let fixture = Fixture::fresh(1_000).await?;
    let (_child, client) = fixture.start().await?;
    let index = json!({ "columns": ["born"] });
    client.build("idx_born", &index).await?;
    // The drop waits for this one.
    let mut reader = fixture.pool.begin().await?;
    sqlx::query("select id from users limit 1").execute(&mut *reader).await?;
    let asked = async {
        eventually("the drop has begun", async || {
            let begun = "select count(*) from pg_index where indexrelid = 'idx_born'::regclass and not indisvalid";
            Ok((fixture.number(begun).await? == 1).then_some(()))
        })
        .await?;
        ensure!(client.put("idx_born", &index).await?.status() == 202);
        reader.rollback().await?;
        anyhow::Ok(())
    };
    tokio::try_join!(client.dropped("idx_born"), asked)?;
    let ended = client.ended("idx_born").await?;
    ensure!(ended["state"] == "ready", "{ended}");
    Ok(())
}

async fn a_build_waits_for_a_server_that_is_busy() -> Outcome {
    let fixture = Fixture::fresh(100).await?;
    let proxy = Proxy::to_url(fixture.database.url()).await?;
    let store = Store::new(&proxy.url(fixture.database.url())?)?;
    let name = Name::parse("late").map_err(|error| anyhow!("{error}"))?;
    let index = serde_json::from_value::<Index>(json!({ "columns": ["city"] }))?;
    // A build must not give up after a moment: no connection comes for this long.
    proxy.set(Fault::BlackHole);
    let heal = async {
        sleep(Duration::from_secs(3)).await;
        proxy.heal();
    };
    tokio::join!(store.build(&name, &index), heal).0?;
    ensure!(fixture.number("select count(*) from pg_class where relname = 'late'").await? == 1);
    Ok(())
}

/// PostgreSQL's functions that describe an index fail if it is dropped while they look.
async fn indexes_are_listed_while_one_is_dropped() -> Outcome {
    let fixture = Fixture::fresh(100).await?;
    let (_child, client) = fixture.start().await?;
    let come_and_go = async || -> Outcome {
        loop {
            for sql in ["create index i on users (email, name, city, born)", "drop index i"] {
                sqlx::query(sql).execute(&fixture.pool).await?;
            }
        }
    };
    let look = async || -> Outcome {
        for _ in 0..300 {
            json_of(client.target.get("indexes").await?, 200).await?;
        }
        Ok(())
    };
    let looks = async || tokio::try_join!(look(), look(), look());
    tokio::select!(ended = come_and_go() => ended, looked = looks() => looked.map(drop))
}

async fn the_service_says_that_it_lives_and_is_ready_and_stops_cleanly() -> Outcome {
    let fixture = Fixture::fresh(100).await?;
    let mut child = fixture.serve().start().await?;
    lives_and_is_ready(&Target::new(child.url(), None)?).await?;
    let status = child.stop().await?;
    ensure!(status.success(), "SIGTERM should end in exit status 0: {status}");
    Ok(())
}
