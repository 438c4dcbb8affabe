//! What holds when many ask at once, and when the program is killed?

use conform::{
    case::Outcome,
    cases,
    expect::{equal, expect, status},
    killing::Killing,
    target::Target,
};
use futures_util::future::try_join_all;
use reqwest::Method;
use serde_json::json;

use super::client::Client;

cases! {
    Load two_builds_of_one_name_at_once_are_one_index: "Of twenty PUTs of one name with two definitions at the same moment, those of one definition get 202, the others 409", "Two builds of one name would be an error of the database, after the fact.";
    Load one_address_wanted_by_fifty_has_one_owner: "With a unique index: of fifty POSTs with one address at the same moment, one gets 201 and the others 409", "Nobody looks first: the index decides.";
    Load users_are_created_while_an_index_is_built: "While indexes are built and dropped, every POST gets 201 in the end", "A table in use stays in use; whether anybody waits, `building` shows.";
    Restart a_build_that_is_killed_can_be_asked_for_again: "After SIGKILL just after a PUT: PUT of the same again, and the index is ready", "A build takes minutes, and a deployment may come in between.";
    Restart what_was_answered_with_201_is_there_after_a_kill: "After SIGKILL, every user that was answered with 201 is there, once", "An answer is a promise.";
}

async fn two_builds_of_one_name_at_once_are_one_index(target: &Target) -> Outcome {
    let client = Client::of(target);
    let name = client.name("once");
    let indexes = [json!({ "columns": ["city"] }), json!({ "columns": ["born"] })];
    let put =
        |n: usize| target.request(Method::PUT, &format!("indexes/{name}")).json(&indexes[n % 2]);
    let answers = target.send_together((0..20).map(put).collect()).await?;
    let statuses: Vec<_> = answers.iter().map(|(it, _)| it.status().as_u16()).collect();
    for (n, seen) in statuses.iter().enumerate() {
        expect([200, 202, 409].contains(seen), "202 or 409", seen)?;
        let same = (*seen == 409) == (statuses[n % 2] == 409);
        expect(same, "one answer for one definition", format!("{statuses:?}"))?;
    }
    let won = statuses[..2].iter().filter(|seen| **seen != 409).count();
    equal("the number of definitions that were accepted", won, 1)?;
    equal("the state", client.ended(&name).await?["state"].clone(), "ready")?;
    client.dropped(&name).await
}

async fn one_address_wanted_by_fifty_has_one_owner(target: &Target) -> Outcome {
    let client = Client::of(target);
    let name = client.name("owner");
    client.build(&name, &json!({ "columns": ["email"], "unique": true })).await?;
    let user = client.user("wanted");
    let answers = target.post_together("users", &vec![user.clone(); 50]).await?;
    let count = |wanted: u16| answers.iter().filter(|(it, _)| it.status() == wanted).count();
    let (won, lost) = (count(201), count(409));
    // The one with 201 may have been told to try again, and then found its own user.
    let unsure = answers.iter().any(|(_, unsure)| *unsure);
    let right = won + lost == 50 && (won == 1 || (unsure && won == 0));
    expect(right, "one 201 and 49 times 409", format!("{won} and {lost}"))?;
    let there = client.with_email(user["email"].as_str().unwrap_or_default()).await?;
    equal("users with this address", there, 1)?;
    client.dropped(&name).await
}

async fn users_are_created_while_an_index_is_built(target: &Target) -> Outcome {
    let client = Client::of(target);
    let name = client.name("meanwhile");
    let build = async {
        for columns in [["city", "born"], ["born", "city"], ["name", "email"]] {
            client.build(&name, &json!({ "columns": columns })).await?;
            client.dropped(&name).await?;
        }
        anyhow::Ok(())
    };
    let create = try_join_all((0..8).map(|who| {
        let client = &client;
        async move {
            for n in 0..10 {
                let user = client.user(&format!("m{who}-{n}"));
                status(&client.create(&user).await?, 201)?;
            }
            anyhow::Ok(())
        }
    }));
    tokio::try_join!(build, create).map(drop)
}

async fn a_build_that_is_killed_can_be_asked_for_again(target: &Target) -> Outcome {
    let client = Client::of(target);
    let name = client.name("killed");
    let index = json!({ "columns": ["name", "born"] });
    status(&client.put(&name, &index).await?, 202)?;
    target.restart().await?;
    client.build(&name, &index).await?;
    client.dropped(&name).await
}

/// Eight clients create users until the program is gone; it is killed when they have been promised a hundred.
async fn what_was_answered_with_201_is_there_after_a_kill(target: &Target) -> Outcome {
    let client = Client::of(target);
    let killing = Killing::default();
    let clients = (0..8).map(|who| {
        let (client, killing) = (&client, &killing);
        async move {
            let mut promised = Vec::new();
            while !killing.is_over() {
                let user = client.user(&format!("k{who}-{}", promised.len()));
                let Ok(answer) = client.create(&user).await else { break };
                if answer.status() == 201 {
                    killing.promised();
                    promised.push(user);
                }
            }
            promised
        }
    });
    for user in killing.after(100, target, clients).await?.concat() {
        let there = client.with_email(user["email"].as_str().unwrap_or_default()).await?;
        equal("users with a promised address", there, 1)?;
    }
    Ok(())
}
