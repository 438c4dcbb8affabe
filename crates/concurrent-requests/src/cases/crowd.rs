//! What holds when many ask at once, and when the program is killed?

use conform::{
    case::Outcome,
    cases,
    expect::{equal, expect, json_of, status, text},
    http::refused,
    killing::Killing,
    target::Target,
};
use futures_util::future::try_join_all;
use reqwest::Method;
use serde_json::Value;

use super::client::{Client, new_key};

cases! {
    Load fifty_who_want_the_last_ten_get_ten: "Of fifty POST /orders at the same moment for ten items, ten get 201 and the others 409", "Who reads the stock and then takes it sells the last one twice.";
    Load the_same_key_by_fifty_at_once_is_one_order: "Fifty POST /orders with one key and body at the same moment: 201 with one order for all", "Impatient clients send the same twice at the same moment.";
    Load a_flood_of_jobs_is_answered: "Two thousand POST /reports/{day}, fifty at a time: 202, or 503 with Retry-After; and the shop goes on", "Whoever floods the jobs must not stop the shop. How long the queue may become is each program's own; for ours, jobs_that_wait_are_bounded_and_done_before_the_end proves its bound.";
    Restart what_was_answered_with_201_is_there_after_a_kill: "After SIGKILL, every order that was answered with 201 is there, and its key has it", "An answer is a promise.";
}

async fn fifty_who_want_the_last_ten_get_ten(target: &Target) -> Outcome {
    let client = Client::of(target);
    let id = client.put_up(1_000, 10).await?;
    let orders = (0..50).map(|_| client.order(id, 1, &new_key())).collect();
    let answers = target.send_together(orders).await?;
    let of = |status: u16| answers.iter().filter(|(it, _)| it.status() == status).count();
    let got = format!("{} times 201 and {} times 409", of(201), of(409));
    expect((of(201), of(409)) == (10, 40), "10 times 201 and 40 times 409", got)?;
    equal("the stock", client.stock(id).await?, 0)
}

async fn the_same_key_by_fifty_at_once_is_one_order(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (id, key) = (client.put_up(1_000, 10).await?, new_key());
    let orders = (0..50).map(|_| client.order(id, 1, &key)).collect();
    let mut first: Option<Value> = None;
    for (answer, _) in target.send_together(orders).await? {
        let body = json_of(answer, 201).await?;
        equal("the order for one key", body.clone(), first.get_or_insert(body).clone())?;
    }
    equal("the stock", client.stock(id).await?, 9)
}

async fn a_flood_of_jobs_is_answered(target: &Target) -> Outcome {
    let id = Client::of(target).put_up(1_000, 1).await?;
    let clients = (0..50).map(|_| async {
        for _ in 0..40 {
            let answer = target.ask(Method::POST, "reports/1970-01-03").await?;
            if answer.status() != 202 {
                refused(answer, &[503]).await?;
            }
        }
        anyhow::Ok(())
    });
    try_join_all(clients).await?;
    equal("the stock", Client::of(target).stock(id).await?, 1)
}

/// Eight clients buy until the program is gone; it is killed when they have been promised a hundred orders.
async fn what_was_answered_with_201_is_there_after_a_kill(target: &Target) -> Outcome {
    let client = Client::of(target);
    let id = client.put_up(1_000, 1_000_000).await?;
    let killing = Killing::default();
    let clients = (0..8).map(|_| {
        let (client, killing) = (&client, &killing);
        async move {
            let mut promised = Vec::new();
            while !killing.is_over() {
                let key = new_key();
                let Ok(answer) = client.buy(id, 1, &key).await else { break };
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
        let again = client.buy(id, 1, &key).await?;
        status(&again, 201)?;
        equal("the order of its key", json_of(again, 201).await?, order)?;
    }
    Ok(())
}
