//! What needs a fault, or a look inside. It also runs the experiments, with quick parameters, and the cases.

use std::process::ExitCode;

use anyhow::ensure;
use conform::expect::json_of;
use conform::http::{header, lives_and_is_ready, problem};
use conform::target::Target;
use lab::{
    fault::{Fault, Proxy},
    harness::{Outcome, Served, eventually, run, somebody_waits},
};
use rest_api::{cases::client::Client, experiments::fixture::Fixture};

fn main() -> ExitCode {
    run(rest_api::answer(), || Box::pin(serve_for_cases()), tests())
}

/// The program as its cases want it.
async fn serve_for_cases() -> anyhow::Result<Served> {
    let fixture = Fixture::fresh().await?;
    Ok(Served::new(fixture.serve().start().await?, fixture))
}

lab::tests![
    the_document_knows_both_versions_and_what_it_refers_to,
    a_key_that_is_under_way_is_told_and_can_be_used_later,
    a_service_that_is_killed_before_the_key_is_written_has_made_no_user,
    an_order_that_is_being_made_keeps_its_user,
    a_put_that_comes_twice_at_once_is_told_that_the_user_is_there,
    a_database_that_is_away_is_told_and_the_next_request_works,
    the_service_says_that_it_lives_and_is_ready_and_stops_cleanly,
];

async fn the_document_knows_both_versions_and_what_it_refers_to() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, client) = fixture.start().await?;
    let document = json_of(client.get("openapi.json", &[]).await?, 200).await?;
    ensure!(document["openapi"] == "3.1.0", "{}", document["openapi"]);
    let kinds = |path: &str| {
        let content = &document["paths"][path]["get"]["responses"]["200"]["content"];
        content.as_object().map(|kinds| kinds.keys().cloned().collect::<Vec<_>>())
    };
    let (json, v1) = ("application/json", "application/vnd.worked-answers.v1+json");
    for (path, expected) in [
        ("/", &[json][..]),
        ("/users", &[json, v1]),
        ("/users/{id}", &[json, v1]),
        ("/v1/customers", &[v1]),
        ("/v1/customers/{id}", &[v1]),
    ] {
        let seen = kinds(path).unwrap_or_default();
        ensure!(seen == expected, "{path}: {seen:?}");
    }
    let text = document.to_string();
    let references = text.split("\"$ref\":\"#").skip(1).filter_map(|it| it.split('"').next());
    for pointer in references {
        ensure!(document.pointer(pointer).is_some(), "nothing is at {pointer}");
    }
    Ok(())
}

async fn a_key_that_is_under_way_is_told_and_can_be_used_later() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, client) = fixture.start().await?;
    // What a request with this key holds as long as it is under way.
    let mut other = fixture.pool.begin().await?;
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('slow', 0))")
        .execute(&mut *other)
        .await?;
    let user = client.user("Ada");
    let response = client.create(&user, Some("slow")).await?;
    ensure!(header(&response, "retry-after") == "1", "{response:?}");
    problem(response, 409).await?;
    other.rollback().await?;
    ensure!(client.create(&user, Some("slow")).await?.status() == 201);
    ensure!(fixture.count("users").await? == 1);
    Ok(())
}

/// The user and its key are one transaction: whoever asks again gets the one user, and no 409 for their own address.
async fn a_service_that_is_killed_before_the_key_is_written_has_made_no_user() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (mut child, client) = fixture.start().await?;
    let user = client.user("Ada");
    // The service can still look for the key, and has to wait before it writes one.
    let mut other = fixture.pool.begin().await?;
    sqlx::query("lock table idempotency_keys in share mode").execute(&mut *other).await?;
    let kill_when_it_waits = async {
        somebody_waits("the request waits to write its key", &fixture.database).await?;
        let users = fixture.count("users").await?;
        child.kill().await?;
        anyhow::Ok(users)
    };
    let (answer, users) = tokio::join!(client.create(&user, Some("lost")), kill_when_it_waits);
    ensure!(answer.is_err(), "an answer from a service that was killed: {answer:?}");
    ensure!(users? == 0, "the user is there before its key");
    other.rollback().await?;
    // PostgreSQL hears of the death when it has the lock. Until then, the key is under way.
    eventually("the killed request holds no lock", async || {
        let held = "select count(*) from pg_locks join pg_database on pg_database.oid = database \
                    where datname = current_database() and locktype = 'advisory'";
        let held: i64 = sqlx::query_scalar(held).fetch_one(&fixture.pool).await?;
        Ok((held == 0).then_some(()))
    })
    .await?;
    child.restart().await?;
    let answer = client.create(&user, Some("lost")).await?;
    ensure!(answer.status() == 201, "{answer:?}");
    ensure!(fixture.count("users").await? == 1);
    Ok(())
}

/// Whoever looks for open orders without a lock finds none, and the order goes with its user.
async fn an_order_that_is_being_made_keeps_its_user() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, client) = fixture.start().await?;
    let ada = client.sign_up("Ada").await?;
    let mut other = fixture.pool.begin().await?;
    sqlx::query("insert into orders (id, user_id, item, quantity) select gen_random_uuid(), id, 'tea', 1 from users")
        .execute(&mut *other)
        .await?;
    let commit_when_it_waits = async {
        somebody_waits("the deletion waits for the order", &fixture.database).await?;
        Ok(other.commit().await?)
    };
    let (response, ()) = tokio::try_join!(client.delete(&ada.path), commit_when_it_waits)?;
    problem(response, 409).await?;
    ensure!(fixture.count("orders").await? == 1);
    Ok(())
}

/// The second one waits for the address. It must not be told that somebody else has it.
async fn a_put_that_comes_twice_at_once_is_told_that_the_user_is_there() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, client) = fixture.start().await?;
    let (id, user) = (uuid::Uuid::new_v4(), client.user("Ada"));
    let mut other = fixture.pool.begin().await?;
    sqlx::query("insert into users (id, name, email, email_key) values ($1, 'Ada', $2, $2)")
        .bind(id)
        .bind(user["email"].as_str())
        .execute(&mut *other)
        .await?;
    let path = format!("/users/{id}");
    let put = client.put(&path, &user, &[("if-none-match", "*")]);
    let commit_when_it_waits = async {
        somebody_waits("the PUT waits for the same one", &fixture.database).await?;
        Ok(other.commit().await?)
    };
    let (response, ()) = tokio::try_join!(put, commit_when_it_waits)?;
    problem(response, 412).await?;
    ensure!(fixture.count("users").await? == 1);
    Ok(())
}

async fn a_database_that_is_away_is_told_and_the_next_request_works() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let proxy = Proxy::to_url(fixture.database.url()).await?;
    let url = proxy.url(fixture.database.url())?;
    let child = fixture.serve().env("DATABASE_URL", url).start().await?;
    let client = Client::at(child.url())?;
    let user = client.sign_up("Ada").await?;
    for fault in [Fault::Cut, Fault::BlackHole] {
        proxy.set(fault);
        for path in [user.path.as_str(), "users", "readyz"] {
            let response = client.target.get(path).await?;
            ensure!(header(&response, "retry-after") == "1", "{fault:?}: {response:?}");
            problem(response, 503).await?;
        }
        ensure!(client.target.get("healthz").await?.status() == 200);
        proxy.heal();
        client.read(&user.path).await?;
    }
    Ok(())
}

async fn the_service_says_that_it_lives_and_is_ready_and_stops_cleanly() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let mut child = fixture.serve().start().await?;
    lives_and_is_ready(&Target::new(child.url(), None)?).await?;
    let status = child.stop().await?;
    ensure!(status.success(), "SIGTERM should end in exit status 0: {status}");
    Ok(())
}
