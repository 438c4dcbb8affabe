//! The table of calls of users and their orders.

mod bad_input;
pub mod client;
mod conditions;
mod crowd;

use std::collections::BTreeMap;

use anyhow::Context;
use conform::{
    case::{Outcome, Suite},
    cases,
    expect::{ends_with, equal, expect, json_of, list, same_fields, status, status_in, text},
    http::{header, header_is, lives_and_is_ready, media_type_is, problem},
    target::Target,
};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use client::{Client, JSON_PATCH, MERGE_PATCH, known};

cases! {
    Plain a_user_is_created_and_can_be_read: "POST /users: 201, Location, ETag and the user with _links; GET: the same", "Whoever creates something has to find it again.";
    Plain a_taken_address_is_a_conflict: "POST or PUT with an address that somebody has, in whatever spelling: 409", "Two users with one mailbox are one person with two accounts.";
    Plain the_same_key_again_gets_the_same_answer: "POST with the same Idempotency-Key and body: the same 201, Location and body, and no other user; with another body: 422", "A client that did not hear the answer asks again, and must not create two.";
    Plain a_list_comes_in_pages_that_links_lead_through: "GET /users?limit=2: items, and Link with rel=next until the last page; each user on one page", "A list grows, and nobody reads it in one piece.";
    Plain a_list_can_be_sorted_and_searched: "GET /users?sort=-name&email=…: in this order; the one user with this address", "A client that sorted by itself would have to read everything.";
    Plain a_user_is_replaced_as_a_whole: "PUT: 200 and the new user; what is left out is empty", "That is what PUT means: the body is the new state, not a change.";
    Plain a_put_creates_under_the_clients_id: "PUT under an id that is free: 201, with or without If-None-Match: *", "A client that chooses the id can send the request again without a key.";
    Plain a_put_that_changes_nothing_changes_nothing: "PUT of what is there: 200, and the ETag stays", "A repeated PUT must not make the other clients' ETags wrong.";
    Plain a_merge_patch_changes_a_part: "PATCH as application/merge-patch+json: what is null is taken away, arrays are replaced", "RFC 7396 in three lines.";
    Plain a_json_patch_changes_a_part: "PATCH as application/json-patch+json: operations in order, all or none; a test that does not hold: 409", "RFC 6902: for what a merge patch cannot say.";
    Plain a_user_is_deleted_and_may_be_deleted_again: "DELETE: 204, and 204 again; then 404 for GET", "A client that did not hear the answer asks again, and it is gone, as wanted.";
    Plain a_user_with_open_orders_stays: "DELETE while an order is open: 409; after the cancellation 204", "Somebody is still owed something.";
    Plain an_order_says_what_may_be_done_with_it: "An open order has the link cancellation; after a shipment it has none, and a POST there gets 409", "A client that follows links needs no copy of the rules.";
    Plain a_cancellation_may_be_sent_twice: "POST /orders/{id}/cancellation: 200 and the order, and the same again", "The answer may be lost here too.";
    Plain orders_belong_to_a_user: "GET /users/{id}/orders: the newest first; 404 for nobody; include=orders has the same", "One request for what a page shows.";
    Plain a_graph_answers_a_query_and_refuses_one_without_bounds: "POST /graphql: data; for a query that is too deep or too wide: errors", "A stranger decides what a query costs, unless you do.";
    Plain the_old_version_says_that_it_will_go: "GET /v1/customers: full_name, Deprecation and Sunset", "Whoever still uses it should hear of it from the answers, not from the news.";
    Plain a_version_can_be_asked_for_by_media_type: "Accept: …v1+json: full_name, and that type; what accepts nothing of ours: 406", "The other way of versioning: one URL, two representations.";
    Plain options_tell_what_a_path_takes: "OPTIONS: Allow, and Accept-Patch where there is PATCH", "It tells a client's author what the path is for.";
    Plain head_is_get_without_a_body: "HEAD: the status and headers of GET", "To look whether something has changed without reading it.";
    Plain the_service_describes_itself: "GET /openapi.json: OpenAPI 3 with these paths; GET /docs: a page that loads nothing from outside", "A document that is made from the code cannot lie about it for long.";
    Plain the_service_says_that_it_lives_and_is_ready: "GET /healthz and GET /readyz: 200", "A load balancer asks this before it sends clients.";
}

/// The whole suite.
pub fn suite() -> Suite {
    Suite {
        calls: include_str!("calls.md"),
        cases: [cases(), conditions::cases(), bad_input::cases(), crowd::cases()].concat(),
    }
}

async fn a_user_is_created_and_can_be_read(target: &Target) -> Outcome {
    let client = Client::of(target);
    for name in ["Ada", "Łukasz & Søn", "'; drop table users; --"] {
        let mut user = client.user(name);
        user["tags"] = json!(["vip", "früh"]);
        let created = client.create(&user, None).await?;
        let (location, tag) =
            (header(&created, "location").to_owned(), header(&created, "etag").to_owned());
        let body = json_of(created, 201).await?;
        same_fields(&body, &user, &["name", "email", "tags"])?;
        ends_with("the header `Location`", &location, &format!("/users/{}", text(&body, "id")?))?;
        expect(tag.starts_with('"'), "a strong ETag", &tag)?;
        for field in ["created_at", "updated_at"] {
            let at = text(&body, field)?;
            let utc = OffsetDateTime::parse(at, &Rfc3339).is_ok_and(|at| at.offset().is_utc());
            expect(utc, format!("a time in RFC 3339 UTC in `{field}`"), at)?;
        }
        let path = format!("/users/{}", text(&body, "id")?);
        for (link, end) in [("self", path.clone()), ("orders", format!("{path}/orders"))] {
            let leads_to = text(&body["_links"][link], "href")?;
            ends_with(&format!("the link `{link}`"), leads_to, &end)?;
        }
        let read = client.get(&path, &[]).await?;
        header_is(&read, "etag", &tag)?;
        expect(!header(&read, "last-modified").is_empty(), "a header `Last-Modified`", "none")?;
        equal("the user", json_of(read, 200).await?, body)?;
    }
    Ok(())
}

async fn a_taken_address_is_a_conflict(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, bob) = (client.sign_up("Ada").await?, client.sign_up("Bob").await?);
    let email = text(&ada.body, "email")?;
    for spelling in [email.to_owned(), email.to_uppercase()] {
        let user = json!({ "name": "Eve", "email": spelling });
        problem(client.create(&user, None).await?, 409).await?;
        problem(client.put(&bob.path, &user, &[("if-match", "*")]).await?, 409).await?;
    }
    let read = client.read(&bob.path).await?;
    equal("the user after changes that were refused", read.body, bob.body)
}

async fn the_same_key_again_gets_the_same_answer(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (key, user) = (client::new_name(), client.user("Ada"));
    let first = client.create(&user, Some(&key)).await?;
    let location = header(&first, "location").to_owned();
    let first = json_of(first, 201).await?;
    let other = client.user("Bob");
    for _ in 0..2 {
        let again = client.create(&user, Some(&key)).await?;
        header_is(&again, "location", &location)?;
        equal("the answer for the same key", json_of(again, 201).await?, first.clone())?;
        problem(client.create(&other, Some(&key)).await?, 422).await?;
    }
    status(&client.create(&other, Some(&client::new_name())).await?, 201)
        .context("the body that was refused, under a key of its own")?;
    // A refusal is an answer too.
    let (key, taken) = (client::new_name(), json!({ "name": "Eve", "email": user["email"] }));
    problem(client.create(&taken, Some(&key)).await?, 409).await?;
    status(&client.delete(&path_of(&location)).await?, 204)?;
    problem(client.create(&taken, Some(&key)).await?, 409).await.map(drop)
}

fn path_of(location: &str) -> String {
    location.find("/users/").map_or(location, |at| &location[at..]).to_owned()
}

/// The path of the next page, if there is one.
pub fn next(response: &Response) -> Option<String> {
    let links = header(response, "link").split(',');
    let mut next = links.filter(|link| link.contains("rel=\"next\"") || link.contains("rel=next"));
    let target = next.find_map(|link| link.split(['<', '>']).nth(1))?;
    Some(target[target.find("/users").unwrap_or(0)..].to_owned())
}

async fn a_list_comes_in_pages_that_links_lead_through(target: &Target) -> Outcome {
    let client = Client::of(target);
    let mut made = Vec::new();
    for n in 0..5 {
        made.push(text(&client.sign_up(&format!("User {n}")).await?.body, "id")?.to_owned());
    }
    for sort in ["created_at", "-created_at", "name", "-name"] {
        let mut seen = BTreeMap::<String, usize>::new();
        let mut path = Some(format!("/users?limit=3&sort={sort}"));
        while let Some(at) = path {
            let response = client.get(&at, &[]).await?;
            path = next(&response);
            let page = json_of(response, 200).await?;
            let items = list(&page, "items")?;
            expect(items.len() <= 3, "at most three users on a page", items.len())?;
            expect(!items.is_empty() || path.is_none(), "users on a page", &page)?;
            for user in items {
                *seen.entry(text(user, "id")?.to_owned()).or_default() += 1;
            }
            expect(path.as_ref() != Some(&at), "`Link` to lead to another page", &at)?;
        }
        for id in &made {
            let times = seen.get(id).copied().unwrap_or(0);
            equal(&format!("the number of pages with a user, for sort={sort}"), times, 1)?;
        }
    }
    Ok(())
}

async fn a_list_can_be_sorted_and_searched(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, _) = (client.sign_up("Ada").await?, client.sign_up("Bob").await?);
    let email = text(&ada.body, "email")?;
    let found = json_of(client.get(&format!("users?email={email}"), &[]).await?, 200).await?;
    equal("the users with this address", found["items"].clone(), json!([ada.body]))?;
    for (sort, ascending) in [("name", true), ("-name", false)] {
        let path = format!("users?limit=200&sort={sort}");
        let page = json_of(client.get(&path, &[]).await?, 200).await?;
        let names: Vec<_> =
            list(&page, "items")?.iter().filter_map(|user| user["name"].as_str()).collect();
        let sorted = names.is_sorted_by(|a, b| if ascending { a <= b } else { a >= b });
        expect(sorted && names.len() > 1, format!("the users in the order of {sort}"), &page)?;
    }
    Ok(())
}

async fn a_user_is_replaced_as_a_whole(target: &Target) -> Outcome {
    let client = Client::of(target);
    let mut user = client.user("Ada");
    user["tags"] = json!(["vip"]);
    let created = known(client.create(&user, None).await?, 201).await?;
    let new = client.user("Ada Lovelace");
    let put = client.put(&created.path, &new, &[("if-match", &created.tag)]).await?;
    let tag = header(&put, "etag").to_owned();
    let body = json_of(put, 200).await?;
    same_fields(&body, &new, &["name", "email"])?;
    equal("the tags, which were left out", body["tags"].clone(), json!([]))?;
    equal("the id", body["id"].clone(), created.body["id"].clone())?;
    expect(tag != created.tag, "another ETag after a change", &tag)?;
    equal("the user", client.read(&created.path).await?.body, body)
}

async fn a_put_creates_under_the_clients_id(target: &Target) -> Outcome {
    let client = Client::of(target);
    for conditions in [&[][..], &[("if-none-match", "*")]] {
        let path = format!("/users/{}", uuid());
        let user = client.user("Ada");
        let put = client.put(&path, &user, conditions).await?;
        ends_with("the header `Location`", header(&put, "location"), &path)?;
        let body = json_of(put, 201).await?;
        ends_with("the id", &path, text(&body, "id")?)?;
        equal("the user", client.read(&path).await?.body, body)?;
        // The same again finds it there.
        problem(client.put(&path, &user, &[("if-none-match", "*")]).await?, 412).await?;
    }
    Ok(())
}

fn uuid() -> String {
    uuid::Uuid::new_v4().to_string()
}

async fn a_put_that_changes_nothing_changes_nothing(target: &Target) -> Outcome {
    let client = Client::of(target);
    let user = client.user("Ada");
    let created = known(client.create(&user, None).await?, 201).await?;
    for _ in 0..2 {
        let put = client.put(&created.path, &user, &[("if-match", &created.tag)]).await?;
        header_is(&put, "etag", &created.tag)?;
        equal("the user", json_of(put, 200).await?, created.body.clone())?;
    }
    Ok(())
}

async fn a_merge_patch_changes_a_part(target: &Target) -> Outcome {
    let client = Client::of(target);
    let ada = client.sign_up("Ada").await?;
    for (patch, name, tags) in [
        (json!({ "name": "Ada L." }), "Ada L.", json!([])),
        (json!({ "tags": ["a", "b"] }), "Ada L.", json!(["a", "b"])),
        (json!({ "tags": ["c"], "name": "Ada" }), "Ada", json!(["c"])),
        (json!({ "tags": null }), "Ada", json!([])),
        (json!({}), "Ada", json!([])),
    ] {
        let patch = (MERGE_PATCH, patch.to_string());
        let body = json_of(client.patch(&ada.path, patch, Some("*")).await?, 200).await?;
        let expected = json!({ "name": name, "tags": tags, "email": ada.body["email"] });
        same_fields(&body, &expected, &["name", "tags", "email"])?;
    }
    Ok(())
}

async fn a_json_patch_changes_a_part(target: &Target) -> Outcome {
    let client = Client::of(target);
    let ada = client.sign_up("Ada").await?;
    let patch = async |patch: Value| {
        client.patch(&ada.path, (JSON_PATCH, patch.to_string()), Some("*")).await
    };
    let add = json!([{ "op": "add", "path": "/tags/-", "value": "vip" }]);
    for tags in [json!(["vip"]), json!(["vip", "vip"])] {
        let body = json_of(patch(add.clone()).await?, 200).await?;
        equal("the tags after another `add`", body["tags"].clone(), tags)?;
    }
    // All or nothing: the first operation is good.
    let failing = json!([
        { "op": "replace", "path": "/name", "value": "Eve" },
        { "op": "test", "path": "/name", "value": "Ada" },
    ]);
    problem(patch(failing).await?, 409).await?;
    equal("the name", client.read(&ada.path).await?.body["name"].clone(), "Ada")?;
    let good = json!([
        { "op": "test", "path": "/name", "value": "Ada" },
        { "op": "replace", "path": "/name", "value": "Ada L." },
        { "op": "remove", "path": "/tags/0" },
    ]);
    let body = json_of(patch(good).await?, 200).await?;
    same_fields(&body, &json!({ "name": "Ada L.", "tags": ["vip"] }), &["name", "tags"])
}

async fn a_user_is_deleted_and_may_be_deleted_again(target: &Target) -> Outcome {
    let client = Client::of(target);
    let ada = client.sign_up("Ada").await?;
    for _ in 0..2 {
        status(&client.delete(&ada.path).await?, 204)?;
        problem(client.get(&ada.path, &[]).await?, 404).await?;
    }
    // The address is free again, and an ETag of the old user is none of a new one under the same id.
    let user = json!({ "name": "Ada", "email": ada.body["email"] });
    status(&client.put(&ada.path, &user, &[]).await?, 201)?;
    problem(client.put(&ada.path, &client.user("Eve"), &[("if-match", &ada.tag)]).await?, 412)
        .await
        .map(drop)
}

async fn a_user_with_open_orders_stays(target: &Target) -> Outcome {
    let client = Client::of(target);
    let ada = client.sign_up("Ada").await?;
    let order = client.order(&ada.path, "tea").await?;
    problem(client.delete(&ada.path).await?, 409).await?;
    equal("the user", client.read(&ada.path).await?.body, ada.body)?;
    status(&client.go(&format!("{}/cancellation", order.path)).await?, 200)?;
    status(&client.delete(&ada.path).await?, 204)?;
    problem(client.get(&order.path, &[]).await?, 404).await.map(drop)
}

fn allows(order: &Value, link: &str) -> bool {
    order["_links"][link]["href"].is_string()
}

async fn an_order_says_what_may_be_done_with_it(target: &Target) -> Outcome {
    let client = Client::of(target);
    let ada = client.sign_up("Ada").await?;
    let order = client.order(&ada.path, "tea").await?;
    expect(allows(&order.body, "cancellation"), "a link `cancellation`", &order.body)?;
    let [ship, cancel] = ["shipment", "cancellation"].map(|it| format!("{}/{it}", order.path));
    for _ in 0..2 {
        let shipped = json_of(client.go(&ship).await?, 200).await?;
        equal("the state", shipped["state"].clone(), "shipped")?;
        expect(!allows(&shipped, "cancellation"), "no link `cancellation`", &shipped)?;
        problem(client.go(&cancel).await?, 409).await?;
    }
    let order = json_of(client.get(&order.path, &[]).await?, 200).await?;
    equal("the state", order["state"].clone(), "shipped")
}

async fn a_cancellation_may_be_sent_twice(target: &Target) -> Outcome {
    let client = Client::of(target);
    let ada = client.sign_up("Ada").await?;
    let order = client.order(&ada.path, "tea").await?;
    let cancel = format!("{}/cancellation", order.path);
    let first = json_of(client.go(&cancel).await?, 200).await?;
    equal("the state", first["state"].clone(), "cancelled")?;
    expect(!allows(&first, "cancellation"), "no link `cancellation`", &first)?;
    equal("the answer the second time", json_of(client.go(&cancel).await?, 200).await?, first)?;
    problem(client.go(&format!("{}/shipment", order.path)).await?, 409).await.map(drop)
}

async fn orders_belong_to_a_user(target: &Target) -> Outcome {
    let client = Client::of(target);
    let ada = client.sign_up("Ada").await?;
    let (one, two) =
        (client.order(&ada.path, "tea").await?, client.order(&ada.path, "milk").await?);
    let orders = client.get(&format!("{}/orders", ada.path), &[]).await?;
    let orders = json_of(orders, 200).await?["items"].clone();
    equal("the orders, the newest first", orders.clone(), json!([two.body, one.body]))?;
    let email = text(&ada.body, "email")?;
    let page = client.get(&format!("users?include=orders&email={email}"), &[]).await?;
    let page = json_of(page, 200).await?;
    equal("the orders in the list", page["items"][0]["orders"].clone(), orders)?;
    let nobody = format!("users/{}/orders", uuid());
    problem(client.get(&nobody, &[]).await?, 404).await?;
    let order = json!({ "item": "tea", "quantity": 1 });
    problem(target.post(&nobody, &order).await?, 404).await.map(drop)
}

async fn a_graph_answers_a_query_and_refuses_one_without_bounds(target: &Target) -> Outcome {
    let client = Client::of(target);
    let ada = client.sign_up("Ada").await?;
    client.order(&ada.path, "tea").await?;
    let ask = async |query: &str| {
        json_of(target.post("graphql", &json!({ "query": query })).await?, 200).await
    };
    let answer = ask("{ users(first: 2) { id name orders(first: 3) { item quantity } } }").await?;
    let users = list(&answer["data"], "users")?;
    expect(matches!(users.len(), 1..=2), "one or two users", users.len())?;
    for user in users {
        text(user, "name")?;
        list(user, "orders")?;
    }
    let deep = "{ users { orders { user { orders { user { orders { id } } } } } } }";
    let wide = "{ users(first: 200) { orders(first: 100) { id item quantity } } }";
    for query in [deep, wide, "{ nothing }", "{", ""] {
        let answer = ask(query).await?;
        list(&answer, "errors").with_context(|| format!("for {query}"))?;
        expect(answer["data"].is_null(), "no data", &answer)?;
    }
    Ok(())
}

async fn the_old_version_says_that_it_will_go(target: &Target) -> Outcome {
    let client = Client::of(target);
    let ada = client.sign_up("Ada").await?;
    let customer = json!({ "id": ada.body["id"], "full_name": "Ada", "email": ada.body["email"] });
    let path = format!("v1/customers/{}", text(&ada.body, "id")?);
    let one = client.get(&path, &[]).await?;
    for name in ["deprecation", "sunset"] {
        expect(!header(&one, name).is_empty(), format!("a header `{name}`"), "none")?;
    }
    same_fields(&json_of(one, 200).await?, &customer, &["id", "full_name", "email"])?;
    let list_path = format!("v1/customers?email={}", text(&ada.body, "email")?);
    let all = json_of(client.get(&list_path, &[]).await?, 200).await?;
    same_fields(&list(&all, "items")?[0], &customer, &["id", "full_name", "email"])
}

const V1: &str = "application/vnd.worked-answers.v1+json";

async fn a_version_can_be_asked_for_by_media_type(target: &Target) -> Outcome {
    let client = Client::of(target);
    let ada = client.sign_up("Ada").await?;
    let likes_v1 = format!("application/json;q=0.5, {V1}");
    for accept in [V1, &likes_v1] {
        let old = client.get(&ada.path, &[("accept", accept)]).await?;
        media_type_is(&old, V1)?;
        let mut vary = old.headers().get_all("vary").iter().filter_map(|it| it.to_str().ok());
        let varies = vary.any(|names| names.to_lowercase().contains("accept"));
        expect(varies, "`Accept` in the header `Vary`", format!("{:?}", old.headers()))?;
        expect(header(&old, "etag") != ada.tag, "another ETag for other bytes", &ada.tag)?;
        equal("the name", json_of(old, 200).await?["full_name"].clone(), "Ada")?;
    }
    for accept in ["*/*", "application/json", "text/html, application/*;q=0.1"] {
        let new = client.get(&ada.path, &[("accept", accept)]).await?;
        media_type_is(&new, "application/json")?;
        equal("the user", json_of(new, 200).await?, ada.body.clone())?;
    }
    for accept in ["text/html", "application/json;q=0", "nonsense", "application/json;q=2"] {
        problem(client.get(&ada.path, &[("accept", accept)]).await?, 406).await?;
    }
    // The language of a client changes nothing here.
    let other = client.get(&ada.path, &[("accept-language", "de;q=0.9, *;q=0")]).await?;
    equal("the user", json_of(other, 200).await?, ada.body)
}

async fn options_tell_what_a_path_takes(target: &Target) -> Outcome {
    let ada = Client::of(target).sign_up("Ada").await?;
    for (path, methods) in [("users", "GET,POST"), (ada.path.as_str(), "DELETE,GET,PATCH,PUT")] {
        let options = target.ask(Method::OPTIONS, path).await?;
        status_in(&options, &[200, 204])?;
        let allow = header(&options, "allow").to_owned();
        for method in methods.split(',') {
            expect(allow.contains(method), format!("{method} in the header `Allow`"), &allow)?;
        }
        if methods.contains("PATCH") {
            let patches = header(&options, "accept-patch").to_owned();
            for kind in [MERGE_PATCH, JSON_PATCH] {
                expect(patches.contains(kind), format!("{kind} in `Accept-Patch`"), &patches)?;
            }
        }
    }
    Ok(())
}

async fn head_is_get_without_a_body(target: &Target) -> Outcome {
    let client = Client::of(target);
    let ada = client.sign_up("Ada").await?;
    let read = client.get(&ada.path, &[]).await?;
    let head = target.ask(Method::HEAD, &ada.path).await?;
    status(&head, 200)?;
    for name in ["etag", "last-modified", "content-type"] {
        header_is(&head, name, header(&read, name))?;
    }
    // A length that is known only when all is written may be left out.
    if !header(&head, "content-length").is_empty() {
        header_is(&head, "content-length", header(&read, "content-length"))?;
    }
    status(&target.ask(Method::HEAD, &format!("users/{}", uuid())).await?, 404)
}

async fn the_service_describes_itself(target: &Target) -> Outcome {
    let document = json_of(target.get("openapi.json").await?, 200).await?;
    let version = text(&document, "openapi")?;
    expect(version.starts_with("3."), "OpenAPI 3", version)?;
    for (path, methods) in [
        ("/users", &["get", "post"][..]),
        ("/users/{id}", &["get", "put", "patch", "delete"]),
        ("/users/{id}/orders", &["get", "post"]),
        ("/orders/{id}", &["get"]),
        ("/orders/{id}/cancellation", &["post"]),
        ("/v1/customers", &["get"]),
        ("/v1/customers/{id}", &["get"]),
    ] {
        for method in methods {
            let known = document["paths"][path][method].is_object();
            expect(known, format!("{method} {path} in the document"), &document["paths"])?;
        }
    }
    let page = target.get("docs").await?;
    status(&page, 200)?;
    media_type_is(&page, "text/html")?;
    let page = page.text().await?;
    let outside = ["src=\"http", "src=\"//", "href=\"http", "@import", "url(http"];
    let outside = outside.iter().find(|it| page.contains(**it));
    expect(outside.is_none(), "a page that loads nothing from outside", format!("{outside:?}"))
}

async fn the_service_says_that_it_lives_and_is_ready(target: &Target) -> Outcome {
    lives_and_is_ready(target).await
}
