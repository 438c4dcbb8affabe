//! Does the saga do what its table of calls cannot say? With options of its own, several processes, other flows, a look
//! into its databases, or a fault. What any server can be tried with is in `conform`.

use std::{process::ExitCode, sync::Arc};

use anyhow::{Context, ensure};
use conform::http::{client, header, problem};
use lab::{
    child::Child,
    database::Database,
    harness::{Outcome, Served, eventually, run},
};
use reqwest::{Method, Response};
use saga_orchestrator::{MIGRATIONS, experiments::queues::Queues};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

fn main() -> ExitCode {
    run(saga_orchestrator::answer(), || Box::pin(serve_for_cases()), tests())
}

/// The program as its cases want it.
async fn serve_for_cases() -> anyhow::Result<Served> {
    let world = World::new().await?;
    // Whoever takes over after a kill waits for the lease of the dead.
    let child = world.serve(&["--lease-ms", "2000"]).await?;
    Ok(Served::new(child, world))
}

lab::tests![
    a_stuck_order_is_listed_and_a_retry_finishes_it,
    a_participant_that_answers_nonsense_is_asked_again,
    a_log_record_that_no_code_of_ours_wrote_parks_the_order_and_no_other,
    the_services_run_apart,
    a_stopped_orchestrator_lets_go_of_its_orders,
    without_its_database_it_answers_503_and_then_works_again,
    the_choreographed_order_ends_in_the_same_ways,
    an_event_that_no_code_of_ours_wrote_holds_nothing_up,
    the_order_by_two_phase_commit_says_what_is_missing,
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
    let amqp = lab::stack::server(lab::Service::RabbitMq).await?.url;
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
