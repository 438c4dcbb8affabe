//! What holds when many ask at once, and when the program is killed?

use conform::{
    case::Outcome,
    cases,
    expect::{equal, expect, json_of, list, status, text},
    http::one_wins,
    killing::Killing,
    target::Target,
};
use futures_util::future::try_join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Client, known, new_name};

cases! {
    Load one_address_wanted_by_fifty_has_one_owner: "Of fifty POSTs with one address at the same moment, one gets 201 and the others 409", "Nobody looks first: the unique index decides.";
    Load the_same_key_by_fifty_at_once_is_one_user: "Fifty POSTs with one key and body at the same moment: 201 with one user, or 409", "Impatient clients send the same twice at the same moment.";
    Load of_fifty_changes_of_one_version_one_is_made: "Of fifty PUTs with the same ETag at the same moment, one gets 200 and the others 412", "The check of the version and the write are one step.";
    Load an_order_is_shipped_or_cancelled_and_never_both: "A shipment and a cancellation at the same moment: one gets 200, the other 409", "Otherwise a parcel leaves that nobody pays for.";
    Load a_cancellation_by_fifty_at_once_is_one: "Fifty POSTs of the same cancellation at the same moment: 200 for all, and the order is cancelled once", "Impatient clients send this twice too, and hear that it is done.";
    Restart what_was_answered_with_201_is_there_after_a_kill: "After SIGKILL, every user that was answered with 201 is there, once", "An answer is a promise.";
}

async fn one_address_wanted_by_fifty_has_one_owner(target: &Target) -> Outcome {
    let client = Client::of(target);
    let email = client.email();
    let users: Vec<_> =
        (0..50).map(|n| json!({ "name": format!("User {n}"), "email": email })).collect();
    let answers = target.post_together("users", &users).await?;
    one_wins(&answers, 201, 409)?;
    let found = json_of(target.get(&format!("users?email={email}")).await?, 200).await?;
    equal("the number of users with this address", list(&found, "items")?.len(), 1)
}

async fn the_same_key_by_fifty_at_once_is_one_user(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (key, user) = (new_name(), client.user("Ada"));
    let request = || target.request(Method::POST, "users").json(&user);
    let requests = (0..50).map(|_| request().header("idempotency-key", &key));
    let answers = target.send_together(requests.collect()).await?;
    let mut first: Option<Value> = None;
    for (answer, _) in answers {
        if answer.status() == 409 {
            continue;
        }
        let body = json_of(answer, 201).await?;
        equal("the answer for one key", body.clone(), first.get_or_insert(body).clone())?;
    }
    expect(first.is_some(), "201 for one of the fifty at least", "409 for all")?;
    // When it is over, the answer is there for everybody.
    let again = known(client.create(&user, Some(&key)).await?, 201).await?;
    equal("the answer for one key", Some(again.body), first)?;
    let path = format!("users?email={}", text(&user, "email")?);
    let found = json_of(target.get(&path).await?, 200).await?;
    equal("the number of users", list(&found, "items")?.len(), 1)
}

async fn of_fifty_changes_of_one_version_one_is_made(target: &Target) -> Outcome {
    let client = Client::of(target);
    let ada = client.sign_up("Ada").await?;
    let changes = (0..50).map(|n| {
        let new = client.user(&format!("Change {n}"));
        target.request(Method::PUT, &ada.path).json(&new).header("if-match", &ada.tag)
    });
    let answers = target.send_together(changes.collect()).await?;
    one_wins(&answers, 200, 412)
}

async fn an_order_is_shipped_or_cancelled_and_never_both(target: &Target) -> Outcome {
    let client = Client::of(target);
    let ada = client.sign_up("Ada").await?;
    for _ in 0..20 {
        let order = client.order(&ada.path, "tea").await?;
        let [ship, cancel] = ["shipment", "cancellation"].map(|it| format!("{}/{it}", order.path));
        let (shipped, cancelled) = tokio::try_join!(client.go(&ship), client.go(&cancel))?;
        let mut both = [shipped.status().as_u16(), cancelled.status().as_u16()];
        both.sort_unstable();
        expect(both == [200, 409], "one 200 and one 409", format!("{both:?}"))?;
    }
    Ok(())
}

async fn a_cancellation_by_fifty_at_once_is_one(target: &Target) -> Outcome {
    let client = Client::of(target);
    let ada = client.sign_up("Ada").await?;
    let order = client.order(&ada.path, "tea").await?;
    let path = format!("{}/cancellation", order.path);
    let mut orders = Vec::new();
    for answer in try_join_all((0..50).map(|_| client.go(&path))).await? {
        orders.push(json_of(answer, 200).await?);
    }
    equal("the state", orders[0]["state"].clone(), "cancelled")?;
    orders.dedup();
    equal("the number of different answers", orders.len(), 1)
}

/// Eight clients create users until the program is gone; it is killed when they have been promised a hundred.
async fn what_was_answered_with_201_is_there_after_a_kill(target: &Target) -> Outcome {
    let client = Client::of(target);
    let killing = Killing::default();
    let clients = (0..8).map(|_| {
        let (client, killing) = (&client, &killing);
        async move {
            let mut promised = Vec::new();
            while !killing.is_over() {
                let user = client.user("Ada");
                let Ok(answer) = client.create(&user, None).await else { break };
                if answer.status() == 201 {
                    killing.promised();
                    promised.push(user);
                }
            }
            promised
        }
    });
    for user in killing.after(100, target, clients).await?.concat() {
        let response = target.get(&format!("users?email={}", text(&user, "email")?)).await?;
        status(&response, 200)?;
        let found = json_of(response, 200).await?;
        equal("the number of users with a promised address", list(&found, "items")?.len(), 1)?;
    }
    Ok(())
}
