//! What needs a fault, or a look inside. It also runs the experiments, with quick parameters, and the cases.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, ensure};
use concurrent_requests::{
    cases::client::{Client, new_key},
    experiments::fixture::Fixture,
};
use conform::expect::json_of;
use conform::http::{header, lives_and_is_ready, problem};
use conform::target::Target;
use lab::{
    fault::{Fault, Proxy},
    harness::{Outcome, Served, eventually, run, somebody_waits},
};
use reqwest::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

fn main() -> ExitCode {
    run(concurrent_requests::answer(), || Box::pin(serve_for_cases()), tests())
}

/// The program as its cases want it.
async fn serve_for_cases() -> anyhow::Result<Served> {
    let fixture = Fixture::fresh().await?;
    // A price is quick also in a debug build, which computes it beside other tests.
    let shop = fixture.serve().args(&["--price-rules", "10000"]).start().await?;
    Ok(Served::new(shop, fixture))
}

lab::tests![
    clients_that_send_slowly_keep_no_place,
    requests_that_come_together_on_one_connection_are_answered_in_their_order,
    clients_that_do_not_read_keep_no_place,
    clients_that_vanish_without_a_word_keep_no_place,
    a_body_that_cannot_be_read_is_not_called_too_long,
    a_client_that_hangs_up_gives_its_place_to_the_next,
    reports_of_clients_that_hang_up_stay_within_their_bulkhead,
    a_shop_whose_connections_are_all_taken_is_ready,
    a_shared_read_goes_on_for_those_who_still_wait,
    jobs_that_wait_are_bounded_and_done_before_the_end,
    a_database_that_is_away_is_told_and_the_next_request_works,
    the_service_says_that_it_lives_and_is_ready_and_stops_cleanly,
];

/// Heads of orders without their bodies.
async fn clients_that_send_slowly_keep_no_place() -> Outcome {
    let fixture = Fixture::fresh().await?;
    fixture.fill(1).await?;
    let shop = fixture.serve().args(&["--in-flight", "2", "--waiting", "0"]).start().await?;
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(shop.address()).await?;
        let head = "POST /orders HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
                    idempotency-key: a\r\ncontent-length: 30\r\n\r\n{\"prod";
        stream.write_all(head.as_bytes()).await?;
        slow.push(stream);
    }
    let client = Client::at(shop.url())?;
    for _ in 0..10 {
        let answer = client.target.get("products/1").await?;
        ensure!(answer.status() == 200, "{answer:?}");
    }
    Ok(())
}

/// Many requests on each connection, and nobody reads the answers until the buffers are full.
async fn clients_that_do_not_read_keep_no_place() -> Outcome {
    let fixture = Fixture::fresh().await?;
    fixture.fill(1).await?;
    let shop = fixture.serve().args(&["--in-flight", "2", "--waiting", "0"]).start().await?;
    let mut slow = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(shop.address()).await?;
        let many = "GET /products/1 HTTP/1.1\r\nhost: a\r\n\r\n".repeat(50_000);
        // The shop stops reading when it can write no more, and then so do we.
        let _ = timeout(Duration::from_secs(2), stream.write_all(many.as_bytes())).await;
        slow.push(stream);
    }
    let client = Client::at(shop.url())?;
    eventually("others are answered", async || {
        Ok((client.target.get("products/1").await?.status() == 200).then_some(()))
    })
    .await
}

/// Their machines have lost the network: the shop hears no end of the connection.
async fn clients_that_vanish_without_a_word_keep_no_place() -> Outcome {
    let fixture = Fixture::fresh().await?;
    fixture.fill(1).await?;
    let shop = fixture.serve().args(&["--in-flight", "2", "--waiting", "0"]).start().await?;
    let network = Proxy::to(shop.address()).await?;
    let mut locked = fixture.pool.begin().await?;
    sqlx::query("lock table orders in access exclusive mode").execute(&mut *locked).await?;
    let mut gone = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(network.address()).await?;
        stream.write_all(b"GET /reports/2026-01-31 HTTP/1.1\r\nhost: a\r\n\r\n").await?;
        gone.push(stream);
    }
    let client = Client::at(shop.url())?;
    eventually("both are at work", async || {
        let pressure = json_of(client.get("pressure").await?, 200).await?;
        Ok((pressure["in_flight"] == 2).then_some(()))
    })
    .await?;
    network.set(Fault::BlackHole);
    problem(client.target.get("products/1").await?, 503).await?;
    locked.rollback().await?;
    eventually("their places are free", async || {
        Ok((client.target.get("products/1").await?.status() == 200).then_some(()))
    })
    .await
}

async fn requests_that_come_together_on_one_connection_are_answered_in_their_order() -> Outcome {
    let fixture = Fixture::fresh().await?;
    fixture.fill(1).await?;
    let shop = fixture.serve().start().await?;
    let mut stream = TcpStream::connect(shop.address()).await?;
    let ask = |n, more| format!("GET /products/{n} HTTP/1.1\r\nhost: a\r\n{more}\r\n");
    let all = ask(3, "") + &ask(1, "") + &ask(200, "") + &ask(2, "connection: close\r\n");
    stream.write_all(all.as_bytes()).await?;
    let mut seen = String::new();
    stream.read_to_string(&mut seen).await?;
    let statuses: Vec<_> = seen.split("HTTP/1.1 ").skip(1).filter_map(|it| it.get(..3)).collect();
    ensure!(statuses == ["200", "200", "404", "200"], "{seen}");
    let names = ["product 3", "product 1", "product 2"].map(|name| seen.find(name));
    ensure!(names.is_sorted() && names[0].is_some(), "{seen}");
    Ok(())
}

async fn a_client_that_hangs_up_gives_its_place_to_the_next() -> Outcome {
    let fixture = Fixture::fresh().await?;
    fixture.fill(1).await?;
    let shop = fixture.serve().args(&["--in-flight", "1", "--waiting", "0"]).start().await?;
    let client = Client::at(shop.url())?;
    let mut locked = fixture.pool.begin().await?;
    sqlx::query("lock table orders in access exclusive mode").execute(&mut *locked).await?;
    let mut gone = TcpStream::connect(shop.address()).await?;
    gone.write_all(b"GET /reports/2026-01-31 HTTP/1.1\r\nhost: a\r\n\r\n").await?;
    somebody_waits("the report waits", &fixture.database).await?;
    problem(client.target.get("products/1").await?, 503).await?;
    drop(gone);
    eventually("the place is free", async || {
        Ok((client.target.get("products/1").await?.status() == 200).then_some(()))
    })
    .await?;
    locked.rollback().await?;
    Ok(())
}

/// They ask for a report and go, again and again. PostgreSQL does not hear of it, and works on.
async fn reports_of_clients_that_hang_up_stay_within_their_bulkhead() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let words = ["--report-connections", "1", "--timeout-ms", "60000"];
    let shop = fixture.serve().args(&words).start().await?;
    let client = Client::at(shop.url())?;
    let mut locked = fixture.pool.begin().await?;
    sqlx::query("lock table orders in access exclusive mode").execute(&mut *locked).await?;
    for n in 0..5 {
        let mut gone = TcpStream::connect(shop.address()).await?;
        gone.write_all(b"GET /reports/2026-01-31 HTTP/1.1\r\nhost: a\r\n\r\n").await?;
        if n == 0 {
            somebody_waits("the report waits", &fixture.database).await?;
        } else {
            // It is refused, or waits in PostgreSQL too.
            let _ = timeout(Duration::from_secs(1), gone.read(&mut [0])).await;
        }
        drop(gone);
        eventually("its place at the door is free", async || {
            let pressure = json_of(client.get("pressure").await?, 200).await?;
            Ok((pressure["in_flight"] == 0).then_some(()))
        })
        .await?;
    }
    let waiting = fixture.waiters().await?;
    ensure!(waiting == 1, "{waiting} reports wait in PostgreSQL, and one may");
    locked.rollback().await?;
    eventually("the bulkhead has its place again", async || {
        let report = client.target.get("reports/2026-01-31").await?;
        Ok((report.status() == 200).then_some(()))
    })
    .await
}

/// A balancer that asks must not take an overloaded process out: the others would get its load too.
async fn a_shop_whose_connections_are_all_taken_is_ready() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let words = ["--connections", "1", "--timeout-ms", "60000"];
    let shop = fixture.serve().args(&words).start().await?;
    let client = Client::at(shop.url())?;
    let mut locked = fixture.pool.begin().await?;
    sqlx::query("lock table orders in access exclusive mode").execute(&mut *locked).await?;
    let mut slow = TcpStream::connect(shop.address()).await?;
    slow.write_all(b"GET /reports/2026-01-31 HTTP/1.1\r\nhost: a\r\n\r\n").await?;
    somebody_waits("the report has the only connection", &fixture.database).await?;
    eventually("it is ready", async || {
        let ready = timeout(Duration::from_secs(5), client.target.get("readyz")).await;
        Ok(matches!(ready, Ok(Ok(answer)) if answer.status() == 200).then_some(()))
    })
    .await?;
    locked.rollback().await?;
    Ok(())
}

/// The second chunk has a length that is no number.
async fn a_body_that_cannot_be_read_is_not_called_too_long() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let shop = fixture.serve().start().await?;
    let mut stream = TcpStream::connect(shop.address()).await?;
    let request = "POST /orders HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
                   idempotency-key: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\nzz\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut head = [0; 12];
    timeout(Duration::from_secs(20), stream.read_exact(&mut head)).await??;
    ensure!(head == *b"HTTP/1.1 400", "{}", String::from_utf8_lossy(&head));
    Ok(())
}

async fn a_shared_read_goes_on_for_those_who_still_wait() -> Outcome {
    let fixture = Fixture::fresh().await?;
    fixture.fill(1).await?;
    let shop = fixture.serve().args(&["--share-reads"]).start().await?;
    let client = Client::at(shop.url())?;
    let at_work = async |count: u64| {
        eventually("so many are at work", async || {
            let pressure = json_of(client.get("pressure").await?, 200).await?;
            Ok((pressure["in_flight"] == count).then_some(()))
        })
        .await
    };
    let mut locked = fixture.pool.begin().await?;
    sqlx::query("lock table products in access exclusive mode").execute(&mut *locked).await?;
    let mut began = TcpStream::connect(shop.address()).await?;
    began.write_all(b"GET /products/1 HTTP/1.1\r\nhost: a\r\n\r\n").await?;
    somebody_waits("the read waits", &fixture.database).await?;
    let (joined, ()) = tokio::try_join!(client.get("products/1"), async {
        at_work(2).await?;
        drop(began);
        at_work(1).await?;
        // PostgreSQL would go on with a statement that was dropped, so a second one would wait beside it.
        let waiting = fixture.waiters().await?;
        ensure!(waiting == 1, "one statement for both, and {waiting} wait");
        locked.rollback().await?;
        anyhow::Ok(())
    })?;
    json_of(joined, 200).await?;
    Ok(())
}

async fn jobs_that_wait_are_bounded_and_done_before_the_end() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let mut shop = fixture.serve().args(&["--jobs", "3"]).keep_lines(100).start().await?;
    let client = Client::at(shop.url())?;
    let mut locked = fixture.pool.begin().await?;
    sqlx::query("lock table orders in access exclusive mode").execute(&mut *locked).await?;
    let post = || client.target.ask(Method::POST, "reports/2026-01-31");
    let first = json_of(post().await?, 202).await?;
    somebody_waits("the worker waits for the orders", &fixture.database).await?;
    for _ in 0..3 {
        json_of(post().await?, 202).await?;
    }
    let refused = post().await?;
    ensure!(header(&refused, "retry-after") == "1", "{refused:?}");
    problem(refused, 503).await?;
    locked.rollback().await?;
    let id = first["id"].as_str().context("an id")?.to_owned();
    eventually("the first one is done", async || {
        let job = json_of(client.get(&format!("jobs/{id}")).await?, 200).await?;
        Ok((job["state"] == "done").then_some(()))
    })
    .await?;
    ensure!(shop.stop().await?.success(), "it should end in exit status 0");
    ensure!(!shop.log().contains("left undone"), "{}", shop.log());
    Ok(())
}

async fn a_database_that_is_away_is_told_and_the_next_request_works() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let proxy = Proxy::to_url(fixture.database.url()).await?;
    let url = proxy.url(fixture.database.url())?;
    let shop = fixture.serve().env("DATABASE_URL", url).args(&["--timeout-ms", "1500"]);
    let shop = shop.start().await?;
    let client = Client::at(shop.url())?;
    let id = client.put_up(1_000, 10).await?;
    for fault in [Fault::Cut, Fault::BlackHole] {
        let key = new_key();
        proxy.set(fault);
        for path in [&format!("products/{id}"), "reports/2026-01-31", "readyz"] {
            let answer = client.target.get(path).await?;
            ensure!(header(&answer, "retry-after") == "1", "{fault:?}: {answer:?}");
            problem(answer, 503).await?;
        }
        // In the middle of the sale: nobody knows whether it was made, and the key finds out.
        problem(client.target.send(client.order(id, 1, &key)).await?, 503).await?;
        ensure!(client.target.get("healthz").await?.status() == 200);
        proxy.heal();
        ensure!(client.buy(id, 1, &key).await?.status() == 201);
    }
    ensure!(client.stock(id).await? == 8);
    Ok(())
}

async fn the_service_says_that_it_lives_and_is_ready_and_stops_cleanly() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let mut shop = fixture.serve().start().await?;
    lives_and_is_ready(&Target::new(shop.url(), None)?).await?;
    let status = shop.stop().await?;
    ensure!(status.success(), "SIGTERM should end in exit status 0: {status}");
    Ok(())
}
