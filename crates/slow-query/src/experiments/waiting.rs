//! Is the query slow, or does it wait?

use std::time::Duration;

use lab::{Experiment, Lab, Sabotage, harness::somebody_waits};

use super::fixture::{Busy, Fixture};
use crate::cases::client::{Client, found, pages};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// How long another program keeps its lock while somebody waits, in milliseconds
    #[arg(long, default_value_t = 800, value_parser = clap::value_parser!(u64).range(200..=1_500))]
    hold: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "waiting",
        "A query that waits for a lock reads as few pages as ever, and its plan does not say that it waits. pg_stat_activity does, and \
         names who holds the lock. No index helps; a read without a lock does, but not against a lock on the table",
        &["--hold", "300"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/store/waits.sql",
        replace: "wait_event_type = 'Lock'",
        with: "wait_event_type = 'Client'",
        check: "while the row is locked: the first finding",
    })
}

/// What a remedy does while the row is locked. The other program locks it again as soon as it can, and that may be too late; so the
/// effect that is expected has five chances. An effect that never comes is never seen.
async fn while_busy(client: &Client, remedy: &str, expected: &str) -> anyhow::Result<String> {
    let mut effect = String::new();
    for _ in 0..5 {
        effect = client.try_out("busy-row", remedy).await?.effect;
        if effect == expected {
            break;
        }
    }
    Ok(effect)
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, 2_000).await?;
    let (_child, client) = fixture.start().await?;
    let alone = client.diagnose("busy-row").await?;
    lab.check_eq("alone: findings", 0, found(&alone).len());
    lab.progress(1, 4, "a row that another program locks");
    let busy = Busy::start(&fixture, Duration::from_millis(params.hold)).await?;
    let waited = client.diagnose("busy-row").await?;
    let first = found(&waited).into_iter().next().unwrap_or_default();
    lab.check_eq("while the row is locked: the first finding", "waits".to_owned(), first);
    let words = waited["findings"][0]["words"].as_str().unwrap_or_default();
    let names = words.contains("idle in transaction");
    lab.check("while the row is locked: who is to blame", "idle in transaction", words, names);
    let more = pages(&waited) - pages(&alone);
    lab.check("pages that it reads more than alone", "at most 10", more, more <= 10.0);
    let plan = waited["plan"].to_string();
    lab.check_eq(
        "the plan says that it waited",
        false,
        plan.contains("Wait") || plan.contains("wait"),
    );
    let time = |name: &serde_json::Value| name["milliseconds"].as_f64().unwrap_or(f64::NAN);
    lab.figure("time: while the row is locked ÷ alone", time(&waited) / time(&alone), "");
    lab.progress(2, 4, "remedies");
    for (remedy, expected) in [
        ("index-again", "does_nothing"),
        ("plain-read", "helps"),
        ("skip-locked", "changes_the_answer"),
    ] {
        let effect = while_busy(&client, remedy, expected).await?;
        lab.check_eq(
            format!("while the row is locked: what {remedy} does"),
            expected.to_owned(),
            effect,
        );
    }
    drop(busy);
    lab.progress(3, 4, "a lock on the table");
    table_lock(&lab, &fixture, &client, params.hold).await
}

/// What `alter table` does when it waits for a long transaction: it stops every reader behind it.
async fn table_lock(
    lab: &Lab,
    fixture: &Fixture,
    client: &Client,
    hold: u64,
) -> anyhow::Result<()> {
    let mut holder = fixture.connect().await?;
    sqlx::raw_sql("begin; lock table users").execute(&mut holder).await?;
    let released = async {
        somebody_waits("the read waits", &fixture.database).await?;
        // The work of the transaction that holds the lock.
        tokio::time::sleep(Duration::from_millis(hold)).await;
        sqlx::raw_sql("commit").execute(&mut holder).await?;
        anyhow::Ok(())
    };
    let (read, ()) = tokio::try_join!(client.diagnose("by-id"), released)?;
    let first = found(&read).into_iter().next().unwrap_or_default();
    lab.check_eq("a plain read of a locked table: the first finding", "waits".to_owned(), first);
    Ok(())
}
