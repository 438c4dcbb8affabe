//! What does an order's way look like, forward and back?

use lab::{Experiment, Lab, Sabotage};
use serde_json::Value;

use super::{
    books::Books,
    fixture::{Fixture, SKU, book_order, start},
};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Whose refusal sends the second order back
    #[arg(long, default_value = "payment", value_parser = ["payment", "shipping"])]
    refused_by: String,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "order",
        "Each step is asked for in turn, and the decision is in the log before it; when payment declines, what \
         was done is undone in reverse, and nothing is left of the order",
        &["--refused-by", "shipping"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/next.rs",
        replace: "STEPS.iter().rev().filter(",
        with: "STEPS.iter().filter(",
        check: "the compensations follow in reverse",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let (_child, client) = start(fixture.serve()).await?;
    client.put_stock(SKU, 10).await?;

    let id = client.place_order("good", &book_order("pm_card_visa", "GB")).await?;
    let good = client.ended(id).await?;
    let log = fixture.timeline(id).await?;
    show(&lab, "The log of an order that is confirmed", &log);
    lab.check_eq("an order that nobody refuses ends", "confirmed", text(&good["status"]));
    let forward = ["reserve", "charge", "book", "sell"];
    lab.check_eq("it was asked for, in this order", forward.join(" "), asked(&log));
    lab.check_eq("each done once, right after it was asked for", true, each_done_after_asked(&log));

    let (method, country) = if params.refused_by == "payment" {
        ("pm_card_chargeDeclined", "GB")
    } else {
        ("pm_card_visa", "XX")
    };
    let id = client.place_order("bad", &book_order(method, country)).await?;
    let bad = client.ended(id).await?;
    let log = fixture.timeline(id).await?;
    show(&lab, &format!("The log of an order that {} refuses", params.refused_by), &log);
    lab.text(format!("It was refused because of this: {}.", text(&bad["reason"])));
    lab.check_eq("an order that somebody refuses ends", "cancelled", text(&bad["status"]));
    let both_ways = if params.refused_by == "payment" {
        "reserve charge release"
    } else {
        "reserve charge book refund release"
    };
    lab.check_eq("the compensations follow in reverse", both_ways.to_owned(), asked(&log));
    Books::of(&fixture.parts).await?.check(&lab, 10, 1);
    Ok(())
}

type Line = (i32, Value, f64, i64);

fn show(lab: &Lab, title: &str, log: &[Line]) {
    let rows = log.iter().map(|(number, record, at, fence)| {
        let kind = text(&record["kind"]).to_owned();
        let what = format!("{} {}", text(&record["call"]), text(&record["reason"]));
        let bar = "·".repeat(usize::try_from(*number).unwrap_or(0));
        vec![
            number.to_string(),
            format!("{at:.1}"),
            fence.to_string(),
            format!("{bar} {kind}"),
            what,
        ]
    });
    lab.table(title, &["record", "ms", "fencing token", "kind", "call"], rows.collect());
    for (_, record, at, _) in log {
        let line = if record["kind"] == "asked" { "asked" } else { "answered or ended" };
        let nth = log.iter().filter(|other| other.2 < *at).count() as f64;
        lab.point(
            title,
            ("milliseconds since the first record", "records before it"),
            line,
            (*at, nth),
        );
    }
}

/// The calls in the order in which the log says that they were asked for.
fn asked(log: &[Line]) -> String {
    let asked = log.iter().filter(|line| line.1["kind"] == "asked");
    asked.map(|line| text(&line.1["call"])).collect::<Vec<_>>().join(" ")
}

fn each_done_after_asked(log: &[Line]) -> bool {
    let steps = &log[..log.len().saturating_sub(1)];
    !steps.is_empty()
        && steps.len().is_multiple_of(2)
        && steps.chunks(2).all(|pair| {
            pair[0].1["kind"] == "asked"
                && pair[1].1["kind"] == "done"
                && pair[0].1["call"] == pair[1].1["call"]
                && pair[0].2 <= pair[1].2
        })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
