//! The table of calls of a replicated register.

mod bad_input;
pub mod client;
mod crowd;

use conform::{
    case::{Outcome, Suite},
    cases,
    expect::{equal, expect, integer, json_of, list, same_fields, text},
    http::{lives_and_is_ready, media_type_is, problem},
    target::Target,
};
use reqwest::Method;
use serde_json::json;

use client::Client;

cases! {
    Plain a_value_is_written_and_read: "PUT: 200 with acknowledged and context; GET: values and context", "Whoever writes something wants to find it again.";
    Plain each_request_says_how_many_nodes_must_answer: "w and r of 1, quorum and all: 200, and acknowledged is at least as many", "The choice belongs to whoever knows what the value is for.";
    Plain a_blind_write_replaces_nothing: "PUT without a context: both values are read", "The client has not seen the other value, so it cannot want it gone.";
    Plain a_write_with_a_context_replaces_what_was_read: "PUT with the context of a read: only the new value is read", "That is how a client settles a conflict.";
    Plain two_writes_with_one_context_are_both_kept: "Two PUTs with the same context: both values are read", "Neither client had seen the other's write.";
    Plain a_write_knows_its_own_context: "PUT with the context that the last PUT returned: only the new value is read", "A client need not read what it has just written.";
    Plain the_last_write_wins_where_it_was_asked_for: "PUT twice with kind=lww: the second value alone", "It is simple, and sometimes enough.";
    Plain an_atomic_register_has_one_value: "PUT twice with kind=atomic: the second value alone", "It behaves as if there were one copy.";
    Plain a_counter_adds_up: "POST with kind=counter: the sum of all amounts", "Both sides of a cut can count, and nothing is lost.";
    Plain a_set_has_what_was_inserted_and_not_removed: "POST with kind=set: its items, each once; an empty set is no 404", "A cart.";
    Plain the_same_key_of_another_kind_is_another_register: "One key, three kinds, three values", "Values of two kinds could not be merged.";
    Plain a_key_without_a_value_is_not_found: "GET of a key that nobody wrote: 404, at each level and of each kind", "An everyday event.";
    Plain what_one_node_has_can_be_seen: "GET …/versions: node, and versions with their values", "Siblings are hard to explain without them.";
    Plain the_cluster_says_who_belongs_to_it: "GET /cluster: node, nodes, quorum and others", "An operator wants to know whom a node can reach.";
    Plain the_history_has_what_was_asked: "GET /history: client, key, action, called and returned", "Whether a store is consistent can only be judged by its history.";
    Plain the_history_is_drawn: "GET /history.svg: an image", "Nobody sees an anomaly in a list.";
    Plain the_service_says_that_it_lives_and_is_ready: "GET /healthz and GET /readyz: 200", "A load balancer asks this before it sends clients.";
}

/// The whole suite.
pub fn suite() -> Suite {
    Suite {
        calls: include_str!("calls.md"),
        cases: [cases(), bad_input::cases(), crowd::cases()].concat(),
    }
}

const KINDS: [&str; 3] = ["kind=siblings", "kind=lww", "kind=atomic"];

async fn a_value_is_written_and_read(target: &Target) -> Outcome {
    let client = Client::of(target);
    let key = client.key("tea");
    let written = client.write(&key, "", "green", None).await?;
    same_fields(&written, &json!({ "key": key, "kind": "siblings" }), &["key", "kind"])?;
    expect(
        integer(&written, "acknowledged")? >= 1,
        "one node at least in `acknowledged`",
        &written,
    )?;
    text(&written, "context")?;
    let read = json_of(client.get(&key, "").await?, 200).await?;
    equal("the values", read["values"].clone(), json!(["green"]))?;
    text(&read, "context").map(drop)
}

async fn each_request_says_how_many_nodes_must_answer(target: &Target) -> Outcome {
    let client = Client::of(target);
    let nodes = integer(&json_of(target.get("cluster").await?, 200).await?, "nodes")?;
    for (level, least) in [("1", 1), ("quorum", nodes / 2 + 1), ("all", nodes)] {
        for kind in ["siblings", "lww"] {
            let key = client.key(&format!("{level}-{kind}"));
            let written = client.write(&key, &format!("w={level}&kind={kind}"), "v", None).await?;
            let acknowledged = integer(&written, "acknowledged")?;
            let enough = (least..=nodes).contains(&acknowledged);
            expect(enough, format!("{least} to {nodes} nodes in `acknowledged`"), acknowledged)?;
            let read = client.read(&key, &format!("r={level}&kind={kind}")).await?;
            equal("the values", read.0, vec!["v"])?;
        }
    }
    Ok(())
}

async fn a_blind_write_replaces_nothing(target: &Target) -> Outcome {
    let client = Client::of(target);
    let key = client.key("blind");
    for value in ["a", "b", "c"] {
        client.write(&key, "", value, None).await?;
    }
    equal("the values", client.read(&key, "").await?.0, vec!["a", "b", "c"])
}

async fn a_write_with_a_context_replaces_what_was_read(target: &Target) -> Outcome {
    let client = Client::of(target);
    let key = client.key("settled");
    for value in ["a", "b"] {
        client.write(&key, "", value, None).await?;
    }
    let (values, context) = client.read(&key, "").await?;
    equal("the values", values, vec!["a", "b"])?;
    client.write(&key, "", "a and b", Some(&context)).await?;
    equal("the values after that", client.read(&key, "").await?.0, vec!["a and b"])
}

async fn two_writes_with_one_context_are_both_kept(target: &Target) -> Outcome {
    let client = Client::of(target);
    let key = client.key("twice");
    client.write(&key, "", "old", None).await?;
    let (_, context) = client.read(&key, "").await?;
    for value in ["one", "two"] {
        client.write(&key, "", value, Some(&context)).await?;
    }
    equal("the values", client.read(&key, "").await?.0, vec!["one", "two"])
}

async fn a_write_knows_its_own_context(target: &Target) -> Outcome {
    let client = Client::of(target);
    let key = client.key("own");
    let written = client.write(&key, "", "first", None).await?;
    client.write(&key, "", "second", Some(text(&written, "context")?)).await?;
    equal("the values", client.read(&key, "").await?.0, vec!["second"])
}

async fn the_last_write_wins_where_it_was_asked_for(target: &Target) -> Outcome {
    one_value(target, "kind=lww").await
}

async fn an_atomic_register_has_one_value(target: &Target) -> Outcome {
    one_value(target, "kind=atomic").await
}

async fn one_value(target: &Target, kind: &str) -> Outcome {
    let client = Client::of(target);
    let key = client.key("one");
    for value in ["z", "m", "a"] {
        let written = client.write(&key, kind, value, None).await?;
        equal("the field `kind`", written["kind"].clone(), kind.trim_start_matches("kind="))?;
        equal("the values", client.read(&key, kind).await?.0, vec![value])?;
    }
    Ok(())
}

async fn a_counter_adds_up(target: &Target) -> Outcome {
    let client = Client::of(target);
    let key = client.key("count");
    let mut sum = 0;
    for amount in [3_i64, -5, 0, 1_000_000_000_000] {
        client.change(&key, "kind=counter", &json!({ "add": amount })).await?;
        sum += amount;
        let read = client.read(&key, "kind=counter").await?;
        equal("the values", read.0, vec![sum.to_string()])?;
    }
    Ok(())
}

async fn a_set_has_what_was_inserted_and_not_removed(target: &Target) -> Outcome {
    let client = Client::of(target);
    let key = client.key("cart");
    for (change, expected) in [
        (json!({ "insert": "tea" }), &["tea"][..]),
        (json!({ "insert": "milk" }), &["milk", "tea"]),
        (json!({ "insert": "tea" }), &["milk", "tea"]),
        (json!({ "remove": "tea" }), &["milk"]),
        (json!({ "remove": "sugar" }), &["milk"]),
        (json!({ "remove": "milk" }), &[]),
        (json!({ "insert": "tea" }), &["tea"]),
    ] {
        client.change(&key, "kind=set", &change).await?;
        equal("the values", client.read(&key, "kind=set").await?.0, expected.to_vec())?;
    }
    Ok(())
}

async fn the_same_key_of_another_kind_is_another_register(target: &Target) -> Outcome {
    let client = Client::of(target);
    let key = client.key("kinds");
    for kind in KINDS {
        client.write(&key, kind, kind, None).await?;
    }
    for kind in KINDS {
        equal("the values", client.read(&key, kind).await?.0, vec![kind])?;
    }
    Ok(())
}

async fn a_key_without_a_value_is_not_found(target: &Target) -> Outcome {
    let client = Client::of(target);
    let key = client.key("nobody");
    let others = ["kind=lww", "kind=atomic", "kind=counter", "kind=set"];
    for query in ["r=1", "r=quorum", "r=all"].into_iter().chain(others) {
        problem(client.get(&key, query).await?, 404).await?;
    }
    Ok(())
}

async fn what_one_node_has_can_be_seen(target: &Target) -> Outcome {
    let client = Client::of(target);
    let key = client.key("versions");
    for kind in KINDS {
        client.write(&key, kind, "v", None).await?;
        let path = format!("keys/{key}/versions?{kind}");
        let seen = json_of(target.get(&path).await?, 200).await?;
        integer(&seen, "node")?;
        let values: Vec<_> =
            list(&seen, "versions")?.iter().map(|it| it["value"].clone()).collect();
        equal("the values of the versions", values, json!(["v"]))?;
    }
    let nobody = format!("keys/{}/versions", client.key("nobody"));
    let seen = json_of(target.get(&nobody).await?, 200).await?;
    equal("the number of versions of a key that nobody wrote", list(&seen, "versions")?.len(), 0)
}

async fn the_cluster_says_who_belongs_to_it(target: &Target) -> Outcome {
    let seen = json_of(target.get("cluster").await?, 200).await?;
    integer(&seen, "node")?;
    let nodes = integer(&seen, "nodes")?;
    equal("the quorum", integer(&seen, "quorum")?, nodes / 2 + 1)?;
    equal("the number of others", list(&seen, "others")?.len(), nodes - 1)
}

async fn the_history_has_what_was_asked(target: &Target) -> Outcome {
    let client = Client::of(target);
    let key = client.key("history");
    let write = client.request(Method::PUT, &key, "kind=lww").json(&json!({ "value": "v" }));
    json_of(target.send(write.header("x-client", "7")).await?, 200).await?;
    json_of(client.get(&key, "kind=lww").await?, 200).await?;
    let path = format!("history?key=lww/{key}");
    let seen = json_of(target.get(&path).await?, 200).await?;
    let operations = list(&seen, "operations")?;
    equal("the number of operations", operations.len(), 2)?;
    let expected = json!({ "client": 7, "key": format!("lww/{key}"), "action": { "write": "v" } });
    same_fields(&operations[0], &expected, &["client", "key", "action"])?;
    equal("the second action", operations[1]["action"].clone(), json!({ "read": "v" }))?;
    let (returned, called) =
        (integer(&operations[0], "returned")?, integer(&operations[1], "called")?);
    expect(returned <= called, "the read to be called after the write has returned", called)
}

async fn the_history_is_drawn(target: &Target) -> Outcome {
    let client = Client::of(target);
    client.write(&client.key("drawn"), "", "<v>", None).await?;
    let drawn = target.get("history.svg").await?;
    media_type_is(&drawn, "image/svg+xml")?;
    let body = drawn.text().await?;
    let ends = body.trim_end().ends_with("</svg>") && body.matches("</svg>").count() == 1;
    expect(ends, "one SVG", &body)
}

async fn the_service_says_that_it_lives_and_is_ready(target: &Target) -> Outcome {
    lives_and_is_ready(target).await
}
