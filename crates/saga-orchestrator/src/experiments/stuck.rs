//! What if even the compensation cannot be done?

use lab::{
    Experiment, Lab,
    fault::{Fault, Proxy, Side},
};

use super::world::{Api, Participants, order_json, soon};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Milliseconds after which a refund that fails is left to a human
    #[arg(long, default_value_t = 1_500, value_parser = clap::value_parser!(u64).range(100..=30_000))]
    deadline_ms: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "stuck",
        "A refund that keeps failing parks the order as stuck, with its reason and with nothing given up; \
         retried while the cause is there it is stuck again; after the cause is mended one retry finishes it",
        &["--deadline-ms", "1000"],
        run,
    )
}

const STOCK: i64 = 10;
const FINAL: [&str; 3] = ["confirmed", "cancelled", "stuck"];

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let (orders, parts) = (lab.database().await?, Participants::new(&lab).await?);
    parts.stock(STOCK).await?;
    let participants = parts.serve(&lab).await?;
    let (payment, shipping) =
        (Proxy::to(participants.address()).await?, Proxy::to(participants.address()).await?);
    let child = lab
        .serve()
        .database(&orders)
        .args(&["--only", "orchestrator", "--backoff-ms", "20", "--longest-backoff-ms", "200"])
        .args(&["--deadline-ms", &params.deadline_ms.to_string()])
        .arg("--inventory-url")
        .arg(format!("{}/inventory", participants.url()))
        .arg("--payment-url")
        .arg(format!("http://{}/payment", payment.address()))
        .arg("--shipping-url")
        .arg(format!("http://{}/shipping", shipping.address()))
        .start()
        .await?;
    let api = Api::of(&child)?;

    // Charged already; shipping is about to refuse; and now nobody can reach the payment service.
    let caught = shipping.at_message(1, Side::Before);
    let id = api.order("stuck", &order_json("pm_card_visa", "XX")).await?;
    let held = soon(caught).await?;
    payment.set(Fault::Cut);
    drop(held);
    let order = api.wait(id, &FINAL).await?;
    lab.text(format!("The order says: {}.", order["reason"]));
    lab.check_eq("the order with a refund that fails is", "stuck", text(&order["status"]));
    let reason = text(&order["reason"]);
    lab.check("its reason names the step", "refund: …", reason, reason.starts_with("refund"));
    let refund = order["steps"]
        .as_array()
        .and_then(|steps| steps.iter().find(|step| step["name"] == "refund").cloned());
    let attempts = refund.as_ref().and_then(|step| step["attempts"].as_u64()).unwrap_or(0);
    lab.figure("attempts at the refund before a human was asked", attempts as f64, "");
    lab.check("it was tried more than once", "2 or more", attempts, attempts >= 2);
    let listed = api.get("orders?status=stuck").await?;
    let listed = listed["orders"]
        .as_array()
        .is_some_and(|orders| orders.iter().any(|order| order["id"] == id.to_string()));
    lab.check_eq("it is in the list of those who wait for a human", true, listed);
    let books = parts.books().await?;
    let held_back = (books.reserved, books.cents, books.parcels);
    lab.check(
        "nothing was given up: the item is still reserved, the money still charged",
        "(1, 2500, 0)",
        format!("{held_back:?}"),
        held_back == (1, super::world::AMOUNT, 0),
    );

    let status = api.retry(id).await?;
    lab.check_eq("a retry is accepted", 202, status.as_u16());
    let order = api.wait(id, &FINAL).await?;
    lab.check_eq("retried while the cause is there, it is", "stuck", text(&order["status"]));

    payment.heal();
    let status = api.retry(id).await?;
    lab.check_eq("a retry is accepted again", 202, status.as_u16());
    let order = api.wait(id, &FINAL).await?;
    lab.check_eq(
        "after the cause is mended, one retry later it is",
        "cancelled",
        text(&order["status"]),
    );
    let effects = parts.effects().await?.remove(&id).unwrap_or_default();
    lab.check_eq("refunds", 1, effects.refunds);
    parts.books().await?.check(&lab, STOCK, 0);
    let status = api.retry(id).await?;
    lab.check_eq("a retry of an order that is not stuck is a conflict", 409, status.as_u16());
    Ok(())
}

fn text(value: &serde_json::Value) -> &str {
    value.as_str().unwrap_or_default()
}
