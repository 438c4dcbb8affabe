//! What holds when many ask at once, and when the program is killed?

use conform::{
    case::Outcome,
    cases,
    expect::{equal, expect, status},
    killing::Killing,
    target::Target,
};
use reqwest::Method;
use serde_json::json;

use super::client::Client;

cases! {
    Load of_fifty_blind_writes_at_once_none_is_lost: "Fifty PUTs of one key without a context at the same moment: all values are read", "Nobody had seen the others' values.";
    Load of_fifty_atomic_writes_at_once_one_is_left: "Fifty PUTs with kind=atomic at the same moment: one of the values is read, and always the same", "It behaves as if there were one copy.";
    Restart what_was_answered_with_200_is_there_after_a_kill: "After SIGKILL, every value that was answered with 200 is read", "An answer is a promise.";
}

async fn of_fifty_blind_writes_at_once_none_is_lost(target: &Target) -> Outcome {
    let client = Client::of(target);
    let key = client.key("crowd");
    let mut expected: Vec<_> = (0..50).map(|n| format!("value {n}")).collect();
    let put = |value| client.request(Method::PUT, &key, "").json(&json!({ "value": value }));
    for (answer, _) in target.send_together(expected.iter().map(put).collect()).await? {
        status(&answer, 200)?;
    }
    expected.sort_unstable();
    equal("the values", client.read(&key, "r=all").await?.0, expected)
}

async fn of_fifty_atomic_writes_at_once_one_is_left(target: &Target) -> Outcome {
    let client = Client::of(target);
    let key = client.key("crowd");
    let put = |n: u32| {
        let value = json!({ "value": format!("value {n}") });
        client.request(Method::PUT, &key, "kind=atomic").json(&value)
    };
    for (answer, _) in target.send_together((0..50).map(put).collect()).await? {
        status(&answer, 200)?;
    }
    let (first, _) = client.read(&key, "kind=atomic").await?;
    equal("the number of values", first.len(), 1)?;
    for _ in 0..10 {
        equal("the value, read again", client.read(&key, "kind=atomic").await?.0, first.clone())?;
    }
    Ok(())
}

/// Eight clients write until the program is gone; it is killed when they have been promised a hundred.
async fn what_was_answered_with_200_is_there_after_a_kill(target: &Target) -> Outcome {
    let client = Client::of(target);
    let killing = Killing::default();
    let clients = (0..8).map(|number| {
        let (client, killing) = (&client, &killing);
        async move {
            let mut promised = Vec::new();
            for n in 0.. {
                if killing.is_over() {
                    break;
                }
                let key = client.key(&format!("kept-{number}-{n}"));
                let kind = ["kind=siblings", "kind=lww", "kind=atomic"][n % 3];
                let Ok(answer) = client.put(&key, kind, &json!({ "value": "v" })).await else {
                    break;
                };
                if answer.status() == 200 {
                    killing.promised();
                    promised.push((key, kind));
                }
            }
            promised
        }
    });
    let promised = killing.after(100, target, clients).await?.concat();
    for (key, kind) in promised {
        let (values, _) = client.read(&key, kind).await?;
        expect(values == ["v"], format!("the promised value of {key}"), format!("{values:?}"))?;
    }
    Ok(())
}
