//! What if the one who was thought dead wakes up and goes on?

use lab::{
    Experiment, Lab,
    fault::{Proxy, Side},
};
use sqlx::{Connection, PgConnection};

use super::world::{Api, Participants, order_json, status, timeline, until};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// How long a claim lasts, in milliseconds
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(50..=5_000))]
    lease_ms: u64,
    /// Times that an orchestrator is paused at each step
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=50))]
    rounds: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "split-brain",
        "An orchestrator that is paused past its lease, in the middle of any step, wakes up when another has \
         finished its order: its write is fenced off, and what it had asked for has no second effect",
        &["--rounds", "1", "--lease-ms", "150"],
        run,
    )
}

const STOCK: i64 = 1_000;
/// The step in whose middle it is paused: the participant, and which of its messages that is.
const STEPS: [(&str, usize, u64); 4] =
    [("reserve", 0, 1), ("charge", 1, 1), ("book", 2, 1), ("sell", 0, 2)];

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let (orders, parts) = (lab.database().await?, Participants::new(&lab).await?);
    parts.stock(STOCK).await?;
    let participants = parts.serve(&lab).await?;
    let lease = params.lease_ms.to_string();
    let serve = || {
        let serve = lab.serve().database(&orders);
        // New orders are seen at once, and those left behind when their lease ends: there is no need to poll.
        serve.args(&["--only", "orchestrator", "--lease-ms", &lease, "--poll-ms", "60000"])
    };
    let mut sleeper = serve();
    let mut proxies = Vec::new();
    for name in ["inventory", "payment", "shipping"] {
        let proxy = Proxy::to(participants.address()).await?;
        sleeper =
            sleeper.arg(format!("--{name}-url")).arg(format!("http://{}/{name}", proxy.address()));
        proxies.push(proxy);
    }
    let mut other = serve();
    for name in ["inventory", "payment", "shipping"] {
        other = other.arg(format!("--{name}-url")).arg(format!("{}/{name}", participants.url()));
    }
    let sleeper = sleeper.start().await?;
    let mut direct = PgConnection::connect(orders.url()).await?;
    let (mut rows, mut stale, mut broken, mut confirmed) = (Vec::new(), 0, Vec::new(), 0);
    let total = params.rounds * STEPS.len() as u64 * 2;
    for (number, (round, (step, server, message), late)) in (0..params.rounds)
        .flat_map(|round| STEPS.map(|step| (round, step)))
        .flat_map(|(round, step)| [false, true].map(|late| (round, step, late)))
        .enumerate()
    {
        lab.progress(number as u64, total, format!("paused in the middle of {step}"));
        let proxy = &proxies[server];
        let caught = proxy.at_message(proxy.messages() + message, Side::Before);
        let key = format!("{step} {round} {late}");
        // Every second order is sent back by shipping, unless it has to come to the last step.
        let country = if round % 2 == 1 && step != "sell" { "XX" } else { "GB" };
        let api = Api::of(&sleeper)?;
        let id = api.order(&key, &order_json("pm_card_visa", country)).await?;
        let held = caught.await?;
        sleeper.pause()?;
        // Either the request arrives while its sender sleeps, or only when everything is over.
        let held = Some(held).filter(|_| late);
        let heir = other.clone().start().await?;
        let end = until("the other one finishes the order", async || {
            let mut direct = PgConnection::connect(orders.url()).await?;
            let seen = status(&mut direct, &key).await?.map(|(_, status)| status);
            direct.close().await?;
            Ok(seen.filter(|status| matches!(status.as_str(), "confirmed" | "cancelled" | "stuck")))
        })
        .await?;
        drop(heir);
        let before = timeline(&orders, id).await?;
        drop(held);
        sleeper.resume()?;
        let fenced = until("the sleeper finds itself fenced off", async || {
            let fenced = api.get("readyz").await?["fenced_writes"].as_u64().unwrap_or(0);
            Ok((fenced > number as u64).then_some(fenced))
        })
        .await?;
        stale = fenced;
        let after = timeline(&orders, id).await?;
        let tokens: Vec<_> = after.iter().map(|line| line.3).collect();
        let expected = if country == "XX" { "cancelled" } else { "confirmed" };
        if end != expected || after.len() != before.len() || !tokens.is_sorted() {
            broken.push(format!(
                "{key}: {end}, {} then {} records, {tokens:?}",
                before.len(),
                after.len()
            ));
        }
        confirmed += i64::from(end == "confirmed");
        let taken_over = after.iter().find(|line| line.1["kind"] == "taken_over");
        rows.push(vec![
            step.to_owned(),
            (if late { "after the take-over" } else { "while it slept" }).to_owned(),
            end,
            taken_over.map_or_else(String::new, |line| format!("{:.0} ms", line.2)),
            format!("{tokens:?}"),
        ]);
    }
    let columns = [
        "paused in",
        "its request arrived",
        "the order",
        "taken over after",
        "token of each record",
    ];
    lab.table("Each pause", &columns, rows);
    lab.check_eq("pauses after which the sleeper's write was fenced off", total, stale);
    let none = broken.is_empty();
    lab.check(
        "orders whose log the sleeper has touched, or that did not end as they should",
        "none",
        if none { "none".to_owned() } else { broken.join("; ") },
        none,
    );
    let parts_of = parts.effects().await?;
    let seen: Vec<(sqlx::types::Uuid, String)> =
        sqlx::query_as("select id, status from orders").fetch_all(&mut direct).await?;
    let wrong = seen
        .iter()
        .filter(|(id, status)| !parts_of.get(id).copied().unwrap_or_default().agree_with(status));
    lab.check_eq(
        "orders of which an effect happened twice, or was not undone once",
        0,
        wrong.count(),
    );
    parts.books().await?.check(&lab, STOCK, confirmed);
    Ok(())
}
