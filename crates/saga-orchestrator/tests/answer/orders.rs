//! What must an order not wait for? What needs a human, and what do they find?

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use conform::http::{header, problem};
use lab::{fault::Proxy, harness::Outcome};
use saga_orchestrator::{
    cases::client::{changed, order, statuses},
    experiments::fixture::{self, ALL, Fixture},
};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_util::task::AbortOnDropHandle;

use crate::{IMPATIENT, place_unconfirmed, start};

lab::tests![
    an_order_whose_commit_was_not_confirmed_does_not_wait_for_the_poll,
    a_stuck_order_is_listed_and_a_retry_finishes_it,
    a_participant_that_answers_nonsense_is_asked_again,
    a_log_record_that_no_code_of_ours_wrote_parks_the_order_and_no_other,
];

async fn an_order_whose_commit_was_not_confirmed_does_not_wait_for_the_poll() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let orders = Proxy::to_url(fixture.orders.url()).await?;
    // With a poll that comes too late to hide anything.
    let process = fixture.serve().args(&["--poll-ms", "600000"]);
    let process = process.env("DATABASE_URL", orders.url(fixture.orders.url())?);
    let (_child, client) = fixture::start(process).await?;
    client.put_stock("book", 2).await?;
    let id = place_unconfirmed(&client, &fixture, &orders).await?;
    client.ends(id, "confirmed").await.map(drop)
}

/// The ledger takes no refund until [`refunds_work`].
async fn refunds_fail(fixture: &Fixture) -> Outcome {
    sql(fixture, "alter table effects add constraint closed check (kind <> 'refund')").await
}

async fn refunds_work(fixture: &Fixture) -> Outcome {
    sql(fixture, "alter table effects drop constraint closed").await
}

async fn sql(fixture: &Fixture, statement: &'static str) -> Outcome {
    let mut connection = PgConnection::connect(fixture.parts.payment.url()).await?;
    sqlx::raw_sql(statement).execute(&mut connection).await?;
    Ok(connection.close().await?)
}

async fn a_stuck_order_is_listed_and_a_retry_finishes_it() -> Outcome {
    let (fixture, _child, client) = start(&["--attempts", "3"]).await?;
    client.put_stock("book", 2).await?;
    refunds_fail(&fixture).await?;
    let id = client.place_order("stuck", &changed(order("book"), "address.country", "XX")).await?;
    let order = client.ends(id, "stuck").await?;
    ensure!(order["reason"].as_str().unwrap_or_default().starts_with("refund: 500"), "{order}");
    ensure!(statuses(&order)[4] == "refund stuck", "{order}");
    let listed = client.json("orders?status=stuck").await?;
    ensure!(listed["orders"][0]["id"] == id.to_string(), "{listed}");
    ensure!(client.json("orders?status=confirmed").await?["orders"] == json!([]));
    client.has_stock("book", [0, 2, 0]).await?;

    refunds_work(&fixture).await?;
    let (retried, _) = client.retry(id).await?;
    ensure!(retried.status() == 202, "{}", retried.text().await?);
    ensure!(header(&retried, "location") == format!("/orders/{id}"));
    let body: Value = retried.json().await?;
    ensure!(body["id"] == id.to_string() && body["status"] == "cancelling", "{body}");
    client.ends(id, "cancelled").await?;
    client.had(id, [1, 1, 0, 0]).await?;
    client.has_stock("book", [2, 0, 0]).await?;
    // It is not stuck any more.
    problem(client.retry(id).await?.0, 409).await?;
    Ok(())
}

/// A participant that answers every request with these bytes, as long as this is there.
struct Nonsense {
    address: SocketAddr,
    _serving: AbortOnDropHandle<()>,
}

impl Nonsense {
    async fn start(answer: String) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4_096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Ok(Self { address, _serving: AbortOnDropHandle::new(serving) })
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
    let fixture = Fixture::fresh().await?;
    let (participants, books) = fixture::start(fixture.serve_only(ALL)).await?;
    let honest: SocketAddr = participants.address().parse()?;
    books.put_stock("book", 2).await?;
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
        let liar = Nonsense::start(nonsense).await?;
        let orchestrator = fixture.orchestrator([honest, liar.address, honest]).args(&IMPATIENT);
        let (child, client) = fixture::start(orchestrator.args(&["--attempts", "2"])).await?;
        // It may have charged. So the refund is asked for, and as that is nonsense too, a human is needed.
        let id = client.place_order(name, &order("book")).await?;
        let order = client.ends(id, "stuck").await.context(name)?;
        ensure!(statuses(&order)[1] == "charge given_up", "{name}: {order}");
        ensure!(order["steps"][1]["last_error"].is_string(), "{name}: {order}");
        drop((child, liar));
        let orchestrator = fixture.orchestrator([honest; 3]).args(&IMPATIENT);
        let (_child, client) = fixture::start(orchestrator).await?;
        ensure!(client.retry(id).await?.0.status() == 202, "{name}");
        client.ends(id, "cancelled").await.context(name)?;
        books.had(id, [0, 0, 0, 0]).await.context(name)?;
        books.has_stock("book", [2, 0, 0]).await.context(name)?;
    }
    Ok(())
}

async fn a_log_record_that_no_code_of_ours_wrote_parks_the_order_and_no_other() -> Outcome {
    let (fixture, _child, client) = start(&["--attempts", "2"]).await?;
    client.put_stock("book", 100).await?;
    let mut connection = PgConnection::connect(fixture.orders.url()).await?;
    for record in [
        r#"{"kind": "teleported"}"#,
        r#"{"kind": "done", "call": "fly"}"#,
        r#"{"kind": "done", "call": "book"}"#,
        r#"["asked"]"#,
        r#"{"kind": "confirmed"}"#,
        r#"{"kind": "cancelled"}"#,
        r#"{"kind": "asked", "call": "charge", "by": "somebody"}"#,
    ] {
        // Parked first, so that nobody works on it while we write into its log.
        refunds_fail(&fixture).await?;
        let odd = changed(order("book"), "address.country", "XX");
        let id = client.place_order(record, &odd).await?;
        client.ends(id, "stuck").await?;
        refunds_work(&fixture).await?;
        sqlx::query("update saga_log set record = $1::jsonb where number = 3 and order_id = $2")
            .bind(record)
            .bind(id)
            .execute(&mut connection)
            .await?;
        client.ends(id, "stuck").await?;
        let refused = problem(client.retry(id).await?.0, 409).await?;
        let detail = refused["detail"].as_str().unwrap_or_default();
        ensure!(detail.contains("record 3 of the log"), "{record}: {refused}");
        // Also if it is claimed: it is parked again, and nothing was done on the strength of such a log. The record of
        // the first parking goes before anybody can claim the order.
        sqlx::query("delete from saga_log where record ->> 'kind' = 'parked' and order_id = $1")
            .bind(id)
            .execute(&mut connection)
            .await?;
        sqlx::query(
            "update orders set status = 'pending', due_at = now(), leased = false where id = $1",
        )
        .bind(id)
        .execute(&mut connection)
        .await?;
        let parked = client.ends(id, "stuck").await?;
        ensure!(parked["reason"].as_str().unwrap_or_default().contains("record 3"), "{parked}");
        client.had(id, [1, 0, 0, 0]).await.context(record)?;
        // The others go on.
        let other = client.place_order(&format!("other {record}"), &order("book")).await?;
        client.ends(other, "confirmed").await?;
    }
    Ok(connection.close().await?)
}
