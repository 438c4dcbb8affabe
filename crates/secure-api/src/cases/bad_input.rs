//! What a client may send by mistake or on purpose, and what it gets.

use anyhow::Context;
use conform::{
    bodies::{refused_unread, refuses_bad_bodies},
    case::Outcome,
    cases,
    expect::{json_of, status},
    http::{invalid, not_allowed, not_found, problem, refused},
    target::Target,
};
use reqwest::Method;
use serde_json::json;

use super::client::{ADA, Client, PASSWORD, PNG, invoice};

cases! {
    Plain a_body_that_is_no_login_is_refused: "A bad body for POST /login: 400, 413, 415 or 422; and the next good one is taken", "Everybody can send one.";
    Plain a_body_that_is_no_invoice_is_refused: "The same for POST /invoices", "One bad client must not cost the others anything.";
    Plain a_body_that_is_no_webhook_is_refused: "The same for POST /webhooks", "Every call that takes a body is attacked.";
    Plain a_field_that_may_not_be_written_is_refused: "POST or PATCH with paid, customer_id, id, role and others: 422 that names it", "Mass assignment: a client that pays its invoice by saying so.";
    Plain fields_that_cannot_be_are_named: "A bad title, note, amount_cents or corrects: 422 that names it", "A form wants to show the mistake.";
    Plain a_query_that_is_none_is_refused: "GET /invoices and /exports with an unknown or repeated parameter, or a bad value: 422 that names it", "A column's name is the place where no placeholder helps.";
    Plain a_string_that_cannot_be_an_id_is_not_found: "An id that is no UUID in lower case: 404", "Paths are input too.";
    Plain a_file_that_is_none_of_ours_is_refused: "Other bytes: 415; a name that is a path or a header: 422; 10 MB: 413", "Uploads are the oldest way in.";
    Plain an_address_inside_the_network_is_refused: "POST /webhooks with a loopback, private or link-local address in many spellings, or another scheme: 422 that names url", "SSRF: the service is asked to attack its own network.";
    Plain a_wrong_method_is_not_allowed: "A method that a path does not have: 405 with Allow", "It tells a client's author what the path is for.";
    Plain an_unknown_path_is_not_found: "A path that there is not, such as an old version: 404", "What was forgotten is found by others.";
}

async fn a_body_that_is_no_login_is_refused(target: &Target) -> Outcome {
    let request = || target.request(Method::POST, "login");
    refuses_bad_bodies(target, request, &json!({ "email": ADA, "password": PASSWORD })).await
}

async fn a_body_that_is_no_invoice_is_refused(target: &Target) -> Outcome {
    let ada = Client::login(target, ADA).await?;
    let request = || ada.request(Method::POST, "invoices");
    refuses_bad_bodies(target, request, &invoice("Tea")).await
}

async fn a_body_that_is_no_webhook_is_refused(target: &Target) -> Outcome {
    let ada = Client::login(target, ADA).await?;
    let request = || ada.request(Method::POST, "webhooks");
    refuses_bad_bodies(target, request, &json!({ "url": "https://hooks.example.com/" })).await
}

async fn a_field_that_may_not_be_written_is_refused(target: &Target) -> Outcome {
    let ada = Client::login(target, ADA).await?;
    let path = format!("invoices/{}", ada.invoice("Tea").await?);
    let before = json_of(ada.get(&path).await?, 200).await?;
    for (field, value) in [
        ("paid", json!(true)),
        ("customer_id", json!("01900000-0000-7000-8000-000000000000")),
        ("id", json!("01900000-0000-7000-8000-000000000000")),
        ("margin_cents", json!(1)),
        ("created_at", json!("2020-01-01T00:00:00Z")),
        ("role", json!("admin")),
        ("__proto__", json!({ "paid": true })),
    ] {
        let mut new = invoice("Tea");
        new[field] = value.clone();
        invalid(ada.post("invoices", &new).await?, field).await.context(field)?;
        let change = json!({ "title": "Coffee", field: value });
        invalid(ada.patch(&path, &change).await?, field).await.context(field)?;
    }
    // It can be written once.
    invalid(ada.patch(&path, &json!({ "amount_cents": 1 })).await?, "amount_cents").await?;
    conform::expect::equal("the invoice", json_of(ada.get(&path).await?, 200).await?, before)
}

async fn fields_that_cannot_be_are_named(target: &Target) -> Outcome {
    let ada = Client::login(target, ADA).await?;
    let path = format!("invoices/{}", ada.invoice("Tea").await?);
    let long = "x".repeat(201);
    for title in ["", " ", "a\nb", "a\0b", "a\u{2028}b", &long] {
        let words = || format!("for the title {title:.20?}");
        invalid(ada.post("invoices", &invoice(title)).await?, "title").await.with_context(words)?;
        let change = json!({ "title": title });
        invalid(ada.patch(&path, &change).await?, "title").await.with_context(words)?;
    }
    for (field, value) in [
        ("note", json!("x".repeat(2_001))),
        ("note", json!("a\r\nb")),
        ("amount_cents", json!(0)),
        ("amount_cents", json!(-1)),
        ("amount_cents", json!(1.5)),
        ("amount_cents", json!(1e300)),
        ("amount_cents", json!("1")),
        ("corrects", json!("x")),
        ("corrects", json!("01900000-0000-7000-8000-000000000000")),
    ] {
        let mut new = invoice("Tea");
        new[field] = value;
        invalid(ada.post("invoices", &new).await?, field).await.with_context(|| new.to_string())?;
    }
    status(&ada.post("invoices", &invoice(&"ü".repeat(200))).await?, 201)
}

async fn a_query_that_is_none_is_refused(target: &Target) -> Outcome {
    let ada = Client::login(target, ADA).await?;
    for list in ["invoices", "exports"] {
        for (query, field) in [
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("limit=1000000000", "limit"),
            ("limit=-1", "limit"),
            ("limit=1&limit=2", "limit"),
            ("sort=title", "sort"),
            ("sort=created_at;drop%20table%20users", "sort"),
            ("sort=(select%20pg_sleep(9))", "sort"),
            ("search=a%00b", "search"),
            ("after=x", "after"),
            ("after=%27%20or%201=1--", "after"),
            ("customer_id=01900000-0000-7000-8000-000000000000", "customer_id"),
        ] {
            let response = ada.get(&format!("{list}?{query}")).await?;
            invalid(response, field).await.with_context(|| format!("for {list}?{query}"))?;
        }
    }
    Ok(())
}

async fn a_string_that_cannot_be_an_id_is_not_found(target: &Target) -> Outcome {
    let ada = Client::login(target, ADA).await?;
    let id = ada.invoice("Tea").await?;
    let shapes = [
        "0".to_owned(),
        "%00".to_owned(),
        "..%2fhealthz".to_owned(),
        "'%20or%201=1--".to_owned(),
        id.to_uppercase(),
        id.replace('-', ""),
        format!("%7B{id}%7D"),
        format!("{id}%20"),
        "a".repeat(5_000),
    ];
    for shape in shapes.iter().filter(|shape| **shape != id) {
        let words = || format!("for {shape:.50}");
        for path in [format!("invoices/{shape}"), format!("attachments/{shape}")] {
            problem(ada.get(&path).await?, 404).await.with_context(words)?;
        }
        for path in [format!("invoices/{shape}/pdf"), format!("webhooks/{shape}/test")] {
            problem(ada.ask(Method::POST, &path).await?, 404).await.with_context(words)?;
        }
    }
    refused(ada.get("invoices/%ff%fe").await?, &[400, 404]).await
}

async fn a_file_that_is_none_of_ours_is_refused(target: &Target) -> Outcome {
    let ada = Client::login(target, ADA).await?;
    let id = ada.invoice("Tea").await?;
    for file in [&b""[..], b"<svg onload=alert(1)>", b"<html>", b"MZ\x90", b"PK\x03\x04", b"%PD"] {
        problem(ada.upload(&id, "scan.png", file).await?, 415).await?;
    }
    for name in [
        "",
        "scan",
        "scan.html",
        "../scan.png",
        "a/b.png",
        "a\\b.png",
        "a\0.png",
        "a\r\nx: y.png",
        ".png",
    ] {
        invalid(ada.upload(&id, name, PNG).await?, "name")
            .await
            .with_context(|| format!("{name:?}"))?;
    }
    let long = [PNG, &vec![0; 10_000_000]].concat();
    let request = ada.request(Method::POST, &format!("invoices/{id}/attachments?name=a.png"));
    refused_unread(target, request.body(long), 413).await?;
    status(&ada.upload(&id, "scan.png", PNG).await?, 201)
}

async fn an_address_inside_the_network_is_refused(target: &Target) -> Outcome {
    let ada = Client::login(target, ADA).await?;
    for url in [
        "https://127.0.0.1/",
        "https://127.1/",
        "https://0x7f.1/",
        "https://2130706433/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://0/",
        "https://10.0.0.1/",
        "https://192.168.1.1/",
        "https://172.16.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[fe80::1]/",
        "https://[fc00::1]/",
        "https://[64:ff9b::a00:1]/",
        "http://hooks.example.com/",
        "http://127.0.0.1:10/",
        "file:///etc/passwd",
        "ftp://hooks.example.com/",
        "https://ada:x@hooks.example.com/",
        "x",
        "",
    ] {
        let response = ada.post("webhooks", &json!({ "url": url })).await?;
        invalid(response, "url").await.with_context(|| format!("for {url}"))?;
    }
    let public = json!({ "url": "https://hooks.example.com/x" });
    status(&ada.post("webhooks", &public).await?, 201)
}

async fn a_wrong_method_is_not_allowed(target: &Target) -> Outcome {
    let calls = [
        (Method::GET, "login"),
        (Method::PUT, "invoices"),
        (Method::DELETE, "invoices"),
        (Method::GET, "webhooks"),
        (Method::POST, "audit"),
        (Method::POST, "healthz"),
    ];
    not_allowed(target, &calls).await
}

async fn an_unknown_path_is_not_found(target: &Target) -> Outcome {
    let id = "01900000-0000-7000-8000-000000000000";
    let old = format!("v0/invoices/{id}");
    let paths =
        ["nothing", "invoices/", &old, ".env", ".git/config", "admin", "actuator/env", "metrics"];
    not_found(target, &paths).await
}
