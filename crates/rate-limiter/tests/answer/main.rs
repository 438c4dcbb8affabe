//! Does the rate limiter do what it promises? Over HTTP, as its clients would see it.

mod faults;
mod identity;
mod quota;
mod store;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, ensure};
use lab::harness::{Outcome, Served, eventually, run};
use rate_limiter::experiments::fixture::{Fixture, in_memory};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

fn main() -> ExitCode {
    let tests = [faults::tests(), identity::tests(), quota::tests(), store::tests(), tests()];
    let tests = tests.into_iter().flatten().collect();
    run(rate_limiter::answer(), || Box::pin(serve_for_cases()), tests)
}

/// The program as its cases want it. Nothing comes back while a case asks.
async fn serve_for_cases() -> anyhow::Result<Served> {
    let fixture = Fixture::fresh().await?;
    let serve = fixture.in_redis().args(&["--window", "1d", "--trusted-proxy", "127.0.0.1"]);
    Ok(Served::new(serve.start().await?, fixture))
}

lab::tests![quotas_that_mean_nothing_are_refused_at_the_start, a_clean_stop_lets_requests_finish,];

async fn quotas_that_mean_nothing_are_refused_at_the_start() -> Outcome {
    for arguments in [
        &["--limit", "0"][..],
        &["--limit", "-1"],
        &["--limit", "4294967296"],
        &["--limit", "99999999999999999999999"],
        &["--limit", "1.5"],
        &["--window", "0s"],
        &["--window", "0"],
        &["--window", "-1s"],
        &["--window", "367d"],
        &["--window", "18446744073709551615ms"],
        &["--limit", "4294967295", "--window", "1d"],
        &["--algorithm", "sliding-log", "--limit", "10001"],
        &["--algorithm", "leaky"],
        &["--policy", "burst=0/1s"],
        &["--policy", "burst=1/0s"],
        &["--policy", "api=1/1s"],
        &["--policy", "a\"b=1/1s"],
        &["--policy", "a=1/1s", "--policy", "b=1/1s", "--policy", "c=1/1s", "--policy", "d=1/1s"],
        &["--trusted-proxy", "10.0.0.0/33"],
        &["--trusted-proxy", "somewhere"],
        &["--trusted-proxy", "::ffff:10.0.0.0/8"],
        &["--trusted-proxy", "fe80::1%eth0"],
        &["--trusted-proxy", "0.0.0.0/0"],
        &["--user", "ada"],
    ] {
        let started = in_memory().args(arguments).start().await;
        let error = started.err().with_context(|| format!("{arguments:?} was taken"))?.to_string();
        ensure!(error.contains("error: ") && !error.contains("panicked"), "{arguments:?}: {error}");
    }
    Ok(())
}

async fn a_clean_stop_lets_requests_finish() -> Outcome {
    let fixture = Fixture::fresh().await?;
    for (mut child, client) in fixture.start_both(&[]).await? {
        let mut stream = TcpStream::connect(child.address()).await?;
        let body = r#"{"name":"Ada"}"#;
        let (begun, rest) = body.split_at(5);
        let head = format!(
            "POST /api/hello HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            child.address(),
            body.len()
        );
        stream.write_all(format!("{head}{begun}").as_bytes()).await?;
        // The limiter has let it through, so its handler waits for the rest of the body.
        eventually("it is in the handler", async || {
            let allowed =
                client.metric(r#"rate_limiter_requests_total{decision="allowed"}"#).await?;
            Ok((allowed == 1).then_some(()))
        })
        .await?;
        let finish = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            stream.write_all(rest.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            anyhow::Ok(answer)
        };
        let (status, answer) = tokio::join!(child.stop(), finish);
        let (status, answer) = (status?, answer?);
        ensure!(status.success(), "SIGTERM should end in exit status 0: {status}");
        ensure!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("{\"hello\":\"Ada\"}\n"),
            "{answer}"
        );
    }
    Ok(())
}
