//! What if the one who was thought dead wakes up and goes on?

use std::fmt::Display;

use anyhow::Context;
use conform::target::within;
use lab::{
    Experiment, Lab, Sabotage,
    child::{Child, ChildBuilder},
    fault::{Proxy, Side},
};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{
    books::{Books, effects},
    fixture::{ALL, Fixture, book_order, ended, soon, start},
};
use crate::cases::client::PATIENCE;

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
        &["--rounds", "1", "--lease-ms", "250"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/store.rs",
        replace: "where id = $1 and fence = $2",
        with: "where id = $1",
        check: "orders whose log the sleeper has touched, or that did not end as they should",
    })
}

const STOCK: i64 = 1_000;
/// The step in whose middle it is paused: the participant, and which of its messages that is.
const STEPS: [(&str, usize, u64); 4] =
    [("reserve", 0, 1), ("charge", 1, 1), ("book", 2, 1), ("sell", 0, 2)];

/// What each pause begins with.
struct Scene {
    /// Where the participants are.
    participants: String,
    lease_ms: String,
    fixture: Fixture,
}

/// A pause, as it went.
struct Paused {
    end: String,
    is_fenced: bool,
    /// What was wrong, if anything was.
    wrong: Option<String>,
    row: Vec<String>,
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    fixture.parts.stock(STOCK).await?;
    let participants = fixture.serve_only(ALL).start().await?;
    let lease_ms = params.lease_ms.to_string();
    let scene = Scene { participants: participants.address().to_owned(), lease_ms, fixture };
    let (mut rows, mut broken) = (Vec::new(), Vec::new());
    let (mut confirmed, mut fenced) = (0, 0);
    let total = params.rounds * STEPS.len() as u64 * 2;
    let rounds = (0..params.rounds).flat_map(|round| STEPS.map(|step| (round, step)));
    for (round, step) in rounds {
        for late in [false, true] {
            lab.progress(rows.len() as u64, total, format!("paused in the middle of {}", step.0));
            let paused = scene.pause(round, step, late).await?;
            confirmed += i64::from(paused.end == "confirmed");
            fenced += u64::from(paused.is_fenced);
            broken.extend(paused.wrong);
            rows.push(paused.row);
        }
    }
    let columns = [
        "paused in",
        "its request arrived",
        "the order",
        "taken over after",
        "token of each record",
    ];
    lab.table("Each pause", &columns, rows);
    lab.check_eq("pauses after which a write of the sleeper was fenced off", total, fenced);
    let list = if broken.is_empty() { "none".to_owned() } else { broken.join("; ") };
    lab.check(
        "orders whose log the sleeper has touched, or that did not end as they should",
        "none",
        list,
        broken.is_empty(),
    );
    let effects = effects(&scene.fixture.parts).await?;
    let mut direct = PgConnection::connect(scene.fixture.orders.url()).await?;
    let seen: Vec<(Uuid, String)> =
        sqlx::query_as("select id, status from orders").fetch_all(&mut direct).await?;
    let wrong = seen
        .iter()
        .filter(|(id, status)| !effects.get(id).copied().unwrap_or_default().agree_with(status));
    lab.check_eq(
        "orders of which an effect happened twice, or was not undone once",
        0,
        wrong.count(),
    );
    Books::of(&scene.fixture.parts).await?.check(&lab, STOCK, confirmed);
    Ok(())
}

impl Scene {
    /// How an orchestrator is started that reaches the participants at these addresses.
    fn orchestrator(&self, addresses: [impl Display; 3]) -> ChildBuilder {
        // New orders are seen at once, and those left behind when their lease ends: there is no need to poll.
        let waits = ["--poll-ms", "60000", "--lease-ms", &self.lease_ms];
        self.fixture.orchestrator(addresses).args(&waits)
    }

    /// Pauses it in the middle of a step, lets another finish the order, and wakes it up.
    async fn pause(
        &self,
        round: u64,
        (step, server, message): (&str, usize, u64),
        late: bool,
    ) -> anyhow::Result<Paused> {
        // New ones for each pause: on a busy machine a sleeper may claim an order twice, and a message that it still has
        // under way when it is dropped would be caught in the place of one of the next sleeper.
        let to = || Proxy::to(&self.participants);
        let proxies = [to().await?, to().await?, to().await?];
        let addresses = [0, 1, 2].map(|number| proxies[number].address());
        let (sleeper, client) = start(self.orchestrator(addresses)).await?;
        let caught = proxies[server].at_message(message, Side::Before);
        let key = format!("{step} {round} {late}");
        // In every second round shipping sends the order back, unless it has to come to the last step.
        let (country, expected) = if round % 2 == 1 && step != "sell" {
            ("XX", "cancelled")
        } else {
            ("GB", "confirmed")
        };
        let id = client.place_order(&key, &book_order("pm_card_visa", country)).await?;
        let held = soon(caught).await?;
        sleeper.pause()?;
        // Either the request arrives while its sender sleeps, or only when everything is over.
        let held = Some(held).filter(|_| late);
        let heir = self.orchestrator([&self.participants; 3]).start().await?;
        let mut direct = PgConnection::connect(self.fixture.orders.url()).await?;
        let (_, end) = ended(&mut direct, &key).await?;
        drop(heir);
        let log = self.fixture.timeline(id).await?;
        drop(held);
        sleeper.resume()?;
        let is_fenced = || is_fenced(&sleeper, id);
        within(PATIENCE, "the sleeper has tried to write", async || {
            Ok((is_fenced() || self.fixture.timeline(id).await? != log).then_some(()))
        })
        .await
        .with_context(|| format!("what it said: {}", sleeper.log()))?;
        let after = self.fixture.timeline(id).await?;
        let tokens: Vec<_> = after.iter().map(|line| line.3).collect();
        let is_right = end == expected && after == log && tokens.is_sorted();
        let taken_over = after.iter().find(|line| line.1["kind"] == "taken_over");
        let row = vec![
            step.to_owned(),
            (if late { "after the take-over" } else { "while it slept" }).to_owned(),
            end.clone(),
            taken_over.map_or_else(String::new, |line| format!("{:.0} ms", line.2)),
            format!("{tokens:?}"),
        ];
        let wrong = (!is_right).then(|| format!("{key}: {end}, {tokens:?}"));
        Ok(Paused { wrong, end, is_fenced: is_fenced(), row })
    }
}

/// Whether a write of the sleeper for this order was fenced off, as its log says.
fn is_fenced(sleeper: &Child, id: Uuid) -> bool {
    let (log, id) = (sleeper.log(), id.to_string());
    log.lines().any(|line| line.contains("fenced off") && line.contains(&id))
}
