//! What can both sides of a cut change without a conflict? A counter and a cart. And what not? A limit on stock.

use lab::{Experiment, Lab, Sabotage};
use serde_json::json;

use super::fixture::Cluster;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Visitors that each side counts
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(i64).range(1..=1_000))]
    visitors: i64,
    /// How many there are to sell, before the cut
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(i64).range(1..=500))]
    stock: i64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "crdt",
        "A counter and a cart that both sides of a cut change merge without loss; a limit on stock cannot be kept this \
         way, and is oversold",
        &["--visitors", "5", "--stock", "3"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/crdt.rs",
        replace: "*ours = (ours.0.max(more), ours.1.max(less));",
        with: "*ours = (ours.0 + more, ours.1 + less);",
        check: "the counter: visitors",
    })
}

/// Node 0 is alone; 1 and 2 are together.
const SIDES: [usize; 2] = [0, 1];

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let cluster = Cluster::three().await?;
    let [count, cart] = ["w=1&kind=counter", "w=1&kind=set"];
    let start = &cluster.clients[0];
    start.change("stock", "w=all&kind=counter", &json!({ "add": params.stock })).await?;
    for item in ["tea", "milk"] {
        start.change("cart", "w=all&kind=set", &json!({ "insert": item })).await?;
    }
    lab.progress(1, 2, "both sides go on");
    cluster.isolate(0);
    let mut sold = 0;
    for side in SIDES {
        let node = &cluster.clients[side];
        for _ in 0..params.visitors {
            node.change("visitors", count, &json!({ "add": 1 })).await?;
        }
        // Sell as long as this side thinks that there is something to sell.
        while node.read("stock", "r=1&kind=counter").await?.0.concat().parse::<i64>()? > 0 {
            node.change("stock", count, &json!({ "add": -1 })).await?;
            sold += 1;
        }
    }
    // One side takes the tea out; the other one puts it in once more, and sugar beside it.
    cluster.clients[0].change("cart", cart, &json!({ "remove": "tea" })).await?;
    cluster.clients[0].change("cart", cart, &json!({ "insert": "bread" })).await?;
    for item in ["tea", "sugar"] {
        cluster.clients[1].change("cart", cart, &json!({ "insert": item })).await?;
    }
    cluster.clients[1].change("cart", cart, &json!({ "remove": "milk" })).await?;
    cluster.heal().await?;
    // Twice: to hear of the same change again must not count again.
    for _ in 0..2 {
        for key in ["visitors", "stock"] {
            start.read(key, "r=all&kind=counter").await?;
        }
    }
    let visitors = start.read("visitors", "r=all&kind=counter").await?.0.concat();
    lab.check_eq("the counter: visitors", (2 * params.visitors).to_string(), visitors);
    let items = start.read("cart", "r=all&kind=set").await?.0.join(", ");
    lab.check_eq("the cart", "bread, sugar, tea".to_owned(), items);
    lab.check_eq("the stock: sold, although each side looked first", 2 * params.stock, sold);
    let left = start.read("stock", "r=all&kind=counter").await?.0.concat();
    lab.check_eq("the stock: left", (-params.stock).to_string(), left);
    lab.figure("oversold", (sold - params.stock) as f64, "");
    Ok(())
}
