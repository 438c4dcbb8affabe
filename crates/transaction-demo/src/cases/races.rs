//! What comes of it when many pay at once, or the bank is killed.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::client::Client;
use conform::{
    case::Outcome,
    cases,
    expect::{equal, expect, integer, json as body_of, json_of},
    http::problem,
    killing::Killing,
    target::Target,
};

cases! {
    Load the_same_key_by_fifty_at_once_is_one_transfer: "Fifty with one key at once: 201 and the same answer for each, one transfer", "A program that looks first and inserts afterwards lets two of them find the key unused.";
    Load the_same_key_at_once_with_two_bodies_is_one_transfer_and_one_refusal: "One key at once with two bodies: 201 for one, 422 for the other", "The first one has the key, and nothing is paid that nobody was told of.";
    Load the_same_opening_by_fifty_at_once_is_one_account: "Fifty openings with one key at once: 201 and the same answer for each", "Money that is paid in fifty times is not the bank's to give.";
    Load an_account_wanted_by_many_is_never_overdrawn: "Forty who want three cents each of a hundred: 33 times 201, 7 times 409", "A program that reads, decides and then writes lets two of them see the last three cents.";
    Load transfers_in_both_directions_all_succeed: "Transfers in both directions between two accounts at once: all 201", "Locks in the order of the request deadlock, and a client cannot help it.";
    Restart what_was_answered_with_201_is_in_the_ledger_after_a_kill_once: "SIGKILL under load: every payment that was answered with 201 is in the ledger, once, and its key has the same answer; the others can be sent again", "201 is a promise, and no answer is none: money must neither vanish nor be paid twice.";
    Restart a_refusal_before_a_kill_is_the_answer_after_it: "SIGKILL: what was refused stays refused for its key", "Or a payment that its client has given up is made by the next process.";
}

async fn the_same_key_by_fifty_at_once_is_one_transfer(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, bob) = client.open_two(1_000, 0).await?;
    let payment = client.payment("once", (ada, bob), 7);
    let answers = client.said_together((0..50).map(|_| client.request(&payment))).await?;
    for (status, body) in &answers {
        equal("the status for one of fifty with one key", *status, 201)?;
        equal("the answer for each of them", body.clone(), answers[0].1.clone())?;
    }
    client.audit((ada, bob), (993, 7)).await
}

async fn the_same_key_at_once_with_two_bodies_is_one_transfer_and_one_refusal(
    target: &Target,
) -> Outcome {
    let client = Client::of(target);
    let (ada, bob) = client.open_two(1_000, 0).await?;
    for round in 0..10 {
        let cents = |cents| client.payment(&format!("tskaowtb-{round}"), (ada, bob), cents);
        let requests = [1, 2].into_iter().map(|it| client.request(&cents(it)));
        let answers = client.said_together(requests).await?;
        let mut statuses: Vec<_> = answers.into_iter().map(|(status, _)| status).collect();
        statuses.sort_unstable();
        equal("the two statuses", statuses, vec![201, 422])?;
    }
    equal("the number of payments that came", client.amounts(bob).await?.len(), 10)
}

async fn the_same_opening_by_fifty_at_once_is_one_account(target: &Target) -> Outcome {
    let client = Client::of(target);
    let key = client.key("tsobfaoioa");
    let account = json!({ "owner": "Ada", "balance_cents": 5 });
    let request = |_| client.keyed("accounts", &key).json(&account);
    let answers = client.said_together((0..50).map(request)).await?;
    for (status, body) in &answers {
        equal("the status for one of fifty with one key", *status, 201)?;
        equal("the answer for each of them", body.clone(), answers[0].1.clone())?;
    }
    Ok(())
}

async fn an_account_wanted_by_many_is_never_overdrawn(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, bob) = client.open_two(100, 0).await?;
    let payment = |n| client.request(&client.payment(&format!("aawbmino-{n}"), (ada, bob), 3));
    let answers = client.said_together((0..40).map(payment)).await?;
    let of = |wanted| answers.iter().filter(|(status, _)| *status == wanted).count();
    let got = format!("{} times 201 and {} times 409", of(201), of(409));
    expect((of(201), of(409)) == (33, 7), "33 times 201 and 7 times 409", got)?;
    client.audit((ada, bob), (1, 99)).await
}

async fn transfers_in_both_directions_all_succeed(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, bob) = client.open_two(1_000, 1_000).await?;
    let payment = |n| {
        let direction = if n % 2 == 0 { (ada, bob) } else { (bob, ada) };
        client.request(&client.payment(&format!("tibdas-{n}"), direction, 10))
    };
    for (status, _) in client.said_together((0..60).map(payment)).await? {
        equal("the status of each of sixty transfers", status, 201)?;
    }
    client.audit((ada, bob), (1_000, 1_000)).await
}

/// Eight clients pay a cent at a time until the bank is gone; it is killed when they have paid a hundred times.
async fn what_was_answered_with_201_is_in_the_ledger_after_a_kill_once(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, bob) = client.open_two(1_000_000, 0).await?;
    let killing = Killing::default();
    let clients = (0..8).map(|worker| {
        let (client, killing) = (&client, &killing);
        async move {
            let mut sent = Vec::new();
            for n in 0.. {
                if killing.is_over() {
                    break;
                }
                let name = format!("killed-{worker}-{n}");
                let answer = client.send(&client.payment(&name, (ada, bob), 1)).await;
                let unheard = answer.is_err();
                let promised = match answer {
                    Ok(response) if response.status() == 201 => body_of(response).await.ok(),
                    _ => None,
                };
                if promised.is_some() {
                    killing.promised();
                }
                sent.push((name, promised));
                if unheard {
                    break;
                }
            }
            sent
        }
    });
    let sent = killing.after(100, target, clients).await?;
    let sent: Vec<(String, Option<Value>)> = sent.concat();
    let mut entries = HashMap::new();
    for entry in client.entries(bob).await? {
        *entries.entry(integer(&entry, "transfer")?).or_insert(0) += 1;
    }
    for (key, promised) in &sent {
        let Some(promised) = promised else { continue };
        let times = entries.get(&integer(promised, "id")?).copied().unwrap_or(0);
        let what = format!(
            "the number of times that the payment {key}, answered with 201, is in the ledger"
        );
        equal(&what, times, 1)?;
    }
    // The payments without an answer are sent again, and so are some with one.
    let unheard = sent.iter().filter(|(_, promised)| promised.is_none());
    for (key, promised) in unheard.chain(sent.iter().take(20)) {
        let again = client.pay(key, (ada, bob), 1).await?;
        let again = json_of(again, 201).await?;
        if let Some(promised) = promised {
            equal("the answer for the same key, after the kill,", again, promised.clone())?;
        }
    }
    let cents = i64::try_from(sent.len())?;
    client.audit((ada, bob), (1_000_000 - cents, cents)).await
}

async fn a_refusal_before_a_kill_is_the_answer_after_it(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, bob) = client.open_two(10, 1_000).await?;
    problem(client.pay("arbakitaai-early", (ada, bob), 50).await?, 409).await?;
    target.restart().await?;
    client.paid("arbakitaai-wages", (bob, ada), 500).await?;
    problem(client.pay("arbakitaai-early", (ada, bob), 50).await?, 409).await?;
    client.audit((ada, bob), (510, 500)).await
}
