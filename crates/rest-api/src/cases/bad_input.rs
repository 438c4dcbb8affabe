//! What a client may send by mistake or on purpose, and what it gets.

use anyhow::Context;
use conform::{
    bodies::{refused_unread, refuses_bad_bodies},
    case::Outcome,
    cases,
    expect::{equal, expect, json_of, list, status, text},
    http::{header, invalid, not_allowed, not_found, problem, refused},
    target::Target,
};
use reqwest::{Method, header::HeaderValue};
use serde_json::{Value, json};

use super::{
    client::{Client, JSON_PATCH, MERGE_PATCH, deep_patch, new_name},
    next,
};

cases! {
    Plain a_string_that_cannot_be_an_id_is_not_found: "An id that is no UUID in lower case: 404, for every method", "One user has one URL; and paths are input too.";
    Plain a_body_that_is_no_user_is_refused: "A bad body: 400, 413, 415 or 422; and the next good one is taken", "One bad client must not cost the others anything.";
    Plain a_body_that_is_no_order_is_refused: "The same for POST /users/{id}/orders", "Every call that takes a body is attacked.";
    Plain fields_that_cannot_be_are_all_named: "A bad name, email or tags: 422 that names each field", "A form wants to show all mistakes at once.";
    Plain a_query_that_is_none_is_refused: "GET /users with an unknown or repeated parameter, a bad limit, sort, email or include: 422 that names it", "`emial=…` that is ignored shows everybody.";
    Plain a_forged_cursor_or_one_of_another_query_is_refused: "GET /users?cursor=…: 422 for a forged one, a cut one, and one of another sort or search", "A place in one order means nothing in another.";
    Plain a_patch_of_another_type_is_refused_with_those_that_are_taken: "PATCH as application/json or without a type: 415 with Accept-Patch", "A client's author learns what to send.";
    Plain a_patch_that_makes_no_user_is_refused: "A patch that touches the id, takes the name away, adds a field, or is none: 422 or 400, and nothing is changed", "A patch is a program that strangers send.";
    Plain a_patch_without_bounds_is_refused: "A patch of depth 10,000, in one piece or in steps, of 10,000 operations, or one that doubles the document sixty times: 400, 413 or 422, soon", "Each is a way to make four kilobytes cost a gigabyte.";
    Plain a_bad_key_is_refused: "An Idempotency-Key that is empty, too long, not visible ASCII, or there twice: 400", "With two keys, the next attempt might be found under the other one.";
    Plain a_wrong_method_is_not_allowed: "A method that a path does not have: 405 with Allow", "It tells a client's author what the path is for.";
    Plain an_unknown_path_is_not_found: "A path that there is not: 404", "An everyday event, and no error of the server.";
    Plain a_query_of_the_graph_that_is_none_is_refused: "POST /graphql with a body that is no query: 400 or 422; with a query of a megabyte: 413; without bounds: errors, soon", "It is a call like the others.";
}

async fn a_string_that_cannot_be_an_id_is_not_found(target: &Target) -> Outcome {
    let client = Client::of(target);
    let ada = client.sign_up("Ada").await?;
    let id = ada.path.trim_start_matches("/users/").to_owned();
    let shapes = [
        "0".to_owned(),
        "x".to_owned(),
        "%20".to_owned(),
        "%00".to_owned(),
        "..%2fhealthz".to_owned(),
        "'--".to_owned(),
        id.to_uppercase(),
        id.replace('-', ""),
        format!("%7B{id}%7D"),
        format!("urn:uuid:{id}"),
        format!("{id}0"),
        format!("{id}%20"),
        "a".repeat(5_000),
    ];
    // Without a letter in it, there is no capital.
    for shape in shapes.iter().filter(|shape| **shape != id) {
        let words = || format!("for {shape:.50}");
        let path = format!("users/{shape}");
        not_found(target, &[&path, &format!("orders/{shape}")]).await.with_context(words)?;
        let put = client.put(&path, &client.user("Ada"), &[]).await?;
        problem(put, 404).await.with_context(words)?;
        problem(client.delete(&path).await?, 404).await.with_context(words)?;
        let patch = client.patch(&path, (MERGE_PATCH, "{}"), Some("*")).await?;
        problem(patch, 404).await.with_context(words)?;
        let order = json!({ "item": "tea", "quantity": 1 });
        let order = target.post(&format!("{path}/orders"), &order).await?;
        problem(order, 404).await.with_context(words)?;
        let cancel = client.go(&format!("orders/{shape}/cancellation")).await?;
        problem(cancel, 404).await.with_context(words)?;
    }
    // Bytes that are no text: nobody has to make sense of them.
    refused(target.get("users/%ff%fe").await?, &[400, 404]).await
}

async fn a_body_that_is_no_user_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let request = || target.request(Method::POST, "users");
    refuses_bad_bodies(target, request, &client.user("Ada")).await?;
    let id = uuid::Uuid::new_v4();
    let request = || target.request(Method::PUT, &format!("users/{id}"));
    refuses_bad_bodies(target, request, &client.user("Ada")).await
}

async fn a_body_that_is_no_order_is_refused(target: &Target) -> Outcome {
    let ada = Client::of(target).sign_up("Ada").await?;
    let request = || target.request(Method::POST, &format!("{}/orders", ada.path));
    refuses_bad_bodies(target, request, &json!({ "item": "tea", "quantity": 2 })).await?;
    for (order, field) in [
        (json!({ "item": " ", "quantity": 1 }), "item"),
        (json!({ "item": "a\nb", "quantity": 1 }), "item"),
        (json!({ "item": "tea", "quantity": 0 }), "quantity"),
        (json!({ "item": "tea", "quantity": 1_001 }), "quantity"),
        (json!({ "item": "tea", "quantity": 1.5 }), "quantity"),
        (json!({ "item": "tea", "quantity": 1e300 }), "quantity"),
    ] {
        invalid(target.send(request().json(&order)).await?, field).await?;
    }
    Ok(())
}

async fn fields_that_cannot_be_are_all_named(target: &Target) -> Outcome {
    let client = Client::of(target);
    let long = "x".repeat(201);
    for name in ["", " ", "a\nb", "a\0b", "a\u{2028}b", &long] {
        let user = json!({ "name": name, "email": client.email() });
        invalid(client.create(&user, None).await?, "name")
            .await
            .with_context(|| name.to_owned())?;
    }
    for email in ["", "ada", "ada@", "@example.org", "a da@example.org", "ada@example"] {
        let user = json!({ "name": "Ada", "email": email });
        invalid(client.create(&user, None).await?, "email").await.context(email)?;
    }
    for tags in [json!([""]), json!(["a\nb"]), json!(vec!["x"; 11]), json!(["x".repeat(51)])] {
        let user = json!({ "name": "Ada", "email": client.email(), "tags": tags });
        invalid(client.create(&user, None).await?, "tags").await?;
    }
    let all = json!({ "name": "", "email": "", "tags": [""] });
    let seen = problem(client.create(&all, None).await?, 422).await?;
    // A field may have more than one mistake, each with an entry of its own.
    let mut named = Vec::new();
    for error in list(&seen, "errors")? {
        named.push(text(error, "field")?);
    }
    named.sort_unstable();
    named.dedup();
    equal("the fields that are named", named, vec!["email", "name", "tags"])?;
    let good = json!({ "name": "ü".repeat(200), "email": client.email(), "tags": vec!["x"; 10] });
    status(&client.create(&good, None).await?, 201)
}

async fn a_query_that_is_none_is_refused(target: &Target) -> Outcome {
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=-1", "limit"),
        ("limit=x", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("limit=1&limit=2", "limit"),
        ("sort=password", "sort"),
        ("sort=name;drop", "sort"),
        ("email=nobody", "email"),
        ("include=everything", "include"),
        ("emial=ada@example.org", "emial"),
        ("cursor=", "cursor"),
    ] {
        let response = target.get(&format!("users?{query}")).await?;
        invalid(response, field).await.with_context(|| format!("for {query}"))?;
    }
    Ok(())
}

async fn a_forged_cursor_or_one_of_another_query_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    for name in ["Ada", "Bob"] {
        client.sign_up(name).await?;
    }
    let response = client.get("users?limit=1&sort=name", &[]).await?;
    let path = next(&response).context("expected `Link` with rel=\"next\", got none")?;
    let cursor = path.split("cursor=").nth(1).unwrap_or_default();
    let cursor = cursor.split('&').next().unwrap_or_default();
    let mut cut = cursor.to_owned();
    cut.truncate(cursor.len() / 2);
    for query in [
        format!("sort=-name&cursor={cursor}"),
        format!("sort=created_at&cursor={cursor}"),
        format!("cursor={cursor}"),
        format!("sort=name&email=ada@example.org&cursor={cursor}"),
        format!("sort=name&cursor={cut}"),
        format!("sort=name&cursor=x{cursor}"),
        "cursor=nonsense".to_owned(),
        "cursor=%00".to_owned(),
        "cursor=e30".to_owned(),
        "cursor=bnVsbA".to_owned(),
        format!("cursor={}", "W1".repeat(2_000)),
    ] {
        let response = target.get(&format!("users?{query}")).await?;
        invalid(response, "cursor").await.with_context(|| format!("for {query:.60}"))?;
    }
    status(&client.get(&path, &[]).await?, 200)
}

async fn a_patch_of_another_type_is_refused_with_those_that_are_taken(target: &Target) -> Outcome {
    let client = Client::of(target);
    let ada = client.sign_up("Ada").await?;
    for media_type in ["application/json", "text/plain", "application/json-patch", ""] {
        let patch = (media_type, json!({ "name": "Eve" }).to_string());
        let response = client.patch(&ada.path, patch, Some("*")).await?;
        let accepted = header(&response, "accept-patch").to_owned();
        problem(response, 415).await?;
        let both = accepted.contains(MERGE_PATCH) && accepted.contains(JSON_PATCH);
        expect(both, "both types in the header `Accept-Patch`", accepted)?;
    }
    equal("the user", client.read(&ada.path).await?.body, ada.body)
}

async fn a_patch_that_makes_no_user_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let ada = client.sign_up("Ada").await?;
    let operation = |op: &str, path: &str| json!([{ "op": op, "path": path, "value": "x" }]);
    for (media_type, patch) in [
        (MERGE_PATCH, json!({ "id": "x" })),
        (MERGE_PATCH, json!({ "id": null })),
        (MERGE_PATCH, json!({ "name": null })),
        (MERGE_PATCH, json!({ "name": 7 })),
        (MERGE_PATCH, json!({ "admin": true })),
        (MERGE_PATCH, json!({ "created_at": "2026-01-01T00:00:00Z" })),
        (MERGE_PATCH, json!([])),
        (MERGE_PATCH, json!("x")),
        (MERGE_PATCH, Value::Null),
        (JSON_PATCH, operation("replace", "/id")),
        (JSON_PATCH, operation("remove", "/id")),
        (JSON_PATCH, operation("remove", "/name")),
        (JSON_PATCH, operation("remove", "")),
        (JSON_PATCH, operation("replace", "/nothing/there")),
        (JSON_PATCH, operation("add", "name")),
        (JSON_PATCH, operation("become", "/name")),
        (JSON_PATCH, json!([{ "op": "add" }])),
        // The value has been taken away when the move fails.
        (
            JSON_PATCH,
            json!([
                { "op": "add", "path": "/x", "value": 1 },
                { "op": "move", "from": "/x", "path": "/no/way" },
            ]),
        ),
        (JSON_PATCH, json!([7])),
        (JSON_PATCH, json!({ "op": "add", "path": "/name", "value": "x" })),
    ] {
        let words = format!("for {patch}");
        let response = client.patch(&ada.path, (media_type, patch.to_string()), Some("*")).await?;
        refused(response, &[400, 422]).await.context(words)?;
    }
    for text in ["", "{", "nonsense", r#"{"name":"a","name":"b"}"#] {
        let response = client.patch(&ada.path, (MERGE_PATCH, text), Some("*")).await?;
        problem(response, 400).await.with_context(|| format!("for {text}"))?;
    }
    equal("the user", client.read(&ada.path).await?.body, ada.body)
}

async fn a_patch_without_bounds_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let ada = client.sign_up("Ada").await?;
    let deep = format!("{}1{}", r#"{"name":"#.repeat(10_000), "}".repeat(10_000));
    let many = |operation: &str, times| format!("[{}]", vec![operation; times].join(","));
    let add = r#"{"op":"test","path":"/name","value":"Ada"}"#;
    let double = r#"{"op":"copy","from":"/tags","path":"/tags/-"}"#;
    for (media_type, patch) in [
        (MERGE_PATCH, deep.clone()),
        (JSON_PATCH, format!(r#"[{{"op":"add","path":"/name","value":{deep}}}]"#)),
        (JSON_PATCH, many(add, 10_000)),
        (JSON_PATCH, many(add, 101)),
        (JSON_PATCH, many(double, 60)),
        (JSON_PATCH, deep_patch()),
    ] {
        let words = format!("for {patch:.60}");
        let request = target.request(Method::PATCH, &ada.path).header("content-type", media_type);
        let request = request.header("if-match", "*").header("connection", "close").body(patch);
        match target.send(request).await {
            Ok(response) => refused(response, &[400, 413, 422]).await.context(words)?,
            // Closed before all of it was sent.
            Err(_) => status(&target.get("healthz").await?, 200).context(words)?,
        }
    }
    equal("the user", client.read(&ada.path).await?.body, ada.body)
}

async fn a_bad_key_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let long = "k".repeat(256);
    for key in [&b""[..], b"two words", b"k,k", b"\xff\xfe", "ä".as_bytes(), long.as_bytes()] {
        let words = format!("for the key {:.40?}", String::from_utf8_lossy(key));
        let request = target.request(Method::POST, "users").json(&client.user("Ada"));
        let request = request.header("idempotency-key", HeaderValue::from_bytes(key)?);
        problem(target.send(request).await?, 400).await.context(words)?;
    }
    let twice = target.request(Method::POST, "users").json(&client.user("Ada"));
    let twice = twice.header("idempotency-key", "a").header("idempotency-key", "a");
    problem(target.send(twice).await?, 400).await.context("for two keys")?;
    let longest = format!("{}{}", "k".repeat(239), new_name());
    status(&client.create(&client.user("Ada"), Some(&longest)).await?, 201)
}

async fn a_wrong_method_is_not_allowed(target: &Target) -> Outcome {
    let ada = Client::of(target).sign_up("Ada").await?;
    let calls = [
        (Method::DELETE, "users"),
        (Method::PATCH, "users"),
        (Method::POST, ada.path.as_str()),
        (Method::GET, "graphql"),
        (Method::POST, "healthz"),
    ];
    not_allowed(target, &calls).await
}

async fn an_unknown_path_is_not_found(target: &Target) -> Outcome {
    not_found(target, &["nothing", "users/", "user", "v1", "v3/customers", "orders"]).await
}

async fn a_query_of_the_graph_that_is_none_is_refused(target: &Target) -> Outcome {
    for body in [json!([]), json!(7), json!("{ users { id } }"), json!({ "query": 7 })] {
        refused(target.post("graphql", &body).await?, &[400, 422]).await?;
    }
    let lists: String = (0..100).map(|n| format!("a{n}: users(first: 200) {{ id }} ")).collect();
    let many = json!({ "query": format!("{{ {lists} }}") });
    let seen = json_of(target.post("graphql", &many).await?, 200).await?;
    list(&seen, "errors").context("a hundred lists, each under an alias")?;
    let spread = |n| format!("fragment f{n} on User {{ ...f{0} ...f{0} ...f{0} }} ", n + 1);
    let fragments: String = (0..28).map(spread).collect();
    let bomb = format!("{{ users {{ ...f0 }} }} {fragments} fragment f28 on User {{ id }}");
    let seen = json_of(target.post("graphql", &json!({ "query": bomb })).await?, 200).await?;
    list(&seen, "errors").context("fragments that spread each other three times, 28 deep")?;
    let long = json!({ "query": format!("{{ users {{ id }} }} #{}", "x".repeat(2_000_000)) });
    refused_unread(target, target.request(Method::POST, "graphql").json(&long), 413).await
}
