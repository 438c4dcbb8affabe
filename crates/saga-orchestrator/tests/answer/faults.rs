//! What was once wrong, and must not be again?

use anyhow::{Context, ensure};
use conform::http::problem;
use lab::{
    child::Child,
    fault::{Fault, Proxy, Side},
    harness::{Outcome, eventually},
};
use reqwest::{Method, header::AUTHORIZATION};
use saga_orchestrator::{
    cases::client::{Client, changed, order},
    experiments::fixture::{self, ALL, Fixture, soon},
    store::{
        calls::{Answer, Asked},
        inventory,
    },
};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::{count, start};

lab::tests![
    time_in_which_no_orchestrator_lives_uses_up_no_patience,
    an_order_that_cannot_be_read_is_parked_once_and_goes_on_when_it_is_mended,
    the_last_item_is_refused_inside_a_transaction_too,
    with_a_key_nobody_gets_in_without_it,
    without_a_key_it_listens_on_loopback_only,
];

/// An orchestrator fails once with a call, and is then away for a minute. When it is back, it tries again: forward, and
/// on the way back.
async fn time_in_which_no_orchestrator_lives_uses_up_no_patience() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (participants, books) = fixture::start(fixture.serve_only(ALL)).await?;
    books.put_stock("book", 4).await?;
    let address = participants.address();
    let (payment, shipping) = (Proxy::to(address).await?, Proxy::to(address).await?);
    let orchestrator =
        fixture.orchestrator([address.parse()?, payment.address(), shipping.address()]);
    let (mut child, client) = fixture::start(orchestrator).await?;

    payment.set(Fault::Cut);
    let id = client.place_order("forward", &order("book")).await?;
    tried(&client, id, "charge").await?;
    child.kill().await?;
    a_minute_passes(&fixture, id).await?;
    payment.heal();
    child.restart().await?;
    client.ends(id, "confirmed").await?;
    books.had(id, [1, 0, 1, 0]).await?;

    let caught = shipping.at_message(shipping.messages() + 1, Side::Before);
    let id = client.place_order("back", &changed(order("book"), "address.country", "XX")).await?;
    let held = soon(caught).await?;
    payment.set(Fault::Cut);
    drop(held);
    tried(&client, id, "refund").await?;
    child.kill().await?;
    a_minute_passes(&fixture, id).await?;
    payment.heal();
    child.restart().await?;
    client.ends(id, "cancelled").await?;
    books.had(id, [1, 1, 0, 0]).await?;
    Ok(())
}

/// Waits until the order's step has failed.
async fn tried(client: &Client, id: Uuid, name: &str) -> Outcome {
    eventually("it was tried in vain", async || {
        let order = client.json(&format!("orders/{id}")).await?;
        let steps = order["steps"].as_array().into_iter().flatten();
        let mut failed = steps.filter(|step| step["name"] == name && step["attempts"] != 0);
        Ok(failed.next().map(drop))
    })
    .await
}

async fn a_minute_passes(fixture: &Fixture, id: Uuid) -> Outcome {
    let mut connection = PgConnection::connect(fixture.orders.url()).await?;
    for statement in [
        "update saga_log set at = at - interval '1 minute' where order_id = $1",
        "update orders set due_at = due_at - interval '1 minute' where id = $1",
    ] {
        sqlx::query(statement).bind(id).execute(&mut connection).await?;
    }
    Ok(connection.close().await?)
}

async fn an_order_that_cannot_be_read_is_parked_once_and_goes_on_when_it_is_mended() -> Outcome {
    let (fixture, _child, client) = start(&["--lease-ms", "5000"]).await?;
    client.put_stock("book", 2).await?;
    let mut connection = PgConnection::connect(fixture.orders.url()).await?;
    let id = Uuid::now_v7();
    sqlx::query(
        r#"
        with new as (
            insert into orders (id, idempotency_key, request, records)
            values ($1, 'odd', '{"customer_id": 5}', 1)
        )
        insert into saga_log (order_id, number, record, fence)
        values ($1, 1, '{"kind": "asked", "call": "reserve"}', 0)
        "#,
    )
    .bind(id)
    .execute(&mut connection)
    .await?;
    let parked = client.ends(id, "stuck").await?;
    ensure!(parked["reason"].as_str().is_some_and(|it| it.starts_with("the order:")), "{parked}");
    let records: i64 = sqlx::query_scalar("select count(*) from saga_log where order_id = $1")
        .bind(id)
        .fetch_one(&mut connection)
        .await?;
    ensure!(records == 2, "{records} records: asked, parked, and what else?");
    // Mended.
    sqlx::query("update orders set request = $1 where id = $2")
        .bind(order("book"))
        .bind(id)
        .execute(&mut connection)
        .await?;
    ensure!(client.retry(id).await?.0.status() == 202);
    client.ends(id, "confirmed").await?;
    Ok(connection.close().await?)
}

fn wants_one(id: u128) -> Asked {
    let order_id = Uuid::from_u128(id);
    let items = json!([{ "sku": "book", "quantity": 1 }]);
    let request = json!({ "order_id": order_id, "items": items });
    Asked { order_id, key: format!("{order_id}.reserve"), request }
}

async fn the_last_item_is_refused_inside_a_transaction_too() -> Outcome {
    let fixture = Fixture::fresh().await?;
    fixture.parts.stock(1).await?;
    let url = fixture.parts.inventory.url().to_owned();
    let mut first = PgConnection::connect(&url).await?;
    let mut transaction = first.begin().await?;
    ensure!(inventory::reserve(&mut transaction, &wants_one(1)).await? == Answer::Done);
    let second = tokio::spawn({
        let url = url.clone();
        async move {
            let mut second = PgConnection::connect(&url).await?;
            let mut transaction = second.begin().await?;
            let answer = inventory::reserve(&mut transaction, &wants_one(2)).await?;
            transaction.commit().await?;
            anyhow::Ok(answer)
        }
    });
    eventually("the second waits for the first", async || {
        let waits = r#"
            select count(*)
            from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock'
        "#;
        Ok((count(&url, waits).await? == 1).then_some(()))
    })
    .await?;
    transaction.commit().await?;
    let answer = second.await??;
    ensure!(matches!(answer, Answer::Refused(_)), "{answer:?}");
    Ok(())
}

async fn with_a_key_nobody_gets_in_without_it() -> Outcome {
    let (_fixture, _child, client) = start(&["--api-key", "s3cret"]).await?;
    let refund = json!({ "order_id": Uuid::now_v7() });
    let nobody = Uuid::now_v7();
    for keys in [&[][..], &["Bearer other"], &["Basic s3cret"], &["Bearer s3cret", "Bearer s3cret"]]
    {
        let shown = |mut request: reqwest::RequestBuilder| {
            for key in keys {
                request = request.header(AUTHORIZATION, *key);
            }
            request
        };
        for request in [
            client.keyed("payment/refund", "key", &refund),
            client.keyed("orders", "key", &order("book")),
            client.target.request(Method::POST, &format!("orders/{nobody}/retry")),
            client.target.request(Method::PUT, "inventory/stock/book"),
            client.target.request(Method::GET, "orders"),
            client.target.request(Method::GET, &format!("payment/effects/{nobody}")),
        ] {
            let refused = client.target.send(shown(request)).await?;
            ensure!(refused.headers()["www-authenticate"] == "Bearer", "{keys:?}");
            problem(refused, 401).await.with_context(|| format!("{keys:?}"))?;
        }
    }
    for path in ["healthz", "readyz"] {
        ensure!(client.target.get(path).await?.status() == 200, "{path}");
    }
    let shown = |request: reqwest::RequestBuilder| request.header(AUTHORIZATION, "bearer  s3cret");
    let put = client.target.request(Method::PUT, "inventory/stock/book");
    let put = client.target.send(shown(put).json(&json!({ "quantity": 2 }))).await?;
    ensure!(put.status() == 200, "{}", put.status());
    let placed = client.target.send(shown(client.keyed("orders", "key", &order("book")))).await?;
    ensure!(placed.status() == 202, "{}", placed.status());
    let id = placed.json::<Value>().await?["id"].as_str().unwrap_or_default().to_owned();
    // The orchestrator shows the key to its participants.
    eventually("the order is confirmed", async || {
        let get = client.target.request(Method::GET, &format!("orders/{id}"));
        let order: Value = client.target.send(shown(get)).await?.json().await?;
        Ok((order["status"] == "confirmed").then_some(()))
    })
    .await
}

async fn without_a_key_it_listens_on_loopback_only() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let open = fixture.serve().args(&["--host", "0.0.0.0"]);
    let started: anyhow::Result<Child> = open.clone().start().await;
    let error = started.err().context("it listens to everybody, and asks for no key")?;
    ensure!(format!("{error:#}").contains("--api-key"), "{error:#}");
    open.args(&["--api-key", "s3cret"]).start().await.map(drop)
}
