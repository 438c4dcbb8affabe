//! What holds when many ask at once, and when the program is killed?

use conform::{
    case::Outcome,
    cases,
    expect::{equal, json_of, status, text},
    killing::Killing,
    target::Target,
};
use serde_json::Value;

use super::client::{Client, new_key, new_number};

cases! {
    Load the_same_key_by_fifty_at_once_is_one_order: "Fifty POST /orders with one key and body at the same moment: 201 with one order for all", "Impatient clients send the same twice at the same moment.";
    Restart what_was_answered_with_201_is_there_after_a_kill: "After SIGKILL, every order that was answered with 201 is there, and its key has it", "An answer is a promise.";
}

async fn the_same_key_by_fifty_at_once_is_one_order(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (id, customer, key) = (client.put_up(1_000).await?, new_number(), new_key());
    let orders = (0..50).map(|_| client.order(customer, id, 1, &key)).collect();
    let mut first: Option<Value> = None;
    for (answer, _) in target.send_together(orders).await? {
        let body = json_of(answer, 201).await?;
        equal("the order for one key", body.clone(), first.get_or_insert(body).clone())?;
    }
    let history = client.history(customer, "batch").await?;
    equal("how many orders there are", history.as_array().map_or(0, Vec::len), 1)
}

/// Eight clients buy until the program is gone; it is killed when they have been promised a hundred orders.
async fn what_was_answered_with_201_is_there_after_a_kill(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (id, customer) = (client.put_up(1_000).await?, new_number());
    let killing = Killing::default();
    let clients = (0..8).map(|_| {
        let (client, killing) = (&client, &killing);
        async move {
            let mut promised = Vec::new();
            while !killing.is_over() {
                let key = new_key();
                let Ok(answer) = client.buy(customer, id, 1, &key).await else { break };
                if answer.status() == 201 {
                    let Ok(order) = json_of(answer, 201).await else { break };
                    killing.promised();
                    promised.push((key, order));
                }
            }
            promised
        }
    });
    for (key, order) in killing.after(100, target, clients).await?.concat() {
        let there = client.get(&format!("orders/{}", text(&order, "id")?)).await?;
        equal("an order that was promised", json_of(there, 200).await?, order.clone())?;
        let again = client.buy(customer, id, 1, &key).await?;
        status(&again, 201)?;
        equal("the order of its key", json_of(again, 201).await?, order)?;
    }
    Ok(())
}
