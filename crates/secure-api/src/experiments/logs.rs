//! After the attacks: is there a secret in the log, or a line that a client forged? Can each attack be found? And does the
//! audit notice that it was touched?

use std::time::Duration;

use conform::target::within;
use lab::{Experiment, Lab, Sabotage, child::Child};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use uuid::Uuid;

use super::fixture::{Fixture, NOBODY};
use crate::cases::client::{ADA, Client, OLGA, PASSWORD, VIC, invoice, new_word};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Rounds of attacks
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "logs",
        "After the attacks the log holds no secret and no line that a client wrote, each attack is found by its request id, \
         and the audit shows an entry that was edited, removed or moved; a cut-off end with a \
         mended head is seen only with a hash that was kept elsewhere",
        &["--rounds", "2"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/frame.rs",
        replace: "request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());",
        with: "Some(request.uri().to_string());",
        check: "secrets in the log",
    })
    .sabotage(Sabotage {
        file: "src/frame.rs",
        replace: "info!(parent: &span, %method, path, \"asked\");",
        with: "",
        check: "the request of a client that hung up is in the log",
    })
    .sabotage(Sabotage {
        file: "src/store.rs",
        replace: "seq = lag(seq, 1, 0::bigint) over entries + 1\n                and hash",
        with: "hash is not null or hash",
        check: "an entry that was edited",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let child = fixture.serve().args(&["--webhook-allow", NOBODY]).keep_lines(200_000);
    let child = child.env("RUST_LOG", "info").start().await?;
    let target = conform::target::Target::new(child.url(), None)?;
    let (ada, olga) = (Client::login(&target, ADA).await?, Client::login(&target, OLGA).await?);
    let vic = Client::login(&target, VIC).await?;
    let secret = new_word();
    // A card number that is none, but looks like one.
    let card = "4111111111111111";
    let (mut ids, mut unknown) = (Vec::new(), 0);
    for round in 0..params.rounds {
        lab.progress(round.into(), params.rounds.into(), "attacks");
        for request in attacks(&ada, &vic, &secret, card) {
            let answer = ada.send(request).await?;
            match answer.headers().get("x-request-id").and_then(|id| id.to_str().ok()) {
                Some(id) => ids.push(id.to_owned()),
                None => unknown += 1,
            }
        }
    }
    // The line of a request is written before its answer is sent, and read by another task.
    let last = ids.last().cloned().unwrap_or_default();
    let patience = Duration::from_secs(5);
    // Without such lines, the checks say so.
    let _ = within(patience, "the last line of the log", async || {
        Ok(child.log().contains(&last).then_some(()))
    })
    .await;
    let log = child.log();
    lab.text(format!(
        "{} requests, and {} lines in the log.",
        ids.len() + unknown,
        log.lines().count()
    ));
    lab.check_eq("attacks whose answer has no request id", 0, unknown);
    let lost = ids.iter().filter(|id| !log.contains(*id)).count();
    lab.check_eq("attacks that are not in the log", 0, lost);
    let tokens = [&ada, &vic, &olga].map(|client| client.token.clone().unwrap_or_default());
    let secrets =
        [secret.as_str(), card, PASSWORD].into_iter().chain(tokens.iter().map(String::as_str));
    let found = secrets.filter(|secret| log.contains(*secret)).count();
    lab.check_eq("secrets in the log", 0, found);
    let forged = log.lines().filter(|line| line.starts_with("FORGED")).count();
    lab.check_eq("lines in the log that a client wrote", 0, forged);
    audit(&lab, &fixture, &olga, &secret).await?;
    // Last: what it asks for may still be done, and written into the audit.
    hang_up(&lab, &fixture, &child, &ada).await
}

/// A client that asks for something and does not wait for the answer. Is there a line?
async fn hang_up(lab: &Lab, fixture: &Fixture, child: &Child, ada: &Client) -> anyhow::Result<()> {
    let id = ada.invoice("Tea").await?;
    let mut lock = fixture.pool.begin().await?;
    sqlx::query("lock table invoices in access exclusive mode").execute(&mut *lock).await?;
    let mut stream = TcpStream::connect(child.address()).await?;
    let token = ada.token.as_deref().unwrap_or_default();
    let head = format!(
        "DELETE /invoices/{id} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    // Less than the answer takes, which is 503 in the end. Without a line, the check says so.
    let seen = within(Duration::from_millis(3_500), "a line of the DELETE", async || {
        Ok(child.log().lines().any(|line| line.contains("DELETE")).then_some(()))
    });
    let seen = seen.await.is_ok();
    drop(stream);
    lock.rollback().await?;
    lab.check_eq("the request of a client that hung up is in the log", true, seen);
    Ok(())
}

/// Requests that have something which must not be written down, or try to write a line.
fn attacks(ada: &Client, vic: &Client, secret: &str, card: &str) -> Vec<RequestBuilder> {
    let line = format!("%0d%0aFORGED%20{secret}");
    let login = |email: &str, password: &str| {
        ada.target
            .request(Method::POST, "login")
            .json(&json!({ "email": email, "password": password }))
    };
    let mut paid = invoice("x");
    paid["note"] = json!(format!("card {card}"));
    vec![
        login(ADA, secret),
        login(&format!("{secret}@acme.example"), "x"),
        login(&format!("a\r\nFORGED {secret}@acme.example"), "x"),
        ada.target.request(Method::GET, &format!("invoices?token={secret}")),
        ada.target.request(Method::GET, "invoices").bearer_auth(secret),
        ada.request(Method::GET, &format!("invoices/{line}")),
        ada.request(Method::GET, &format!("{secret}/{line}")),
        ada.request(Method::GET, &format!("invoices?search={line}")),
        ada.request(Method::GET, "invoices").header("x-request-id", secret),
        ada.request(Method::GET, "invoices").header("user-agent", format!("FORGED {secret}")),
        ada.request(Method::GET, "invoices").header("cookie", format!("session={secret}")),
        ada.request(Method::POST, "invoices").json(&paid),
        vic.request(Method::POST, "invoices").json(&invoice(&format!("a\nFORGED {secret}"))),
        ada.request(Method::POST, "webhooks")
            .json(&json!({ "url": format!("https://ada:{secret}@hooks.example.com/") })),
        ada.request(Method::POST, "webhooks")
            .json(&json!({ "url": format!("http://{NOBODY}/{secret}") })),
    ]
}

/// What somebody does who has got at the table, and whether it shows.
async fn audit(lab: &Lab, fixture: &Fixture, olga: &Client, secret: &str) -> anyhow::Result<()> {
    let page = olga.get("audit").await?.text().await?;
    let page: Value = serde_json::from_str(&page).unwrap_or_default();
    let entries = page["items"].as_array().map_or(0, Vec::len);
    lab.check("entries in the audit", "ten at least", entries, entries >= 10);
    lab.check_eq("secrets in the audit", false, page.to_string().contains(secret));
    lab.check_eq(
        "where the chain is broken before anybody touched it",
        "null".to_owned(),
        page["broken_at"].to_string(),
    );
    if entries < 10 {
        // There is nothing to touch.
        return Ok(());
    }
    let touches = [
        (
            "an entry that was edited",
            "update audit set action = 'not ' || action where seq = 5",
            true,
        ),
        ("an entry that was removed", "delete from audit where seq = 5", true),
        (
            "two entries that were exchanged",
            "update audit set actor = other.actor, action = other.action, object = other.object, \
             request_id = other.request_id, at = other.at, hash = other.hash \
             from audit as other where (audit.seq, other.seq) in ((5, 6), (6, 5))",
            true,
        ),
        ("the first entries that were removed", "delete from audit where seq < 5", true),
        // The next entry leaves a gap.
        ("the last entries that were removed", "delete from audit where seq > 5", true),
        // The chain that is left is whole, and goes on.
        (
            "the last entries that were removed, and the head mended",
            "delete from audit where seq > 5; \
             update audit_head set (seq, hash) = (select seq, hash from audit where seq = 5)",
            false,
        ),
    ];
    let store = fixture.store()?;
    let kept = store.audit_page(0).await?.last().map(|entry| (entry.seq, entry.hash.clone()));
    let mut rows = Vec::new();
    for (touch, statement, shows) in touches {
        // Each on the same log.
        let keep = "create table kept as select seq, at, actor, action, object, request_id, hash from audit";
        let back = "delete from audit; insert into audit select seq, at, actor, action, object, request_id, hash from kept; \
                    drop table kept; \
                    update audit_head set (seq, hash) = (select seq, hash from audit order by seq desc limit 1)";
        sqlx::raw_sql(keep).execute(&fixture.pool).await?;
        sqlx::raw_sql(statement).execute(&fixture.pool).await?;
        // Somebody logs in afterwards.
        store.audit_login(Uuid::nil(), "logged in", Uuid::nil()).await?;
        let entries = store.audit_page(0).await?;
        let broken = entries.iter().any(|entry| !entry.intact);
        let kept = kept.as_ref();
        let gone = !entries.iter().any(|entry| kept == Some(&(entry.seq, entry.hash.clone())));
        sqlx::raw_sql(back).execute(&fixture.pool).await?;
        rows.push(vec![touch.to_owned(), broken.to_string(), gone.to_string()]);
        lab.check_eq(touch, shows, broken);
        if !shows {
            lab.check_eq("the hash that was kept elsewhere is not in the log then", true, gone);
        }
    }
    let columns = ["what was done to the log", "the chain is broken", "the kept hash is gone"];
    lab.table("The audit, touched", &columns, rows);
    Ok(())
}
