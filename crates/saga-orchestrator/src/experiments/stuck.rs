//! What if even the compensation cannot be done?

use lab::{
    Experiment, Lab, Sabotage,
    fault::{Fault, Proxy, Side},
};
use uuid::Uuid;

use super::{
    books::{Books, effects},
    fixture::{ALL, Fixture, book_order, soon, start},
};
use crate::cases::client::{AMOUNT, Client};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Failed attempts after which the refund is left to a human
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=100))]
    attempts: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "stuck",
        "A refund that keeps failing parks the order as stuck, with its reason and with nothing given up; \
         retried while the cause is there it is stuck again; after the cause is mended one retry finishes it",
        &["--attempts", "5"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/next.rs",
        replace: "_ => return self.park(undo),",
        with: "_ => {}",
        check: "after the cause is mended, one retry later it is",
    })
}

const STOCK: i64 = 10;

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    fixture.parts.stock(STOCK).await?;
    let participants = fixture.serve_only(ALL).start().await?;
    let direct = participants.address();
    let (payment, shipping) = (Proxy::to(direct).await?, Proxy::to(direct).await?);
    let orchestrator = fixture
        .orchestrator([direct.parse()?, payment.address(), shipping.address()])
        .args(&["--backoff-ms", "20", "--longest-backoff-ms", "200"])
        .args(&["--attempts", &params.attempts.to_string()]);
    let (_orchestrator, client) = start(orchestrator).await?;

    // Charged already; shipping is about to refuse; and now nobody can reach the payment service.
    let caught = shipping.at_message(1, Side::Before);
    let id = client.place_order("stuck", &book_order("pm_card_visa", "XX")).await?;
    let held = soon(caught).await?;
    payment.set(Fault::Cut);
    drop(held);
    let order = client.ended(id).await?;
    lab.text(format!("The order says: {}.", order["reason"]));
    lab.check_eq("the order with a refund that fails is", "stuck", text(&order["status"]));
    let reason = text(&order["reason"]);
    lab.check("its reason names the step", "refund: …", reason, reason.starts_with("refund"));
    let refund = order["steps"]
        .as_array()
        .and_then(|steps| steps.iter().find(|step| step["name"] == "refund").cloned());
    let attempts = refund.as_ref().and_then(|step| step["attempts"].as_u64()).unwrap_or(0);
    lab.figure("attempts at the refund before a human was asked", attempts as f64, "");
    lab.check_eq("it was tried as often as it may be", params.attempts, attempts);
    let listed = client.json("orders?status=stuck").await?;
    let listed = listed["orders"]
        .as_array()
        .is_some_and(|orders| orders.iter().any(|order| order["id"] == id.to_string()));
    lab.check_eq("it is in the list of those who wait for a human", true, listed);
    let books = Books::of(&fixture.parts).await?;
    let held_back = (books.reserved, books.cents, books.parcels);
    lab.check(
        "nothing was given up: the item is still reserved, the money still charged",
        "(1, 2500, 0)",
        format!("{held_back:?}"),
        held_back == (1, AMOUNT, 0),
    );

    let status = retry(&client, id).await?;
    lab.check_eq("a retry is accepted", 202, status);
    let order = client.ended(id).await?;
    lab.check_eq("retried while the cause is there, it is", "stuck", text(&order["status"]));

    payment.heal();
    let status = retry(&client, id).await?;
    lab.check_eq("a retry is accepted again", 202, status);
    let order = client.ended(id).await?;
    lab.check_eq(
        "after the cause is mended, one retry later it is",
        "cancelled",
        text(&order["status"]),
    );
    let effects = effects(&fixture.parts).await?.remove(&id).unwrap_or_default();
    lab.check_eq("refunds", 1, effects.refunds);
    Books::of(&fixture.parts).await?.check(&lab, STOCK, 0);
    let status = retry(&client, id).await?;
    lab.check_eq("a retry of an order that is not stuck is a conflict", 409, status);
    Ok(())
}

/// Resumes the order; the status of the answer. A call that got a 503 on a busy machine may have resumed it: the
/// conflict after that says so.
async fn retry(client: &Client, id: Uuid) -> anyhow::Result<u16> {
    let (response, unsure) = client.retry(id).await?;
    match response.status().as_u16() {
        409 if unsure => Ok(202),
        status => Ok(status),
    }
}

fn text(value: &serde_json::Value) -> &str {
    value.as_str().unwrap_or_default()
}
