//! Does anybody look anything up when a token is verified? PostgreSQL counts.

use std::time::Duration;

use anyhow::ensure;
use lab::{
    Experiment, Lab, Sabotage, Service,
    database::Database,
    load::{self, Outcome, Stop, http::Connection},
};
use sqlx::{Connection as _, PgConnection};
use tokio::time::{Instant, sleep};

use super::fixture::{Fixture, start, verifier};
use crate::cases::client::Tokens;

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Requests with a token, to each of the two processes
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    requests: u64,
    /// Logins, to see that the counter counts
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    logins: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "stateless",
        "Ten thousand authenticated requests cause no SQL statement (counted by PostgreSQL itself), and a second \
         process that has only the JWKS accepts the same tokens",
        &["--requests", "1000", "--logins", "3"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/keyring.rs",
        replace: "let keys = self.keys(|keys| keys.by_kid.contains_key(kid)).await?;",
        with: r"self.load().await?;
        let keys = self.keys(|keys| keys.by_kid.contains_key(kid)).await?;",
        check: "connections to the database that all these requests caused, as PostgreSQL counts them",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let started = Instant::now();
    // It reads its keys once a minute then: the sixtieth part of what verifiers may do.
    let (child, client) = fixture.start(&["--jwks-seconds", "3600"]).await?;
    let tokens = client.join("ann@example.com").await?;
    let (other, other_client) = start(verifier(child.url())).await?;

    let before = sessions(&lab, &fixture.database).await?;
    let mut outcomes = Vec::new();
    let services = [
        ("the issuer", &child, &client),
        ("the process that has the JWKS alone", &other, &other_client),
    ];
    for (done, (name, service, client)) in (0..).zip(services) {
        lab.progress(done, 2, format!("{} requests to {name}", params.requests));
        let outcome = ask(service.address(), &tokens, params.requests).await?;
        let forged = format!("{}A", tokens.access_token);
        let status = client.me(&forged).await?.status().as_u16();
        outcomes.push((name, outcome, status));
    }
    let between = sessions(&lab, &fixture.database).await?;
    // Nobody asks for these: in each minute the service deletes what has ended, and reads its keys. Only a machine that
    // takes a minute for all this sees any.
    let housekeeping = 2 * (started.elapsed().as_secs() / 60);
    for _ in 0..params.logins {
        client.log_in("ann@example.com").await?;
    }
    let after = sessions(&lab, &fixture.database).await?;

    for (name, outcome, forged) in outcomes {
        lab.figure(format!("requests to {name}"), outcome.throughput(), "requests/s");
        lab.check_eq(
            format!("requests that {name} answered with 200"),
            params.requests,
            outcome.ok,
        );
        lab.check_eq(format!("{name} asked with a token that was changed"), 401, forged);
    }
    let expected = match housekeeping {
        0 => "0".to_owned(),
        some => format!("0, beside the {some} or fewer of the service's housekeeping"),
    };
    lab.check(
        "connections to the database that all these requests caused, as PostgreSQL counts them",
        expected,
        between - before,
        between - before <= housekeeping,
    );
    let logins = after - between;
    lab.check("the same counter sees logins", "a connection or more", logins, logins >= 1);
    Ok(())
}

/// How many connections clients have made to the database. Those that are open are ended first, so a statement needs a new
/// one. Transactions would be a finer count, but PostgreSQL's own vacuum has some too, at any time.
///
/// PostgreSQL's processes add up their counts at the latest when they end.
async fn sessions(lab: &Lab, database: &Database) -> anyhow::Result<u64> {
    let name = database.name();
    // By way of another database: looking must not count.
    let mut elsewhere = PgConnection::connect(&lab.server(Service::Postgres).await?).await?;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let (connections, sessions): (i64, i64) = sqlx::query_as(
            r#"
            select
                (select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = $1),
                sessions
            from pg_stat_database
            where datname = $1
            "#,
        )
        .bind(name)
        .fetch_one(&mut elsewhere)
        .await?;
        if connections == 0 {
            return Ok(sessions.unsigned_abs());
        }
        ensure!(Instant::now() < deadline, "{connections} connections stay");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Sends so many requests with the token, over sixteen connections.
async fn ask(host: &str, tokens: &Tokens, requests: u64) -> anyhow::Result<Outcome> {
    let mut clients = Vec::new();
    for _ in 0..16 {
        let connection = Connection::open(host).await?;
        let request = String::from_utf8(connection.get("/me"))?;
        let header = format!("\r\nauthorization: Bearer {}\r\n\r\n", tokens.access_token);
        let request = request.replacen("\r\n\r\n", &header, 1).into_bytes();
        clients.push((connection, request));
    }
    load::closed(clients, Stop::Count(requests), |(connection, request)| {
        Box::pin(async move {
            let status = connection.send(request).await?;
            ensure!(status == 200, "{status}");
            Ok(())
        })
    })
    .await
}
