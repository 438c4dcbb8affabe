//! Does the saga do what its table of calls says? Over HTTP, as its clients and its participants would.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use lab::{child::Child, database::Database};
use reqwest::{Method, Response, header::HeaderValue};
use saga_orchestrator::{MIGRATIONS, experiments::queues::Queues};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    http::{client, header, invalid, problem, refuses_bad_bodies},
    support::{Outcome, eventually, tests},
};

tests![
    an_order_is_accepted_and_then_confirmed,
    the_same_key_gets_the_same_order_and_another_request_with_it_is_refused,
    fifty_requests_with_one_key_make_one_order,
    a_declined_payment_cancels_the_order_and_releases_the_stock,
    a_refused_address_refunds_and_releases_in_reverse,
    an_order_for_more_than_there_is_is_cancelled,
    an_order_of_several_items_reserves_all_or_none,
    a_stuck_order_is_listed_and_a_retry_finishes_it,
    orders_are_listed_in_pages,
    an_order_without_a_usable_key_is_refused,
    a_body_that_is_no_order_is_refused,
    every_field_of_an_order_is_checked,
    an_unknown_order_is_not_found,
    stock_is_put_and_shown,
    bad_stock_is_refused,
    a_participant_does_a_step_once_and_remembers_its_answer,
    what_was_undone_before_it_came_is_never_done,
    a_participant_refuses_bad_requests,
    a_participant_that_answers_nonsense_is_asked_again,
    a_log_record_that_no_code_of_ours_wrote_parks_the_order_and_no_other,
    the_services_run_apart,
    a_stopped_orchestrator_lets_go_of_its_orders,
    without_its_database_it_answers_503_and_then_works_again,
    the_choreographed_order_ends_in_the_same_ways,
    an_event_that_no_code_of_ours_wrote_holds_nothing_up,
    the_order_by_two_phase_commit_says_what_is_missing,
    a_wrong_method_is_not_allowed,
    the_service_says_that_it_lives_and_is_ready,
];

/// A database of the test's own, with a schema for each service: a fourth of the databases, and apart as well.
struct World {
    database: Database,
    http: reqwest::Client,
}

impl World {
    async fn new() -> anyhow::Result<Self> {
        let database = Database::fresh("saga-orchestrator", &MIGRATIONS).await?;
        let mut connection = PgConnection::connect(database.url()).await?;
        for name in ["inventory", "payment", "shipping"] {
            let create = format!("create schema {name}");
            sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut connection).await?;
        }
        connection.close().await?;
        Ok(Self { database, http: client()? })
    }

    /// The database, as one of the participants sees it.
    fn part(&self, name: &str) -> String {
        format!("{}?options=-c%20search_path%3D{name}", self.database.url())
    }

    async fn serve(&self, arguments: &[&str]) -> anyhow::Result<Child> {
        let mut child = Child::serve("saga-orchestrator").database(&self.database);
        for name in ["inventory", "payment", "shipping"] {
            child = child.arg(format!("--{name}-database")).arg(self.part(name));
        }
        child
            .args(&["--backoff-ms", "20", "--longest-backoff-ms", "100"])
            .args(arguments)
            .start()
            .await
    }

    async fn sql(&self, statement: &'static str) -> Outcome {
        let mut connection = PgConnection::connect(self.database.url()).await?;
        sqlx::raw_sql(statement).execute(&mut connection).await?;
        Ok(connection.close().await?)
    }
}

/// The service, spoken to in its own words.
struct Api {
    world: Arc<World>,
    child: Child,
}

impl Api {
    async fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        let world = Arc::new(World::new().await?);
        let child = world.serve(arguments).await?;
        Ok(Self { world, child })
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.world.http.request(method, format!("{}/{path}", self.child.url()))
    }

    async fn get(&self, path: &str) -> anyhow::Result<Response> {
        Ok(self.request(Method::GET, path).send().await?)
    }

    async fn json(&self, path: &str) -> anyhow::Result<Value> {
        let response = self.get(path).await?;
        ensure!(response.status() == 200, "{path}: {}", response.text().await?);
        Ok(response.json().await?)
    }

    /// A participant's call, or an order, with its key.
    async fn post(&self, path: &str, key: &str, body: &Value) -> anyhow::Result<Response> {
        let request = self.request(Method::POST, path).header("idempotency-key", key);
        Ok(request.json(body).send().await?)
    }

    async fn stock(&self, sku: &str, quantity: i64) -> Outcome {
        let put = self.request(Method::PUT, &format!("inventory/stock/{sku}"));
        let response = put.json(&json!({ "quantity": quantity })).send().await?;
        ensure!(response.status() == 200, "{}", response.text().await?);
        Ok(())
    }

    async fn stock_of(&self, sku: &str) -> anyhow::Result<(Value, Value, Value)> {
        let stock = self.json(&format!("inventory/stock/{sku}")).await?;
        Ok((stock["available"].clone(), stock["reserved"].clone(), stock["sold"].clone()))
    }

    /// Places an order that must be accepted, and returns its id.
    async fn order(&self, key: &str, order: &Value) -> anyhow::Result<String> {
        let response = self.post("orders", key, order).await?;
        let status = response.status();
        let body = response.text().await?;
        ensure!(status == 202, "{status}: {body}");
        let body: Value = serde_json::from_str(&body)?;
        Ok(body["id"].as_str().context("no id")?.to_owned())
    }

    /// The order, once it has come to rest.
    async fn ended(&self, id: &str) -> anyhow::Result<Value> {
        eventually("the order comes to rest", async || {
            let order = self.json(&format!("orders/{id}")).await?;
            let rests = ["confirmed", "cancelled", "stuck"].iter().any(|it| order["status"] == *it);
            Ok(rests.then_some(order))
        })
        .await
    }

    /// Charges and refunds, shipments that are booked and that are cancelled.
    async fn effects(&self, id: &str) -> anyhow::Result<[usize; 4]> {
        let payments = self.json(&format!("payment/payments?order_id={id}")).await?;
        let shipments = self.json(&format!("shipping/shipments?order_id={id}")).await?;
        let shipments = shipments["shipments"].as_array().context("no shipments")?.clone();
        let count = |list: &Value| list.as_array().map(Vec::len).context("no list");
        let of =
            |status: &str| shipments.iter().filter(|parcel| parcel["status"] == status).count();
        Ok([
            count(&payments["charges"])?,
            count(&payments["refunds"])?,
            of("booked"),
            of("cancelled"),
        ])
    }
}

fn order() -> Value {
    json!({
        "customer_id": "c-1",
        "items": [{ "sku": "book", "quantity": 2 }],
        "amount_cents": 2_500,
        "payment_method": "pm_card_visa",
        "address": { "name": "Ada", "street": "1 Lane", "city": "London", "country": "GB" },
    })
}

/// An order with one thing changed: `changed("address.country", "XX")`.
fn changed(path: &str, value: impl Into<Value>) -> Value {
    let mut order = order();
    let pointer = format!("/{}", path.replace('.', "/"));
    if let Some(field) = order.pointer_mut(&pointer) {
        *field = value.into();
    }
    order
}

fn statuses(order: &Value) -> Vec<String> {
    let steps = order["steps"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    steps.map(|step| format!("{} {}", text(&step["name"]), text(&step["status"]))).collect()
}

async fn an_order_is_accepted_and_then_confirmed() -> Outcome {
    let api = Api::start(&[]).await?;
    api.stock("book", 3).await?;
    let response = api.post("orders", "first", &order()).await?;
    ensure!(response.status() == 202, "{}", response.text().await?);
    let location = header(&response, "location").to_owned();
    let body: Value = response.json().await?;
    let id = body["id"].as_str().context("no id")?;
    ensure!(location == format!("/orders/{id}"), "{location}");
    ensure!(body["status"] == "pending" && body["steps"].is_array(), "{body}");
    let order = api.ended(id).await?;
    ensure!(order["status"] == "confirmed" && order["id"] == id, "{order}");
    let expected = ["reserve done", "charge done", "book done", "sell done"];
    ensure!(statuses(&order) == expected, "{order}");
    for step in order["steps"].as_array().context("no steps")? {
        ensure!(step["attempts"] == 1 && step["last_error"].is_null(), "{step}");
        let at = step["at"].as_str().context("no time")?;
        time::OffsetDateTime::parse(at, &time::format_description::well_known::Rfc3339)?;
    }
    ensure!(api.stock_of("book").await? == (json!(1), json!(0), json!(2)));
    ensure!(api.effects(id).await? == [1, 0, 1, 0]);
    let payments = api.json(&format!("payment/payments?order_id={id}")).await?;
    ensure!(payments["charges"][0]["amount_cents"] == 2_500, "{payments}");
    Ok(())
}

async fn the_same_key_gets_the_same_order_and_another_request_with_it_is_refused() -> Outcome {
    let api = Api::start(&[]).await?;
    api.stock("book", 10).await?;
    let id = api.order("again", &order()).await?;
    ensure!(api.order("again", &order()).await? == id);
    api.ended(&id).await?;
    let again = api.post("orders", "again", &order()).await?;
    ensure!(again.status() == 202 && header(&again, "location").ends_with(&id));
    ensure!(again.json::<Value>().await?["status"] == "confirmed");
    problem(api.post("orders", "again", &changed("amount_cents", 2_501)).await?, 422).await?;
    ensure!(api.order("another", &order()).await? != id);
    eventually("both are sold", async || {
        Ok((api.stock_of("book").await? == (json!(6), json!(0), json!(4))).then_some(()))
    })
    .await
}

async fn fifty_requests_with_one_key_make_one_order() -> Outcome {
    let api = Api::start(&[]).await?;
    api.stock("book", 1_000).await?;
    let body = order();
    let ids =
        futures_util::future::try_join_all((0..50).map(|_| api.order("crowd", &body))).await?;
    ensure!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    ensure!(api.ended(&ids[0]).await?["status"] == "confirmed");
    ensure!(api.effects(&ids[0]).await? == [1, 0, 1, 0]);
    ensure!(api.stock_of("book").await? == (json!(998), json!(0), json!(2)));
    Ok(())
}

async fn a_declined_payment_cancels_the_order_and_releases_the_stock() -> Outcome {
    let api = Api::start(&[]).await?;
    api.stock("book", 2).await?;
    let id = api.order("declined", &changed("payment_method", "pm_card_chargeDeclined")).await?;
    let order = api.ended(&id).await?;
    ensure!(order["status"] == "cancelled", "{order}");
    let expected =
        ["reserve compensated", "charge refused", "book skipped", "sell skipped", "release done"];
    ensure!(statuses(&order) == expected, "{order}");
    ensure!(order["steps"][1]["last_error"] == "the card was declined", "{order}");
    ensure!(api.effects(&id).await? == [0, 0, 0, 0]);
    ensure!(api.stock_of("book").await? == (json!(2), json!(0), json!(0)));
    Ok(())
}

async fn a_refused_address_refunds_and_releases_in_reverse() -> Outcome {
    let api = Api::start(&[]).await?;
    api.stock("book", 2).await?;
    let id = api.order("nowhere", &changed("address.country", "XX")).await?;
    let order = api.ended(&id).await?;
    ensure!(order["status"] == "cancelled", "{order}");
    let expected = [
        "reserve compensated",
        "charge compensated",
        "book refused",
        "sell skipped",
        "refund done",
        "release done",
    ];
    ensure!(statuses(&order) == expected, "{order}");
    ensure!(api.effects(&id).await? == [1, 1, 0, 0]);
    let payments = api.json(&format!("payment/payments?order_id={id}")).await?;
    ensure!(payments["refunds"][0]["amount_cents"] == 2_500, "{payments}");
    ensure!(api.stock_of("book").await? == (json!(2), json!(0), json!(0)));
    Ok(())
}

async fn an_order_for_more_than_there_is_is_cancelled() -> Outcome {
    let api = Api::start(&[]).await?;
    api.stock("book", 1).await?;
    for (key, order) in [("too many", order()), ("unknown", changed("items.0.sku", "no-such-sku"))]
    {
        let id = api.order(key, &order).await?;
        let order = api.ended(&id).await?;
        ensure!(order["status"] == "cancelled", "{order}");
        ensure!(statuses(&order)[0] == "reserve refused", "{order}");
        ensure!(order["reason"].is_string(), "{order}");
        ensure!(api.effects(&id).await? == [0, 0, 0, 0]);
    }
    ensure!(api.stock_of("book").await? == (json!(1), json!(0), json!(0)));
    Ok(())
}

async fn an_order_of_several_items_reserves_all_or_none() -> Outcome {
    let api = Api::start(&[]).await?;
    api.stock("book", 5).await?;
    api.stock("pen", 1).await?;
    let items =
        |pens: i64| json!([{ "sku": "book", "quantity": 2 }, { "sku": "pen", "quantity": pens }]);
    let id = api.order("too many pens", &changed("items", items(2))).await?;
    ensure!(api.ended(&id).await?["status"] == "cancelled");
    ensure!(api.stock_of("book").await? == (json!(5), json!(0), json!(0)));
    let id = api.order("one pen", &changed("items", items(1))).await?;
    ensure!(api.ended(&id).await?["status"] == "confirmed");
    ensure!(api.stock_of("book").await? == (json!(3), json!(0), json!(2)));
    ensure!(api.stock_of("pen").await? == (json!(0), json!(0), json!(1)));
    Ok(())
}

async fn a_stuck_order_is_listed_and_a_retry_finishes_it() -> Outcome {
    let api = Api::start(&["--deadline-ms", "200"]).await?;
    api.stock("book", 2).await?;
    // The refund fails as long as its ledger takes none.
    api.world
        .sql("alter table payment.ledger add constraint closed check (kind <> 'refund')")
        .await?;
    let id = api.order("stuck", &changed("address.country", "XX")).await?;
    let order = api.ended(&id).await?;
    ensure!(order["status"] == "stuck", "{order}");
    ensure!(order["reason"].as_str().unwrap_or_default().starts_with("refund: 500"), "{order}");
    ensure!(statuses(&order)[4] == "refund stuck", "{order}");
    let listed = api.json("orders?status=stuck").await?;
    ensure!(listed["orders"][0]["id"] == id.as_str() && listed["next"].is_null(), "{listed}");
    ensure!(api.json("orders?status=confirmed").await?["orders"] == json!([]));
    ensure!(api.stock_of("book").await? == (json!(0), json!(2), json!(0)));

    api.world.sql("alter table payment.ledger drop constraint closed").await?;
    let path = format!("orders/{id}/retry");
    let retried = api.request(Method::POST, &path).send().await?;
    ensure!(retried.status() == 202, "{}", retried.text().await?);
    ensure!(header(&retried, "location") == format!("/orders/{id}"));
    let body: Value = retried.json().await?;
    ensure!(body["id"] == id.as_str() && body["status"] == "cancelling", "{body}");
    ensure!(api.ended(&id).await?["status"] == "cancelled");
    ensure!(api.effects(&id).await? == [1, 1, 0, 0]);
    ensure!(api.stock_of("book").await? == (json!(2), json!(0), json!(0)));
    // It is not stuck any more.
    problem(api.request(Method::POST, &path).send().await?, 409).await?;
    Ok(())
}

async fn orders_are_listed_in_pages() -> Outcome {
    let api = Api::start(&[]).await?;
    let mut ids = Vec::new();
    for number in 0..7 {
        ids.push(api.order(&format!("order-{number}"), &order()).await?);
    }
    // There is nothing in stock, so each of them is cancelled.
    for id in &ids {
        ensure!(api.ended(id).await?["status"] == "cancelled");
    }
    for first in ["/orders?limit=3", "/orders?status=cancelled&limit=3"] {
        let (mut seen, mut next, mut pages) = (Vec::new(), first.to_owned(), 0);
        loop {
            let page = api.json(next.trim_start_matches('/')).await?;
            let orders = page["orders"].as_array().context("no orders")?;
            ensure!(orders.len() <= 3, "{page}");
            seen.extend(orders.iter().filter_map(|order| order["id"].as_str().map(str::to_owned)));
            pages += 1;
            let Some(following) = page["next"].as_str() else { break };
            ensure!(first.contains("status=") == following.contains("status="), "{following}");
            following.clone_into(&mut next);
        }
        ensure!(seen == ids && pages == 3, "{first}, {pages} pages: {seen:?}");
    }
    ensure!(api.json("orders?status=confirmed").await?["orders"] == json!([]));
    for query in ["limit=0", "limit=101", "limit=x", "status=lost", "after=1", "sort=id"] {
        problem(api.get(&format!("orders?{query}")).await?, 422).await.context(query)?;
    }
    Ok(())
}

async fn an_order_without_a_usable_key_is_refused() -> Outcome {
    let api = Api::start(&[]).await?;
    let send = async |keys: &[&[u8]]| {
        let mut request = api.request(Method::POST, "orders").json(&order());
        for key in keys {
            request = request.header("idempotency-key", HeaderValue::from_bytes(key)?);
        }
        anyhow::Ok(request.send().await?)
    };
    let long = "k".repeat(129);
    let bad: [&[&[u8]]; 6] =
        [&[], &[b""], &[b"  "], &[b"\xff\xfe"], &[long.as_bytes()], &[b"a", b"b"]];
    for keys in bad {
        problem(send(keys).await?, 400).await.with_context(|| format!("{keys:?}"))?;
    }
    ensure!(send(&[b"a key of its own, 1"]).await?.status() == 202);
    ensure!(api.json("orders").await?["orders"].as_array().context("no orders")?.len() == 1);
    Ok(())
}

async fn a_body_that_is_no_order_is_refused() -> Outcome {
    let api = Api::start(&[]).await?;
    let request = || api.request(Method::POST, "orders").header("idempotency-key", "good");
    refuses_bad_bodies(request, &order()).await?;
    let good = order().to_string();
    for bad in [
        good.replace("2500", "\"2500\""),
        good.replace("2500", "25.5"),
        good.replace("2500", "1e400"),
        good.replace("2500", "99999999999999999999999"),
        good.replace("\"c-1\"", "null"),
        good.replace("customer_id", "customerid"),
        good.replace("{\"quantity\":2,", "{\"quantity\":2,\"quantity\":3,"),
        good.replace("\"city\":", "\"planet\":\"Earth\",\"city\":"),
    ] {
        ensure!(bad != good, "nothing was changed");
        let request = request().header("content-type", "application/json").body(bad.clone());
        let response = request.send().await?;
        let status = response.status().as_u16();
        ensure!(matches!(status, 400 | 422), "{bad}: {status}");
        problem(response, status).await.context(bad)?;
    }
    Ok(())
}

async fn every_field_of_an_order_is_checked() -> Outcome {
    let api = Api::start(&[]).await?;
    let item = |sku: &str, quantity: i64| json!({ "sku": sku, "quantity": quantity });
    let many: Vec<_> = (0..101).map(|n| item(&format!("sku-{n}"), 1)).collect();
    let long = "x".repeat(201);
    let mut cases: Vec<(&str, Value, &str)> = vec![
        ("items", json!([]), "items"),
        ("items", json!(many), "items"),
        ("items", json!([item("book", 1), item("book", 2)]), "items[1].sku"),
        ("customer_id", json!(""), "customer_id"),
        ("customer_id", json!("a\u{0}b"), "customer_id"),
        ("customer_id", json!("c".repeat(65)), "customer_id"),
        ("items.0.sku", json!("a b"), "items[0].sku"),
        ("items.0.sku", json!("../etc"), "items[0].sku"),
        ("payment_method", json!(""), "payment_method"),
        ("address.name", json!(""), "address.name"),
        ("address.street", json!("a\r\nb"), "address.street"),
        ("address.city", json!(long), "address.city"),
        ("address.country", json!("GBR"), "address.country"),
        ("address.country", json!("gb"), "address.country"),
        ("address.country", json!("ÄÄ"), "address.country"),
    ];
    for number in [i64::MIN, -1, 0, 1_000_001, i64::MAX] {
        cases.push(("items.0.quantity", json!(number), "items[0].quantity"));
    }
    for number in [i64::MIN, -1, 0, 10_000_000_001, i64::MAX] {
        cases.push(("amount_cents", json!(number), "amount_cents"));
    }
    for (path, value, field) in cases {
        let words = format!("{path} = {value:.60}");
        let response = api.post("orders", "bad", &changed(path, value)).await?;
        invalid(response, field).await.context(words)?;
    }
    // Nothing of it was kept, and the next one works.
    ensure!(api.json("orders").await?["orders"] == json!([]));
    api.order("good", &order()).await?;
    Ok(())
}

async fn an_unknown_order_is_not_found() -> Outcome {
    let api = Api::start(&[]).await?;
    let id = "00000000-0000-7000-8000-000000000000";
    for path in [&format!("orders/{id}"), "orders/1", "orders/%00", "orders/%ff%fe", "no/such/path"]
    {
        problem(api.get(path).await?, 404).await.context((*path).to_owned())?;
    }
    let retry = api.request(Method::POST, &format!("orders/{id}/retry")).send().await?;
    problem(retry, 404).await?;
    // The participants never know whether there is such an order: to them it has had no effects.
    ensure!(api.effects(id).await? == [0, 0, 0, 0]);
    for path in ["payment/payments", "shipping/shipments"] {
        for query in ["", "?order_id=", "?order_id=1", "?order_id=%ff"] {
            invalid(api.get(&format!("{path}{query}")).await?, "order_id").await.context(path)?;
        }
    }
    Ok(())
}

async fn stock_is_put_and_shown() -> Outcome {
    let api = Api::start(&[]).await?;
    problem(api.get("inventory/stock/book").await?, 404).await?;
    let put = api.request(Method::PUT, "inventory/stock/book").json(&json!({ "quantity": 7 }));
    let response = put.send().await?;
    ensure!(response.status() == 200);
    let stock = json!({ "sku": "book", "available": 7, "reserved": 0, "sold": 0 });
    ensure!(response.json::<Value>().await? == stock);
    ensure!(api.json("inventory/stock/book").await? == stock);
    api.stock("book", 0).await?;
    ensure!(api.stock_of("book").await? == (json!(0), json!(0), json!(0)));
    Ok(())
}

async fn bad_stock_is_refused() -> Outcome {
    let api = Api::start(&[]).await?;
    for quantity in [i64::MIN, -1, 1_000_001, i64::MAX] {
        let put = api.request(Method::PUT, "inventory/stock/book");
        let response = put.json(&json!({ "quantity": quantity })).send().await?;
        invalid(response, "quantity").await?;
    }
    let long = "x".repeat(65);
    for sku in ["a%20b", "a%00b", "%ff%fe", long.as_str()] {
        let path = format!("inventory/stock/{sku}");
        let put = api.request(Method::PUT, &path).json(&json!({ "quantity": 1 })).send().await?;
        invalid(put, "sku").await.context(path.clone())?;
        problem(api.get(&path).await?, 404).await.context(path)?;
    }
    let request = || api.request(Method::PUT, "inventory/stock/book");
    refuses_bad_bodies(request, &json!({ "quantity": 1 })).await
}

async fn a_participant_does_a_step_once_and_remembers_its_answer() -> Outcome {
    let api = Api::start(&["--only", "inventory,payment,shipping"]).await?;
    let id = "00000000-0000-7000-8000-000000000001";
    api.stock("book", 5).await?;
    let items = json!([{ "sku": "book", "quantity": 2 }]);
    let calls = [
        ("inventory/reserve", json!({ "order_id": id, "items": items })),
        (
            "payment/charge",
            json!({ "order_id": id, "amount_cents": 100, "payment_method": "pm_card_visa" }),
        ),
        ("shipping/book", json!({ "order_id": id, "address": order()["address"] })),
    ];
    for (path, body) in &calls {
        for _ in 0..3 {
            let response = api.post(path, "do", body).await?;
            ensure!(response.status() == 200, "{path}: {}", response.text().await?);
            ensure!(
                response.json::<Value>().await? == json!({ "order_id": id, "outcome": "done" })
            );
        }
        // Another key is another step, and the order has had this one. Another request is no repetition.
        let refused = problem(api.post(path, "another", body).await?, 409).await?;
        ensure!(refused["order_id"] == id, "{refused}");
    }
    let other = json!({ "order_id": id, "amount_cents": 101, "payment_method": "pm_card_visa" });
    problem(api.post("payment/charge", "do", &other).await?, 422).await?;
    ensure!(api.stock_of("book").await? == (json!(3), json!(2), json!(0)));
    ensure!(api.effects(id).await? == [1, 0, 1, 0]);

    for path in ["shipping/cancel", "payment/refund", "inventory/release"] {
        for key in ["undo", "undo", "undo it again"] {
            let response = api.post(path, key, &json!({ "order_id": id })).await?;
            ensure!(response.status() == 200, "{path}: {}", response.text().await?);
        }
    }
    ensure!(api.stock_of("book").await? == (json!(5), json!(0), json!(0)));
    ensure!(api.effects(id).await? == [1, 1, 0, 1]);
    // A refusal is remembered too, also when there would be enough by now.
    let id = "00000000-0000-7000-8000-000000000002";
    let items = json!([{ "sku": "book", "quantity": 6 }]);
    let body = json!({ "order_id": id, "items": items });
    problem(api.post("inventory/reserve", "do", &body).await?, 409).await?;
    api.stock("book", 10).await?;
    problem(api.post("inventory/reserve", "do", &body).await?, 409).await?;
    problem(api.post("inventory/sell", "sell", &json!({ "order_id": id })).await?, 409).await?;
    Ok(())
}

async fn what_was_undone_before_it_came_is_never_done() -> Outcome {
    let api = Api::start(&["--only", "inventory,payment,shipping"]).await?;
    api.stock("book", 5).await?;
    let id = "00000000-0000-7000-8000-000000000003";
    for path in ["inventory/release", "payment/refund", "shipping/cancel"] {
        let response = api.post(path, "undo", &json!({ "order_id": id })).await?;
        ensure!(response.status() == 200, "{path}: {}", response.text().await?);
    }
    let items = json!([{ "sku": "book", "quantity": 2 }]);
    for (path, body) in [
        ("inventory/reserve", json!({ "order_id": id, "items": items })),
        (
            "payment/charge",
            json!({ "order_id": id, "amount_cents": 1, "payment_method": "pm_card_visa" }),
        ),
        ("shipping/book", json!({ "order_id": id, "address": order()["address"] })),
        ("inventory/sell", json!({ "order_id": id })),
    ] {
        let refused = problem(api.post(path, "do", &body).await?, 409).await.context(path)?;
        ensure!(refused["order_id"] == id, "{refused}");
    }
    ensure!(api.stock_of("book").await? == (json!(5), json!(0), json!(0)));
    ensure!(api.effects(id).await? == [0, 0, 0, 0]);
    Ok(())
}

async fn a_participant_refuses_bad_requests() -> Outcome {
    let api = Api::start(&["--only", "inventory,payment,shipping"]).await?;
    let id = "00000000-0000-7000-8000-000000000004";
    let charge = |amount: i64, method: &str| json!({ "order_id": id, "amount_cents": amount, "payment_method": method });
    for amount in [i64::MIN, -1, 0] {
        let response = api.post("payment/charge", "bad", &charge(amount, "pm_card_visa")).await?;
        invalid(response, "amount_cents").await?;
    }
    let declined = api.post("payment/charge", "bad", &charge(1, "pm_unheard_of")).await?;
    problem(declined, 409).await?;
    let reserve = json!({ "order_id": id, "items": [{ "sku": "book", "quantity": -1 }] });
    invalid(api.post("inventory/reserve", "bad", &reserve).await?, "items[0].quantity").await?;
    let book = json!({ "order_id": id, "address": changed("address.city", "")["address"] });
    invalid(api.post("shipping/book", "bad", &book).await?, "address.city").await?;
    invalid(api.post("payment/refund", "bad", &json!({ "order_id": "1" })).await?, "order_id")
        .await?;
    let without_key = api.request(Method::POST, "payment/refund").json(&json!({ "order_id": id }));
    problem(without_key.send().await?, 400).await?;
    let good = json!({ "order_id": id });
    let request = || api.request(Method::POST, "payment/refund").header("idempotency-key", "good");
    refuses_bad_bodies(request, &good).await
}

/// A participant that answers every request with these bytes, as long as this is there.
struct Nonsense {
    url: String,
    _serving: tokio_util::task::AbortOnDropHandle<()>,
}

impl Nonsense {
    async fn start(answer: String) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/payment", listener.local_addr()?);
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4_096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Ok(Self { url, _serving: tokio_util::task::AbortOnDropHandle::new(serving) })
    }
}

async fn a_participant_that_answers_nonsense_is_asked_again() -> Outcome {
    let other = r#"{"order_id":"00000000-0000-7000-8000-000000000009","outcome":"done"}"#;
    let answer = |head: &str, body: &str| {
        format!(
            "HTTP/1.1 {head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    };
    let html = "<html><body>Welcome to nginx!\u{0}</body></html>";
    let refusal = r#"{"order_id":"00000000-0000-7000-8000-000000000009","detail":"no"}"#;
    let problem_head = "409 Conflict\r\ncontent-type: application/problem+json";
    let huge = "x".repeat(1_000_000);
    for (name, nonsense) in [
        ("HTML", answer("200 OK\r\ncontent-type: text/html", html)),
        ("an HTML refusal", answer("404 Not Found\r\ncontent-type: text/html", html)),
        ("nothing", answer("200 OK", "")),
        ("no answer at all", String::new()),
        ("no HTTP", "220 mail.example ESMTP\r\n".to_owned()),
        ("the wrong order", answer("200 OK\r\ncontent-type: application/json", other)),
        ("the wrong order's refusal", answer(problem_head, refusal)),
        ("a megabyte", answer("200 OK\r\ncontent-type: application/json", &huge)),
        ("a redirect", answer("302 Found\r\nlocation: http://127.0.0.1:1/", "")),
    ] {
        let world = Arc::new(World::new().await?);
        let participants = world.serve(&["--only", "inventory,payment,shipping"]).await?;
        let liar = Nonsense::start(nonsense).await?;
        let at = |name: &str| format!("{}/{name}", participants.url());
        let (inventory, shipping) = (at("inventory"), at("shipping"));
        let arguments =
            ["--only", "orchestrator", "--deadline-ms", "60", "--inventory-url", &inventory];
        let arguments =
            [&arguments[..], &["--shipping-url", &shipping, "--payment-url", &liar.url]].concat();
        let child = world.serve(&arguments).await?;
        let api = Api { world: world.clone(), child };
        let books = Api { world: world.clone(), child: participants };
        books.stock("book", 2).await?;
        // It may have charged. So the refund is asked for, and as that is nonsense too, a human is needed.
        let id = api.order("nonsense", &order()).await?;
        let order = api.ended(&id).await.context(name)?;
        ensure!(order["status"] == "stuck", "{name}: {order}");
        ensure!(statuses(&order)[1] == "charge given_up", "{name}: {order}");
        ensure!(order["steps"][1]["last_error"].is_string(), "{name}: {order}");
        let arguments = ["--only", "orchestrator", "--port", "0"];
        drop((api.child, liar));
        let payment = format!("{}/payment", books.child.url());
        let arguments =
            [&arguments[..], &["--inventory-url", &inventory, "--shipping-url", &shipping]];
        let arguments = [&arguments.concat()[..], &["--payment-url", &payment]].concat();
        let api = Api { child: world.serve(&arguments).await?, world };
        let path = format!("orders/{id}/retry");
        ensure!(api.request(Method::POST, &path).send().await?.status() == 202, "{name}");
        ensure!(api.ended(&id).await?["status"] == "cancelled", "{name}");
        ensure!(books.effects(&id).await? == [0, 0, 0, 0], "{name}");
        ensure!(books.stock_of("book").await? == (json!(2), json!(0), json!(0)), "{name}");
    }
    Ok(())
}

async fn a_log_record_that_no_code_of_ours_wrote_parks_the_order_and_no_other() -> Outcome {
    for record in [
        r#"{"kind": "teleported"}"#,
        r#"{"kind": "done", "call": "fly"}"#,
        r#"{"kind": "done", "call": "book"}"#,
        r#"["asked"]"#,
        r#"{"kind": "confirmed"}"#,
        r#"{"kind": "cancelled"}"#,
        r#"{"kind": "asked", "call": "charge", "by": "somebody"}"#,
    ] {
        let api = Api::start(&["--deadline-ms", "100"]).await?;
        api.stock("book", 10).await?;
        let id = {
            // Parked first, so that nobody works on it while we write into its log.
            api.world
                .sql("alter table payment.ledger add constraint closed check (kind <> 'refund')")
                .await?;
            let id = api.order("odd", &changed("address.country", "XX")).await?;
            ensure!(api.ended(&id).await?["status"] == "stuck");
            api.world.sql("alter table payment.ledger drop constraint closed").await?;
            id
        };
        let mut connection = PgConnection::connect(api.world.database.url()).await?;
        sqlx::query("update saga_log set record = $1::jsonb where number = 3")
            .bind(record)
            .execute(&mut connection)
            .await?;
        let shown = api.json(&format!("orders/{id}")).await?;
        ensure!(shown["status"] == "stuck", "{shown}");
        let retry = api.request(Method::POST, &format!("orders/{id}/retry")).send().await?;
        let refused = problem(retry, 409).await?;
        let detail = refused["detail"].as_str().unwrap_or_default();
        ensure!(detail.contains("record 3 of the log"), "{record}: {refused}");
        // Also if it is claimed: it is parked again, and nothing was done on the strength of such a log.
        sqlx::query("update orders set status = 'pending', due_at = now(), leased = false")
            .execute(&mut connection)
            .await?;
        sqlx::query("delete from saga_log where record ->> 'kind' = 'parked'")
            .execute(&mut connection)
            .await?;
        connection.close().await?;
        let parked = api.ended(&id).await?;
        ensure!(parked["status"] == "stuck", "{parked}");
        ensure!(parked["reason"].as_str().unwrap_or_default().contains("record 3"), "{parked}");
        ensure!(api.effects(&id).await? == [1, 0, 0, 0], "{record}");
        // The others go on.
        let other = api.order("other", &order()).await?;
        ensure!(api.ended(&other).await?["status"] == "confirmed");
    }
    Ok(())
}

async fn the_services_run_apart() -> Outcome {
    let world = Arc::new(World::new().await?);
    let inventory = world.serve(&["--only", "inventory"]).await?;
    let payment = world.serve(&["--only", "payment"]).await?;
    let shipping = world.serve(&["--only", "shipping"]).await?;
    // Apart, a participant has its calls also without its name before them.
    let arguments = [
        "--only".to_owned(),
        "orchestrator".to_owned(),
        "--inventory-url".to_owned(),
        inventory.url().to_owned(),
        "--payment-url".to_owned(),
        format!("{}/payment", payment.url()),
        "--shipping-url".to_owned(),
        format!("{}/shipping/", shipping.url()),
    ];
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let api = Api { child: world.serve(&arguments).await?, world: world.clone() };
    problem(api.get("inventory/stock/book").await?, 404).await?;
    let stock = Api { child: inventory, world };
    stock.stock("book", 2).await?;
    problem(stock.get("orders").await?, 404).await?;
    let id = api.order("apart", &order()).await?;
    ensure!(api.ended(&id).await?["status"] == "confirmed");
    ensure!(stock.json("stock/book").await?["sold"] == 2);
    Ok(())
}

async fn a_stopped_orchestrator_lets_go_of_its_orders() -> Outcome {
    let mut api = Api::start(&["--lease-ms", "10000"]).await?;
    api.stock("book", 1_000).await?;
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(api.order(&format!("order-{number}"), &order()).await?);
    }
    let status = api.child.stop().await?;
    ensure!(status.success(), "SIGTERM should end in exit status 0: {status}");
    // On a machine so busy that the database did not answer in time, a claim may have been left to its lease.
    let log = api.child.log();
    let stalls = ["left an order", "cannot look for orders", "fenced off"];
    let was_stalled = stalls.iter().any(|words| log.contains(words));
    api.child.restart().await?;
    for id in &ids {
        ensure!(api.ended(id).await?["status"] == "confirmed");
        ensure!(api.effects(id).await? == [1, 0, 1, 0]);
    }
    ensure!(api.stock_of("book").await? == (json!(960), json!(0), json!(40)));
    // What was let go of is claimed, and only what was left has to be taken over.
    let mut connection = PgConnection::connect(api.world.database.url()).await?;
    let taken_over: i64 =
        sqlx::query_scalar("select count(*) from saga_log where record ->> 'kind' = 'taken_over'")
            .fetch_one(&mut connection)
            .await?;
    connection.close().await?;
    ensure!(taken_over == 0 || was_stalled, "{taken_over} orders were not let go of: {log}");
    Ok(())
}

async fn without_its_database_it_answers_503_and_then_works_again() -> Outcome {
    let world = Arc::new(World::new().await?);
    let proxy = lab::fault::Proxy::to_url(world.database.url()).await?;
    let child = Child::serve("saga-orchestrator")
        .env("DATABASE_URL", proxy.url(world.database.url())?)
        .args(&["--only", "orchestrator"]);
    let api = Api { child: child.start().await?, world };
    for fault in [lab::fault::Fault::Cut, lab::fault::Fault::BlackHole] {
        proxy.set(fault);
        for path in ["readyz", "orders"] {
            let response = api.get(path).await?;
            ensure!(!header(&response, "retry-after").is_empty(), "{path}: no Retry-After");
            problem(response, 503).await.context(path)?;
        }
        let response = api.post("orders", &format!("{fault:?}"), &order()).await?;
        problem(response, 503).await?;
        ensure!(api.get("healthz").await?.status() == 200);
        proxy.heal();
        eventually("it works again", async || {
            Ok((api.get("readyz").await?.status() == 200).then_some(()))
        })
        .await?;
        api.order(&format!("{fault:?} again"), &order()).await?;
    }
    Ok(())
}

async fn queues() -> anyhow::Result<(String, Queues)> {
    let amqp = lab::stack::server(lab::Kind::RabbitMq).await?.url;
    let queues = Queues::fresh(&amqp);
    Ok((amqp, queues))
}

async fn the_choreographed_order_ends_in_the_same_ways() -> Outcome {
    let (_amqp, queues) = queues().await?;
    let api = Api::start(&["--flow", "choreography", "--queue-prefix", queues.prefix()]).await?;
    api.stock("book", 4).await?;
    for (key, order, end, effects) in [
        ("good", order(), "confirmed", [1, 0, 1, 0]),
        (
            "declined",
            changed("payment_method", "pm_card_chargeDeclined"),
            "cancelled",
            [0, 0, 0, 0],
        ),
        ("nowhere", changed("address.country", "XX"), "cancelled", [1, 1, 0, 0]),
        ("no such", changed("items.0.sku", "no-such-sku"), "cancelled", [0, 0, 0, 0]),
        ("also good", order(), "confirmed", [1, 0, 1, 0]),
        ("sold out", order(), "cancelled", [0, 0, 0, 0]),
    ] {
        let id = api.order(key, &order).await?;
        ensure!(api.order(key, &order).await? == id, "{key}");
        let ended = api.ended(&id).await.context(key)?;
        ensure!(ended["status"] == end, "{key}: {ended}");
        ensure!(api.effects(&id).await? == effects, "{key}");
    }
    ensure!(api.stock_of("book").await? == (json!(0), json!(0), json!(4)));
    problem(api.post("orders", "good", &changed("amount_cents", 1)).await?, 422).await?;
    Ok(())
}

async fn an_event_that_no_code_of_ours_wrote_holds_nothing_up() -> Outcome {
    let (amqp, queues) = queues().await?;
    let api = Api::start(&["--flow", "choreography", "--queue-prefix", queues.prefix()]).await?;
    api.stock("book", 4).await?;
    let id = api.order("before", &order()).await?;
    ensure!(api.ended(&id).await?["status"] == "confirmed");
    let properties = lapin::ConnectionProperties::default();
    let connection = lapin::Connection::connect(&amqp, properties).await?;
    let channel = connection.create_channel().await?;
    let exchange = format!("{}events", queues.prefix());
    let (an_id, fewer_than_none) =
        ("00000000-0000-7000-8000-000000000005", changed("items.0.quantity", -1));
    let fewer_than_none = json!({
        "id": an_id, "kind": "order.placed", "order_id": an_id, "order": fewer_than_none,
    })
    .to_string();
    let last = fewer_than_none.as_bytes();
    for event in [&b"\xff\xfe"[..], b"", b"{}", b"<html>", br#"{"kind":"order.placed"}"#, last] {
        let options = lapin::options::BasicPublishOptions::default();
        let publish = channel.basic_publish(
            exchange.as_str().into(),
            "order.placed".into(),
            options,
            event,
            lapin::BasicProperties::default(),
        );
        publish.await?.await?;
    }
    let id = api.order("after", &order()).await?;
    ensure!(api.ended(&id).await?["status"] == "confirmed");
    Ok(())
}

/// The shared server may not allow prepared transactions, which is PostgreSQL's default: then it says so by a 500 or
/// a 503, and nothing is left behind. Where it does, the order is confirmed or cancelled at once.
async fn the_order_by_two_phase_commit_says_what_is_missing() -> Outcome {
    let api = Api::start(&["--flow", "two-phase-commit"]).await?;
    api.stock("book", 2).await?;
    let refused = api.post("orders", "declined", &changed("address.country", "XX")).await?;
    ensure!(refused.status() == 202);
    ensure!(refused.json::<Value>().await?["status"] == "cancelled");
    let response = api.post("orders", "good", &order()).await?;
    if response.status() == 202 {
        ensure!(response.json::<Value>().await?["status"] == "confirmed");
    } else {
        problem(response, 500).await?;
        ensure!(api.stock_of("book").await? == (json!(2), json!(0), json!(0)));
    }
    Ok(())
}

async fn a_wrong_method_is_not_allowed() -> Outcome {
    let api = Api::start(&[]).await?;
    for (method, path) in [
        (Method::PUT, "orders"),
        (Method::DELETE, "orders/00000000-0000-7000-8000-000000000000"),
        (Method::GET, "orders/00000000-0000-7000-8000-000000000000/retry"),
        (Method::POST, "inventory/stock/book"),
        (Method::GET, "payment/charge"),
        (Method::POST, "shipping/shipments"),
        (Method::POST, "healthz"),
    ] {
        let response = api.request(method.clone(), path).send().await?;
        ensure!(!header(&response, "allow").is_empty(), "{method} {path}: no Allow");
        problem(response, 405).await.with_context(|| format!("{method} {path}"))?;
    }
    Ok(())
}

async fn the_service_says_that_it_lives_and_is_ready() -> Outcome {
    let api = Api::start(&[]).await?;
    ensure!(api.get("healthz").await?.status() == 200);
    ensure!(api.json("readyz").await?["status"] == "ready");
    ensure!(tokio::time::timeout(Duration::from_secs(5), api.get("readyz")).await?.is_ok());
    Ok(())
}
