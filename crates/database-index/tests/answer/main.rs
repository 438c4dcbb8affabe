//! What needs a fault, or a look inside. It also runs the experiments, with quick parameters, and the cases.

use std::{
    env, fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::{Command, ExitCode, id},
};

use anyhow::ensure;
use conform::http::{header, lives_and_is_ready, problem};
use conform::target::Target;
use database_index::{
    cases::client::{Client, long_text},
    experiments::fixture::Fixture,
};
use lab::{
    Need, Service,
    fault::{Fault, Proxy},
    harness::{Outcome, Served, run},
    skip,
    stack::own::OwnServer,
};
use serde_json::json;
use sqlx::{Connection, PgConnection};

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
    ensure!(fixture.number("select count(*) from pg_index where not indisvalid").await? == 0);
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
    ensure!(fixture.number("select count(*) from pg_index where not indisvalid").await? == 0);
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

async fn the_service_says_that_it_lives_and_is_ready_and_stops_cleanly() -> Outcome {
    let fixture = Fixture::fresh(100).await?;
    let mut child = fixture.serve().start().await?;
    lives_and_is_ready(&Target::new(child.url(), None)?).await?;
    let status = child.stop().await?;
    ensure!(status.success(), "SIGTERM should end in exit status 0: {status}");
    Ok(())
}
