//! What does a node make of what is malformed, forged or odd?

use anyhow::Context;
use conform::{
    bodies::refuses_bad_bodies,
    case::Outcome,
    cases,
    expect::{equal, expect},
    http::{invalid, not_allowed, not_found, problem, refused},
    target::Target,
};
use reqwest::Method;
use serde_json::{Value, json};

use super::client::Client;

cases! {
    Plain a_key_may_be_any_printable_line: "Keys with blanks, slashes, quotes, other alphabets and emoji: read as they were written", "Keys are input too, and they stand in a path.";
    Plain a_bad_key_is_refused: "A key with a control character, with a line end or of more than 200 bytes: 422 that names key", "It would break logs, or fill the memory.";
    Plain a_value_may_be_any_text: "Values that are empty, long, or hold NUL, quotes and U+2028: read as they were written", "A store does not judge what it keeps.";
    Plain a_value_that_is_too_long_is_refused: "A value of more than 16 KiB: 422 that names value, or 413", "Each version is kept by every node.";
    Plain a_bad_body_is_refused: "A bad body: 400, 413, 415 or 422; and the next good one is taken", "One bad client must not cost the others anything.";
    Plain a_change_that_does_not_fit_is_refused: "A PUT of a counter or a set, a POST of another kind, an amount that is no whole number, insert and remove together: 422", "An amount cannot be inserted.";
    Plain a_set_that_is_full_is_told: "The 65th item of a set: 422 that names insert, and the others are there", "Each node sends the whole set whenever it changes.";
    Plain a_key_with_too_many_siblings_is_told: "The 65th PUT without a context: 409, and the others are there; with the context of a read it is taken", "Each node sends all siblings whenever one changes.";
    Plain a_forged_context_is_refused: "A context that was changed, cut off, made up or given out for another key: 422 that names context", "With a context from the future, a client would swallow writes that are still to come.";
    Plain a_context_where_there_are_no_siblings_is_refused: "A context with kind=lww or kind=atomic: 422 that names context", "It would be ignored, and the client would believe in it.";
    Plain a_bad_query_is_refused: "An unknown or repeated parameter, or a value that it does not have: 422 that names it", "`w=qourum` must not be taken for the default.";
    Plain an_atomic_register_takes_no_level_but_quorum: "kind=atomic with w or r of 1 or all: 422 that names it", "With less it would not be atomic, and more would not make it better.";
    Plain a_wrong_method_is_not_allowed: "A method that a path does not have: 405 with Allow", "It tells a client's author what the path is for.";
    Plain an_unknown_path_is_not_found: "A path that there is not: 404", "An everyday event, and no error of the server.";
}

async fn a_key_may_be_any_printable_line(target: &Target) -> Outcome {
    let client = Client::of(target);
    let names = [
        "a b",
        "a/b",
        "/",
        "../healthz",
        "'--",
        "\"",
        "100%",
        "%2F",
        "ключ",
        "鍵",
        "👩‍🚀",
        "a?b#c&d=e",
    ];
    for name in names {
        let key = client.key(name);
        client.write(&key, "", name, None).await.with_context(|| name.to_owned())?;
        let read = client.read(&key, "").await?;
        equal(&format!("the values of {name:?}"), read.0, vec![name])?;
    }
    let longest = format!("{:x<200}", client.key("long"));
    client.write(&longest, "", "v", None).await.map(drop)
}

async fn a_bad_key_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let long = "x".repeat(201);
    for key in ["a\0b", "a\nb", "\u{1b}[31m", "a\u{2028}b", &long] {
        let words = || format!("{key:.20?}");
        let body = json!({ "value": "v" });
        invalid(client.put(key, "", &body).await?, "key").await.with_context(words)?;
        invalid(client.get(key, "").await?, "key").await.with_context(words)?;
    }
    // Bytes that are no text: nobody has to make sense of them.
    refused(target.get("keys/%ff%fe").await?, &[400, 404]).await
}

async fn a_value_may_be_any_text(target: &Target) -> Outcome {
    let client = Client::of(target);
    let long = "ü".repeat(8 * 1_024);
    let escaped = "\u{1}".repeat(16 * 1_024);
    let values = ["", " ", "\0", "a\nb", "\u{2028}", "\"\\", "null", "👩‍🚀", &long, &escaped];
    for (n, value) in values.into_iter().enumerate() {
        for kind in ["kind=siblings", "kind=lww", "kind=atomic"] {
            let key = client.key(&format!("value-{n}"));
            client.write(&key, kind, value, None).await?;
            equal("the values", client.read(&key, kind).await?.0, vec![value])?;
        }
    }
    Ok(())
}

async fn a_value_that_is_too_long_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let body = json!({ "value": "a".repeat(16 * 1_024 + 1) });
    refused(client.put(&client.key("long"), "", &body).await?, &[413, 422]).await
}

async fn a_bad_body_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let key = client.key("body");
    let request = || client.request(Method::PUT, &key, "");
    refuses_bad_bodies(target, request, &json!({ "value": "v" })).await?;
    let unknown = json!({ "value": "v", "contxt": "x" });
    invalid(client.put(&key, "", &unknown).await?, "contxt").await
}

async fn a_change_that_does_not_fit_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let key = client.key("change");
    let add = json!({ "add": 1 });
    for kind in ["counter", "set"] {
        let put = client.put(&key, &format!("kind={kind}"), &json!({ "value": "v" })).await?;
        invalid(put, "kind").await.context(kind)?;
    }
    let post = async |kind: &str, body: &Value, field: &str| {
        let request = client.request(Method::POST, &key, &format!("kind={kind}")).json(body);
        invalid(target.send(request).await?, field).await.with_context(|| format!("{kind} {body}"))
    };
    for kind in ["siblings", "lww", "atomic"] {
        post(kind, &add, "kind").await?;
    }
    for amount in [json!(1.5), json!("1"), json!(1e300), json!(9_223_372_036_854_775_808_u64)] {
        post("counter", &json!({ "add": amount }), "add").await?;
    }
    post("counter", &json!({ "insert": "tea" }), "add").await?;
    post("set", &add, "insert").await?;
    post("set", &json!({ "insert": "tea", "remove": "milk" }), "insert").await?;
    post("set", &json!({ "insert": "a".repeat(16 * 1_024 + 1) }), "insert").await
}

async fn a_set_that_is_full_is_told(target: &Target) -> Outcome {
    let client = Client::of(target);
    let key = client.key("full");
    for n in 0..64 {
        client.change(&key, "w=1&kind=set", &json!({ "insert": format!("item {n}") })).await?;
    }
    let one_more = client.request(Method::POST, &key, "kind=set");
    let one_more = one_more.json(&json!({ "insert": "one more" }));
    invalid(target.send(one_more).await?, "insert").await?;
    equal("the number of items", client.read(&key, "kind=set").await?.0.len(), 64)
}

async fn a_key_with_too_many_siblings_is_told(target: &Target) -> Outcome {
    let client = Client::of(target);
    let key = client.key("siblings");
    for n in 0..64 {
        client.write(&key, "w=1", &format!("value {n}"), None).await?;
    }
    problem(client.put(&key, "w=1", &json!({ "value": "one more" })).await?, 409).await?;
    let (values, context) = client.read(&key, "r=1").await?;
    equal("the number of values", values.len(), 64)?;
    client.write(&key, "", "merged", Some(&context)).await?;
    equal("the values", client.read(&key, "").await?.0, vec!["merged".to_owned()])
}

async fn a_forged_context_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (key, other) = (client.key("forged"), client.key("other"));
    client.write(&key, "", "v", None).await?;
    client.write(&other, "", "w", None).await?;
    let (_, context) = client.read(&key, "").await?;
    let (_, of_another_key) = client.read(&other, "").await?;
    expect(!context.is_empty(), "a `context` with the values", "none")?;
    let mut cut_off = context.clone();
    cut_off.pop();
    let (vector, _) = context.rsplit_once('.').unwrap_or((&context, ""));
    let from_the_future = context.replacen(vector, "0=999999999999", 1);
    let forgeries = [
        of_another_key.as_str(),
        &from_the_future,
        &cut_off,
        vector,
        "",
        ".",
        "0=1",
        "\0",
        &"9".repeat(10_000),
    ];
    for forged in forgeries {
        let body = json!({ "value": "forged", "context": forged });
        let refused = invalid(client.put(&key, "", &body).await?, "context").await;
        refused.with_context(|| format!("{forged:.40?}"))?;
    }
    equal("the values after writes that were refused", client.read(&key, "").await?.0, vec!["v"])?;
    client.write(&key, "", "good", Some(&context)).await?;
    equal("the values after a good one", client.read(&key, "").await?.0, vec!["good"])
}

async fn a_context_where_there_are_no_siblings_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let key = client.key("no-siblings");
    client.write(&key, "", "v", None).await?;
    let (_, context) = client.read(&key, "").await?;
    for kind in ["kind=lww", "kind=atomic"] {
        let body = json!({ "value": "w", "context": context });
        invalid(client.put(&key, kind, &body).await?, "context").await?;
    }
    Ok(())
}

async fn a_bad_query_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let key = client.key("query");
    let body = json!({ "value": "v" });
    let put = async |query: &str, field: &str| {
        invalid(client.put(&key, query, &body).await?, field).await.context(query.to_owned())
    };
    let get = async |query: &str, field: &str| {
        invalid(client.get(&key, query).await?, field).await.context(query.to_owned())
    };
    for value in ["0", "2", "3", "qourum", "", "1&{}=1"] {
        put(&format!("w={}", value.replace("{}", "w")), "w").await?;
        get(&format!("r={}", value.replace("{}", "r")), "r").await?;
    }
    put("r=1", "r").await?;
    get("w=1", "w").await?;
    for (query, field) in
        [("kind=cp", "kind"), ("kind=lww&kind=lww", "kind"), ("consistency=1", "consistency")]
    {
        put(query, field).await?;
        get(query, field).await?;
    }
    invalid(target.get("history?ky=x").await?, "ky").await?;
    equal("the values", client.read(&key, "").await?.0, Vec::<String>::new())
}

async fn an_atomic_register_takes_no_level_but_quorum(target: &Target) -> Outcome {
    let client = Client::of(target);
    let key = client.key("atomic");
    for level in ["1", "all"] {
        let body = json!({ "value": "v" });
        let put = client.put(&key, &format!("kind=atomic&w={level}"), &body).await?;
        invalid(put, "w").await?;
        invalid(client.get(&key, &format!("kind=atomic&r={level}")).await?, "r").await?;
    }
    client.write(&key, "kind=atomic&w=quorum", "v", None).await.map(drop)
}

async fn a_wrong_method_is_not_allowed(target: &Target) -> Outcome {
    not_allowed(
        target,
        &[
            (Method::PATCH, "keys/tea"),
            (Method::DELETE, "keys/tea"),
            (Method::PUT, "keys/tea/versions"),
            (Method::POST, "cluster"),
            (Method::DELETE, "history"),
        ],
    )
    .await
}

async fn an_unknown_path_is_not_found(target: &Target) -> Outcome {
    not_found(target, &["nowhere", "keys", "keys/", "keys/tea/version", "%ff"]).await
}
