//! What needs a fault, or a look inside. It also runs the experiments, with quick parameters, and the cases.

use std::process::ExitCode;

use anyhow::{Context, ensure};
use conform::{
    case::Kind as CaseKind,
    http::{header, lives_and_is_ready, problem},
    target::{Target, eventually},
};
use futures_util::future::try_join_all;
use lab::{
    fault::{Fault, Proxy},
    harness::{Outcome, Served, run, somebody_waits},
};
use serde_json::json;
use sql_vs_nosql::{
    cases::{self, client::Client},
    entity::Kind,
    experiments::fixture::{Fixture, MODELS, customer, fields},
    store::Model,
};

fn main() -> ExitCode {
    run(sql_vs_nosql::answer(), || Box::pin(serve_for_cases()), tests())
}

/// The program as its cases want it.
async fn serve_for_cases() -> anyhow::Result<Served> {
    let fixture = Fixture::fresh().await?;
    Ok(Served::new(fixture.serve("tables").start().await?, fixture))
}

lab::tests![
    documents_pass_every_case,
    a_key_value_store_passes_every_case,
    every_promise_is_told_for_its_store,
    a_document_that_is_not_as_we_read_it_is_our_own_fault,
    a_customer_is_not_deleted_while_an_order_is_placed,
    a_name_that_looks_like_another_index_finds_nothing_else,
    of_two_writers_neither_undoes_the_other_in_any_store,
    every_write_says_where_in_the_log_it_is,
    a_replica_that_is_away_is_passed_over,
    many_small_changes_make_no_endless_customer,
    a_store_that_is_away_is_told_and_the_next_request_works,
    the_service_says_that_it_lives_and_is_ready_and_stops_cleanly,
];

/// All cases that need no server of their own.
async fn every_case(store: &str) -> Outcome {
    let fixture = Fixture::fresh().await?;
    let child = fixture.serve(store).start().await?;
    for case in cases::suite().cases {
        if case.kind != CaseKind::Restart {
            let target = Target::new(child.url(), None)?;
            (case.run)(&target).await.with_context(|| format!("{store}: {}", case.name))?;
        }
    }
    Ok(())
}

async fn documents_pass_every_case() -> Outcome {
    every_case("documents").await
}

async fn a_key_value_store_passes_every_case() -> Outcome {
    every_case("key-value").await
}

async fn every_promise_is_told_for_its_store() -> Outcome {
    let fixture = Fixture::fresh().await?;
    for (_, name) in MODELS {
        let (_child, client) = fixture.start(name).await?;
        let told = client.read("consistency").await?;
        ensure!(told["store"] == name, "{told}");
        ensure!(told["promises"].as_array().is_some_and(|it| it.len() == 7), "{told}");
    }
    Ok(())
}

async fn a_document_that_is_not_as_we_read_it_is_our_own_fault() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, client) = fixture.start("documents").await?;
    let drop = "alter table customer_documents drop constraint shape";
    sqlx::raw_sql(drop).execute(&fixture.pool).await?;
    let insert = "insert into customer_documents (id, body) values ('ada', $1)";
    let body = json!({ "name": 7, "balance_cents": 0 });
    sqlx::query(insert).bind(body).execute(&fixture.pool).await?;
    problem(client.target.get("customers/ada").await?, 500).await?;
    Ok(())
}

/// Without the lock, the look for orders would find none, and the customer would go.
async fn a_customer_is_not_deleted_while_an_order_is_placed() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, client) = fixture.start("documents").await?;
    let ada = client.customer("GB", 100).await?;
    let mut other = fixture.pool.begin().await?;
    let lock = "select body from customer_documents where id = $1 for update";
    sqlx::query(lock).bind(&ada).execute(&mut *other).await?;
    let order = "insert into order_documents (id, body) values ('o', jsonb_build_object('customer', $1::text))";
    sqlx::query(order).bind(&ada).execute(&mut *other).await?;
    let path = format!("customers/{ada}");
    let deleting = client.target.ask(reqwest::Method::DELETE, &path);
    let commit_when_it_waits = async {
        somebody_waits("the deletion waits for the order", &fixture.database).await?;
        Ok(other.commit().await?)
    };
    let (answer, ()) = tokio::try_join!(deleting, commit_when_it_waits)?;
    problem(answer, 409).await?;
    client.read(&path).await.map(drop)
}

async fn a_name_that_looks_like_another_index_finds_nothing_else() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, client) = fixture.start("key-value").await?;
    let body = json!({ "name": "Tea", "price_cents": 1, "colour=": "red" });
    client.put("products/tea", &body).await?;
    let found = client.read("products?colour=%3Dred").await?;
    ensure!(found["items"] == json!([]), "{found}");
    let found = client.read("products?colour%3D=red").await?;
    ensure!(found["items"][0]["id"] == "tea", "{found}");
    Ok(())
}

async fn of_two_writers_neither_undoes_the_other_in_any_store() -> Outcome {
    let fixture = Fixture::fresh().await?;
    for (model, name) in MODELS {
        let store = fixture.store(model)?;
        customer(&store, "ada", "GB", 0).await?;
        let writers = (0..16).map(|n| {
            let store = &store;
            async move {
                let add = |old: Option<_>| {
                    let mut new = fields(json!(old)).unwrap_or_default();
                    new.remove("balance_cents");
                    new.insert(format!("f{n}"), json!(n));
                    Kind::Customer.checked(new)
                };
                store.replace(Kind::Customer, "ada", add).await
            }
        });
        try_join_all(writers).await?;
        let (kept, _) = store.get(Kind::Customer, "ada", None).await?;
        let many = (0..16).filter(|n| kept.get(&format!("f{n}")) == Some(&json!(n))).count();
        ensure!(many == 16, "{name}: {many} of 16 changes are there");
    }
    Ok(())
}

/// The database stands in for its own replica: only what the writer hears is looked at.
async fn every_write_says_where_in_the_log_it_is() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let serve = fixture.serve("tables").args(&["--replica", fixture.database.url()]);
    let child = serve.start().await?;
    let client = Client::at(child.url())?;
    let (ada, tea) = (client.customer("GB", 100).await?, client.product(1, 10).await?);
    let other = format!("customers/{}", client.customer("GB", 0).await?);
    let one = json!({ "amount": 1 });
    for answer in [
        client.patch(&format!("customers/{ada}"), &json!({ "a": 1 })).await?,
        client.target.post(&format!("customers/{ada}/deposits"), &one).await?,
        client.target.post(&format!("products/{tea}/deliveries"), &one).await?,
        client.order(&ada, &tea, 1).await?,
        client.target.ask(reqwest::Method::DELETE, &other).await?,
    ] {
        ensure!(answer.status().is_success(), "{answer:?}");
        ensure!(!header(&answer, "written-at").is_empty(), "{answer:?}");
    }
    Ok(())
}

/// Here too the database stands in for its own replica. It is behind a link that breaks, or swallows everything.
async fn a_replica_that_is_away_is_passed_over() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let proxy = Proxy::to_url(fixture.database.url()).await?;
    let replica = proxy.url(fixture.database.url())?;
    let child = fixture.serve("tables").args(&["--replica", &replica]).start().await?;
    let client = Client::at(child.url())?;
    let path = format!("customers/{}", client.customer("GB", 0).await?);
    for fault in [Fault::Cut, Fault::BlackHole] {
        eventually("the replica serves", async || {
            let answer = client.target.get(&path).await?;
            ensure!(answer.status() == 200, "{answer:?}");
            Ok((header(&answer, "served-by") == "replica").then_some(()))
        })
        .await?;
        proxy.set(fault);
        let answer = client.target.get(&path).await?;
        ensure!(answer.status() == 200, "{fault:?}: {answer:?}");
        ensure!(header(&answer, "served-by") == "primary", "{fault:?}: {answer:?}");
        proxy.heal();
    }
    Ok(())
}

async fn many_small_changes_make_no_endless_customer() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (_child, client) = fixture.start("tables").await?;
    let path = format!("customers/{}", client.customer("GB", 0).await?);
    let long = "x".repeat(40_000);
    let first = client.patch(&path, &json!({ "a": long })).await?;
    ensure!(first.status() == 200, "{first:?}");
    problem(client.patch(&path, &json!({ "b": long })).await?, 422).await?;
    Ok(())
}

async fn a_store_that_is_away_is_told_and_the_next_request_works() -> Outcome {
    let fixture = Fixture::fresh().await?;
    for (model, name) in MODELS {
        let (database, redis) = (fixture.database.url(), fixture.keys.url());
        let is_redis = model == Model::KeyValue;
        let url = if is_redis { redis } else { database };
        let proxy = Proxy::to_url(url).await?;
        let through = proxy.url(url)?;
        let urls = if is_redis { (database, &*through) } else { (&*through, redis) };
        let child = fixture.serve_through(name, urls.0, urls.1).start().await?;
        let client = Client::at(child.url())?;
        let path = format!("customers/{}", client.customer("GB", 0).await?);
        for fault in [Fault::Cut, Fault::BlackHole] {
            proxy.set(fault);
            for path in [path.as_str(), "products", "readyz"] {
                let answer = client.target.get(path).await?;
                ensure!(header(&answer, "retry-after") == "1", "{name} {fault:?}: {answer:?}");
                problem(answer, 503).await?;
            }
            ensure!(client.target.get("healthz").await?.status() == 200);
            proxy.heal();
            let request = || client.target.request(reqwest::Method::GET, &path);
            let (answer, _) = client.target.send_patiently(request).await?;
            ensure!(answer.status() == 200, "{name} {fault:?}: {answer:?}");
        }
    }
    Ok(())
}

async fn the_service_says_that_it_lives_and_is_ready_and_stops_cleanly() -> Outcome {
    let fixture = Fixture::fresh().await?;
    for (_, name) in MODELS {
        let (mut child, _) = fixture.start(name).await?;
        lives_and_is_ready(&Target::new(child.url(), None)?).await?;
        let status = child.stop().await?;
        ensure!(status.success(), "SIGTERM should end in exit status 0: {status}");
    }
    Ok(())
}
