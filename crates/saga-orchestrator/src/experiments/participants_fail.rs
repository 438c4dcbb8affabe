//! What if a participant declines, breaks, is late, dies or cannot be reached?

use std::time::Duration;

use conform::target::within;
use lab::{
    Experiment, Lab, Sabotage,
    child::Child,
    fault::{Fault, Proxy, Side},
};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tokio::time::sleep;

use super::{
    books::{Books, effects},
    fixture::{Fixture, PARTICIPANTS, book_order, soon, start},
};
use crate::cases::client::{Client, PATIENCE, id_of};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Which participant fails
    #[arg(long, default_value = "all", value_parser = ["inventory", "payment", "shipping", "all"])]
    participant: String,
    /// Milliseconds that each trouble lasts
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u64).range(50..=5_000))]
    trouble_ms: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "participants-fail",
        "Whether a participant declines, answers 500, times out after it has done the work, is killed or is cut \
         off: an order that was refused is cancelled, any other is confirmed, and every effect happened once or \
         was undone once",
        &["--participant", "payment", "--trouble-ms", "200"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/caller.rs",
        replace: r#".header("idempotency-key", format!("{id}.{call}"))"#,
        with: r#".header("idempotency-key", format!("{id}.{call}.{}", Uuid::now_v7()))"#,
        check: "payment does it and times out: the order ends",
    })
}

const STOCK: i64 = 1_000;
/// How long the orchestrator waits for an answer.
const CALL_TIMEOUT: Duration = Duration::from_millis(250);

/// Each participant as a process of its own, with a proxy before it.
struct Scene {
    client: Client,
    children: Vec<Child>,
    proxies: Vec<Proxy>,
    trouble: Duration,
    _orchestrator: Child,
    fixture: Fixture,
}

impl Scene {
    async fn new(lab: &Lab, trouble: Duration) -> anyhow::Result<Self> {
        let fixture = Fixture::of(lab).await?;
        fixture.parts.stock(STOCK).await?;
        let (mut children, mut proxies) = (Vec::new(), Vec::new());
        for name in PARTICIPANTS {
            let child = fixture.serve_only(name).start().await?;
            proxies.push(Proxy::to(child.address()).await?);
            children.push(child);
        }
        let orchestrator = fixture
            .orchestrator([0, 1, 2].map(|number| proxies[number].address()))
            .args(&["--call-timeout-ms", &CALL_TIMEOUT.as_millis().to_string()])
            .args(&["--backoff-ms", "20", "--longest-backoff-ms", "100"])
            // Nothing is to be given up, however slow the machine is.
            .args(&["--attempts", "10000"]);
        let (orchestrator, client) = start(orchestrator).await?;
        Ok(Self { client, children, proxies, trouble, _orchestrator: orchestrator, fixture })
    }

    fn database(&self, number: usize) -> &str {
        self.fixture.parts.databases()[number].url()
    }

    /// Makes the trouble for an order, and mends it; how the order ended.
    async fn trouble(
        &mut self,
        number: usize,
        trouble: Trouble,
        key: &str,
    ) -> anyhow::Result<Value> {
        let mut order = book_order("pm_card_visa", "GB");
        let proxy = &self.proxies[number];
        match trouble {
            Trouble::Declines => {
                match number {
                    0 => order["items"][0]["sku"] = json!("no-such-sku"),
                    1 => order["payment_method"] = json!("pm_card_chargeDeclined"),
                    _ => order["address"]["country"] = json!("XX"),
                }
                let id = self.client.place_order(key, &order).await?;
                return self.client.ended(id).await;
            }
            Trouble::Answers500 => {
                // Its table is not where its code looks for it: a real error of its own.
                let mut admin = PgConnection::connect(self.database(number)).await?;
                sqlx::query("alter table calls rename to mislaid").execute(&mut admin).await?;
                let id = self.client.place_order(key, &order).await?;
                sleep(self.trouble).await;
                sqlx::query("alter table mislaid rename to calls").execute(&mut admin).await?;
                admin.close().await?;
                return self.client.ended(id).await;
            }
            Trouble::TimesOut => {
                // The request passes, and its answer does not.
                let caught = proxy.at_message(proxy.messages() + 1, Side::Before);
                let id = self.client.place_order(key, &order).await?;
                let held = soon(caught).await?;
                proxy.set(Fault::BlackHole);
                drop(held);
                let database = self.database(number).to_owned();
                within(PATIENCE, "the work is done", async || {
                    let mut direct = PgConnection::connect(&database).await?;
                    let done: bool =
                        sqlx::query_scalar("select exists (select from calls where order_id = $1)")
                            .bind(id)
                            .fetch_one(&mut direct)
                            .await?;
                    direct.close().await?;
                    Ok(done.then_some(()))
                })
                .await?;
                // Longer than the orchestrator waits, or it would only be a slow answer.
                sleep(self.trouble.max(CALL_TIMEOUT * 2)).await;
                proxy.heal();
                return self.client.ended(id).await;
            }
            Trouble::IsKilled => {
                let caught = proxy.at_message(proxy.messages() + 1, Side::After);
                let id = self.client.place_order(key, &order).await?;
                let held = soon(caught).await?;
                self.children[number].kill().await?;
                drop(held);
                sleep(self.trouble).await;
                self.children[number].restart().await?;
                return self.client.ended(id).await;
            }
            Trouble::IsCutOff => {
                proxy.set(Fault::Cut);
                let id = self.client.place_order(key, &order).await?;
                sleep(self.trouble).await;
                proxy.heal();
                return self.client.ended(id).await;
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Trouble {
    Declines,
    Answers500,
    TimesOut,
    IsKilled,
    IsCutOff,
}

const TROUBLES: [(Trouble, &str); 5] = [
    (Trouble::Declines, "declines"),
    (Trouble::Answers500, "answers 500"),
    (Trouble::TimesOut, "does it and times out"),
    (Trouble::IsKilled, "is killed in the act"),
    (Trouble::IsCutOff, "is cut off"),
];

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let mut scene = Scene::new(&lab, Duration::from_millis(params.trouble_ms)).await?;
    let chosen: Vec<_> = (0..PARTICIPANTS.len())
        .filter(|&number| params.participant == "all" || params.participant == PARTICIPANTS[number])
        .collect();
    let total = (chosen.len() * TROUBLES.len()) as u64;
    let (mut done, mut confirmed, mut rows, mut wrong) = (0, 0, Vec::new(), Vec::new());
    for number in chosen {
        let name = PARTICIPANTS[number];
        for (trouble, words) in TROUBLES {
            lab.progress(done, total, format!("{name} {words}"));
            done += 1;
            let order = scene.trouble(number, trouble, &format!("{name} {words}")).await?;
            let status = order["status"].as_str().unwrap_or_default().to_owned();
            confirmed += i64::from(status == "confirmed");
            let expected =
                if matches!(trouble, Trouble::Declines) { "cancelled" } else { "confirmed" };
            lab.check_eq(format!("{name} {words}: the order ends"), expected, status.as_str());
            let id = id_of(&order)?;
            let seen = effects(&scene.fixture.parts).await?.remove(&id).unwrap_or_default();
            if !seen.agree_with(&status) {
                wrong.push(format!("{name} {words}: {seen:?}"));
            }
            let steps = order["steps"].as_array().cloned().unwrap_or_default();
            if matches!(trouble, Trouble::TimesOut) {
                let attempts = steps.iter().filter_map(|step| step["attempts"].as_u64()).max();
                let attempts = attempts.unwrap_or(0);
                let check = format!("{name} {words}: attempts at the call");
                lab.check(check, "2 or more", attempts, attempts >= 2);
            }
            let steps = steps.iter().filter(|step| step["attempts"] != 0);
            let steps = steps.map(|step| {
                format!("{} {}×", step["name"].as_str().unwrap_or_default(), step["attempts"])
            });
            let errors = order["steps"].as_array().and_then(|steps| {
                steps.iter().find_map(|step| step["last_error"].as_str()).map(str::to_owned)
            });
            rows.push(vec![
                format!("{name} {words}"),
                status,
                steps.collect::<Vec<_>>().join(", "),
                errors.unwrap_or_default(),
            ]);
        }
    }
    let columns = ["trouble", "the order", "attempts", "what the log says of it"];
    lab.table("Each trouble, and how its order ended", &columns, rows);
    let list = if wrong.is_empty() { "none".to_owned() } else { wrong.join("; ") };
    lab.check(
        "orders of which an effect happened twice, or was not undone once",
        "none",
        list,
        wrong.is_empty(),
    );
    Books::of(&scene.fixture.parts).await?.check(&lab, STOCK, confirmed);
    down(&lab, &mut scene, confirmed).await
}

/// Down is not unknown: where nobody listened nothing was asked, so there is nothing to undo there.
async fn down(lab: &Lab, scene: &mut Scene, confirmed: i64) -> anyhow::Result<()> {
    let addresses = [0, 1, 2].map(|number| scene.children[number].address().to_owned());
    let beside = scene.fixture.beside().await?;
    let orchestrator = beside.orchestrator(addresses).args(&[
        "--backoff-ms",
        "20",
        "--longest-backoff-ms",
        "50",
        "--attempts",
        "8",
    ]);
    scene.children[1].kill().await?;
    let (_orchestrator, client) = start(orchestrator).await?;
    let order = book_order("pm_card_visa", "GB");
    let id = client.place_order("payment is down for good", &order).await?;
    let order = client.ended(id).await?;
    let steps: Vec<_> = order["steps"].as_array().into_iter().flatten().collect();
    let was_asked = |name: &str| steps.iter().any(|step| step["name"] == name);
    lab.check_eq(
        "payment stays down, and nobody listened: the order ends",
        "cancelled",
        order["status"].as_str().unwrap_or_default(),
    );
    lab.check_eq(
        "and no refund was asked for, since nothing can have been charged",
        false,
        was_asked("refund"),
    );
    lab.check_eq("but the reservation was released", true, was_asked("release"));
    scene.children[1].restart().await?;
    Books::of(&scene.fixture.parts).await?.check(lab, STOCK, confirmed);
    Ok(())
}
