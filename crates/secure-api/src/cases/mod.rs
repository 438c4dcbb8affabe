//! The table of calls of invoices.

mod bad_input;
pub mod client;

use conform::{
    case::{Outcome, Suite},
    cases,
    expect::{ends_with, equal, expect, json_of, list, same_fields, status, text},
    http::{header, header_is, lives_and_is_ready, media_type_is, problem},
    target::Target,
};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use client::{ADA, Client, GIL, OLGA, PASSWORD, PNG, VIC, invoice, new_word};

cases! {
    Plain a_login_gives_a_token_that_says_who_asks: "POST /login: 200 with access_token, token_type and expires_in", "Everything else asks for it.";
    Plain a_login_that_fails_does_not_say_why: "POST /login with an unknown address or a wrong password: the same 401", "Otherwise a stranger learns who has an account.";
    Plain without_a_token_there_is_nothing: "Any call without a good token: 401 with WWW-Authenticate", "A call that was forgotten is the one that is found.";
    Plain an_invoice_is_created_read_changed_and_deleted: "POST: 201 and Location; GET: the same; PATCH: what is left out stays; DELETE: 204, then 404", "That is what the service is for.";
    Plain an_invoice_has_just_these_fields: "GET: id, title, note, amount_cents, corrects, paid, created_at, and no others", "A column that is added one day must not be shown by itself.";
    Plain another_customers_invoice_is_not_there: "GET, PATCH, DELETE, PDF or attachment of another customer's: 404; corrects: 422", "Number one of OWASP's list: everybody is logged in, and asks for somebody else's.";
    Plain a_viewer_reads_and_does_not_write: "Writing calls as a viewer: 403; reading ones: 200", "A role that is checked only in the page is not checked.";
    Plain an_administrator_sees_no_invoices: "GET /invoices as an administrator: 403; GET /admin/customers as a clerk: 403", "Who may do much should not be able to do everything.";
    Plain a_list_comes_in_pages: "GET /invoices?search=…&limit=2: items and next; each invoice on one page", "A list grows, and nobody reads it in one piece.";
    Plain an_invoice_becomes_a_pdf: "POST /invoices/{id}/pdf: 200 and a PDF", "Customers print.";
    Plain an_export_is_no_program: "GET /exports: text/csv; a title that begins with = gets an apostrophe", "The next program that reads the file is a spreadsheet, on somebody's desk.";
    Plain an_attachment_is_what_its_bytes_say: "POST …/attachments: 201 and the type of the bytes; GET: to be saved, and not shown", "A script with the name of a picture is a script.";
    Plain a_webhook_is_public_and_its_answer_is_not_shown: "POST /webhooks: 201; …/test: delivered and status only", "Our network must not be explored through us.";
    Plain an_administrator_sees_who_did_what: "GET /audit: entries with actor, action, object, request_id and hash; no text of a client's", "After an attack, this is all that is left.";
    Plain every_answer_has_the_headers: "X-Request-Id, Cache-Control: no-store, nosniff and a Content-Security-Policy, also with an error", "Browsers and caches keep and guess otherwise.";
    Plain an_origin_that_is_not_listed_reads_nothing: "With Origin, also null: no Access-Control-Allow-Origin", "Whoever reflects the origin lets every page read.";
    Plain the_service_describes_itself: "GET /openapi.json: OpenAPI 3 with these calls", "What nobody wrote down, nobody looks after.";
    Plain the_service_says_that_it_lives_and_is_ready: "GET /healthz and GET /readyz: 200", "A load balancer asks this before it sends clients.";
    Restart what_was_answered_with_201_is_there_after_a_kill: "After SIGKILL, every invoice that was answered with 201 is there", "An answer is a promise.";
}

/// The whole suite.
pub fn suite() -> Suite {
    Suite { calls: include_str!("calls.md"), cases: [cases(), bad_input::cases()].concat() }
}

async fn a_login_gives_a_token_that_says_who_asks(target: &Target) -> Outcome {
    let body = json!({ "email": ADA, "password": PASSWORD });
    let token = json_of(target.post("login", &body).await?, 200).await?;
    equal("the type of the token", token["token_type"].clone(), "Bearer")?;
    let life = token["expires_in"].as_i64().unwrap_or_default();
    expect((1..=900).contains(&life), "a life of at most a quarter of an hour", life)?;
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let request = target.request(Method::GET, "invoices");
        let value = format!("{scheme} {}", text(&token, "access_token")?);
        status(&target.send(request.header("authorization", value)).await?, 200)?;
    }
    Ok(())
}

async fn a_login_that_fails_does_not_say_why(target: &Target) -> Outcome {
    let mut answers = Vec::new();
    for email in [ADA.to_owned(), format!("{}@acme.example", new_word())] {
        let body = json!({ "email": email, "password": "wrong" });
        answers.push(problem(target.post("login", &body).await?, 401).await?);
    }
    equal("the answer for an unknown address", answers[1].clone(), answers[0].clone())
}

const ID: &str = "01900000-0000-7000-8000-000000000000";

async fn without_a_token_there_is_nothing(target: &Target) -> Outcome {
    let mut calls = vec![
        (Method::GET, "invoices".to_owned()),
        (Method::POST, "invoices".to_owned()),
        (Method::GET, "exports".to_owned()),
        (Method::POST, "webhooks".to_owned()),
        (Method::GET, "admin/customers".to_owned()),
        (Method::GET, "audit".to_owned()),
        (Method::POST, format!("webhooks/{ID}/test")),
        (Method::GET, format!("attachments/{ID}")),
    ];
    for method in [Method::GET, Method::PATCH, Method::DELETE] {
        calls.push((method, format!("invoices/{ID}")));
    }
    for end in ["pdf", "attachments"] {
        calls.push((Method::POST, format!("invoices/{ID}/{end}")));
    }
    // {"alg":"none"} and {"sub":"…","role":"admin"}, without a signature.
    let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiIwMTkwMDAwMC0wMDAwLTcwMDAtODAwMC0wMDAwMDAwMDAwMDAiLCJyb2xlIjoiYWRtaW4ifQ.";
    for (method, path) in calls {
        for authorization in
            [None, Some("Bearer"), Some("Bearer x"), Some("Basic YTpi"), Some(unsigned)]
        {
            let request = target.request(method.clone(), &path);
            let request = match authorization {
                Some(value) => request.header("authorization", value),
                None => request,
            };
            let response = target.send(request).await?;
            let scheme = header(&response, "www-authenticate").to_owned();
            problem(response, 401).await?;
            expect(scheme.starts_with("Bearer"), "`WWW-Authenticate: Bearer`", scheme)?;
        }
    }
    Ok(())
}

async fn an_invoice_is_created_read_changed_and_deleted(target: &Target) -> Outcome {
    let ada = Client::login(target, ADA).await?;
    for title in ["Tea", "Łukasz & Søn", "'; drop table invoices; --", "<script>alert(1)</script>"]
    {
        let mut new = invoice(title);
        new["note"] = json!("früh");
        let created = ada.post("invoices", &new).await?;
        let location = header(&created, "location").to_owned();
        let created = json_of(created, 201).await?;
        same_fields(&created, &new, &["title", "note", "amount_cents"])?;
        equal("the field `paid`", created["paid"].clone(), false)?;
        let path = format!("/invoices/{}", text(&created, "id")?);
        ends_with("the header `Location`", &location, &path)?;
        equal("the invoice", json_of(ada.get(&path).await?, 200).await?, created.clone())?;
        let changed = json_of(ada.patch(&path, &json!({ "note": "late" })).await?, 200).await?;
        equal("the note", changed["note"].clone(), "late")?;
        same_fields(&changed, &created, &["id", "title", "amount_cents", "created_at"])?;
        equal("the invoice", json_of(ada.get(&path).await?, 200).await?, changed)?;
        status(&ada.ask(Method::DELETE, &path).await?, 204)?;
        problem(ada.get(&path).await?, 404).await?;
        problem(ada.ask(Method::DELETE, &path).await?, 404).await?;
    }
    Ok(())
}

async fn an_invoice_has_just_these_fields(target: &Target) -> Outcome {
    let ada = Client::login(target, ADA).await?;
    let word = new_word();
    let id = ada.invoice(&word).await?;
    let one = json_of(ada.get(&format!("invoices/{id}")).await?, 200).await?;
    let page = json_of(ada.get(&format!("invoices?search={word}")).await?, 200).await?;
    for seen in [&one, &list(&page, "items")?[0]] {
        let mut names: Vec<_> =
            seen.as_object().into_iter().flatten().map(|(name, _)| name).collect();
        names.sort();
        let names = json!(names);
        let fields = ["amount_cents", "corrects", "created_at", "id", "note", "paid", "title"];
        equal("the fields of an invoice", names, json!(fields))?;
    }
    Ok(())
}

async fn another_customers_invoice_is_not_there(target: &Target) -> Outcome {
    let (ada, gil) = (Client::login(target, ADA).await?, Client::login(target, GIL).await?);
    let id = ada.invoice("Tea").await?;
    let path = format!("invoices/{id}");
    let before = json_of(ada.get(&path).await?, 200).await?;
    problem(gil.get(&path).await?, 404).await?;
    problem(gil.patch(&path, &json!({ "title": "Mine" })).await?, 404).await?;
    problem(gil.ask(Method::DELETE, &path).await?, 404).await?;
    problem(gil.ask(Method::POST, &format!("{path}/pdf")).await?, 404).await?;
    problem(gil.upload(&id, "scan.png", PNG).await?, 404).await?;
    let mut corrects = invoice("Coffee");
    corrects["corrects"] = json!(id);
    conform::http::invalid(gil.post("invoices", &corrects).await?, "corrects").await?;
    let own = json_of(ada.post("invoices", &corrects).await?, 201).await?;
    equal("the field `corrects`", own["corrects"].clone(), id)?;
    let page = json_of(
        gil.get(&format!("invoices?after={}", before["id"].as_str().unwrap_or_default())).await?,
        200,
    )
    .await?;
    expect(
        !page.to_string().contains(text(&before, "id")?),
        "no invoice of another customer",
        &page,
    )?;
    equal("the invoice", json_of(ada.get(&path).await?, 200).await?, before)
}

async fn a_viewer_reads_and_does_not_write(target: &Target) -> Outcome {
    let (ada, vic) = (Client::login(target, ADA).await?, Client::login(target, VIC).await?);
    let id = ada.invoice("Tea").await?;
    let path = format!("invoices/{id}");
    let before = json_of(vic.get(&path).await?, 200).await?;
    status(&vic.get("invoices").await?, 200)?;
    problem(vic.post("invoices", &invoice("Tea")).await?, 403).await?;
    problem(vic.patch(&path, &json!({ "title": "Mine" })).await?, 403).await?;
    problem(vic.ask(Method::DELETE, &path).await?, 403).await?;
    problem(vic.upload(&id, "scan.png", PNG).await?, 403).await?;
    problem(vic.post("webhooks", &json!({ "url": "https://hooks.example.com/" })).await?, 403)
        .await?;
    equal("the invoice", json_of(ada.get(&path).await?, 200).await?, before)
}

async fn an_administrator_sees_no_invoices(target: &Target) -> Outcome {
    let (ada, olga) = (Client::login(target, ADA).await?, Client::login(target, OLGA).await?);
    let customers = json_of(olga.get("admin/customers").await?, 200).await?;
    let known = list(&customers, "items")?.iter().any(|customer| customer["name"] == "Acme");
    expect(known, "Acme among the customers", &customers)?;
    problem(olga.get("invoices").await?, 403).await?;
    problem(ada.get("admin/customers").await?, 403).await?;
    problem(ada.get("audit").await?, 403).await.map(drop)
}

async fn a_list_comes_in_pages(target: &Target) -> Outcome {
    let ada = Client::login(target, ADA).await?;
    let word = new_word();
    let mut made = Vec::new();
    for n in 0..5 {
        made.push(json!(ada.invoice(&format!("{word} {n}")).await?));
    }
    for sort in ["created_at", "-created_at", "amount_cents", "-amount_cents"] {
        let (mut seen, mut after) = (Vec::<Value>::new(), String::new());
        loop {
            let path = format!("invoices?search={word}&sort={sort}&limit=2{after}");
            let page = json_of(ada.get(&path).await?, 200).await?;
            seen.extend(list(&page, "items")?.iter().map(|invoice| invoice["id"].clone()));
            expect(seen.len() <= made.len(), "each invoice once", seen.len())?;
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        if sort.starts_with('-') {
            seen.reverse();
        }
        let mut expected = made.clone();
        if sort.ends_with("amount_cents") {
            // They cost the same, so their order is the program's own.
            seen.sort_by_key(Value::to_string);
            expected.sort_by_key(Value::to_string);
        }
        equal(&format!("the invoices, sorted by {sort}"), seen, expected)?;
    }
    Ok(())
}

async fn an_invoice_becomes_a_pdf(target: &Target) -> Outcome {
    let ada = Client::login(target, ADA).await?;
    let id = ada.invoice("Tea (green)").await?;
    let pdf = ada.ask(Method::POST, &format!("invoices/{id}/pdf")).await?;
    status(&pdf, 200)?;
    media_type_is(&pdf, "application/pdf")?;
    let bytes = pdf.bytes().await?;
    expect(bytes.starts_with(b"%PDF-"), "a PDF", String::from_utf8_lossy(&bytes))
}

async fn an_export_is_no_program(target: &Target) -> Outcome {
    let ada = Client::login(target, ADA).await?;
    let word = new_word();
    ada.invoice(&format!("=HYPERLINK(\"{word}\")")).await?;
    let export = ada.get(&format!("exports?search={word}")).await?;
    status(&export, 200)?;
    media_type_is(&export, "text/csv")?;
    let text = export.text().await?;
    let safe = text.contains(&format!("\"'=HYPERLINK(\"\"{word}\"\")\""));
    expect(safe, "an apostrophe before the formula", text)
}

async fn an_attachment_is_what_its_bytes_say(target: &Target) -> Outcome {
    let ada = Client::login(target, ADA).await?;
    let id = ada.invoice("Tea").await?;
    let uploaded = ada.upload(&id, "scan 1.png", PNG).await?;
    let location = header(&uploaded, "location").to_owned();
    let uploaded = json_of(uploaded, 201).await?;
    equal("the media type", uploaded["media_type"].clone(), "image/png")?;
    let path = format!("/attachments/{}", text(&uploaded, "id")?);
    ends_with("the header `Location`", &location, &path)?;
    let file = ada.get(&path).await?;
    status(&file, 200)?;
    media_type_is(&file, "image/png")?;
    let saved = header(&file, "content-disposition").starts_with("attachment");
    expect(saved, "`Content-Disposition: attachment`", header(&file, "content-disposition"))?;
    expect(file.bytes().await?.as_ref() == PNG, "the same bytes", "others")?;
    let gil = Client::login(target, GIL).await?;
    problem(gil.get(&path).await?, 404).await.map(drop)
}

async fn a_webhook_is_public_and_its_answer_is_not_shown(target: &Target) -> Outcome {
    let ada = Client::login(target, ADA).await?;
    let url = json!({ "url": "http://127.0.0.1:9/" });
    let webhook = json_of(ada.post("webhooks", &url).await?, 201).await?;
    equal("the URL", webhook["url"].clone(), "http://127.0.0.1:9/")?;
    let test = format!("webhooks/{}/test", text(&webhook, "id")?);
    // Nobody listens there.
    let tested = json_of(ada.ask(Method::POST, &test).await?, 200).await?;
    equal("the answer of a test", tested, json!({ "delivered": false, "status": null }))?;
    let gil = Client::login(target, GIL).await?;
    problem(gil.ask(Method::POST, &test).await?, 404).await.map(drop)
}

async fn an_administrator_sees_who_did_what(target: &Target) -> Outcome {
    let (ada, olga) = (Client::login(target, ADA).await?, Client::login(target, OLGA).await?);
    let word = new_word();
    let id = ada.invoice(&word).await?;
    let mut after = 0;
    loop {
        let page = json_of(olga.get(&format!("audit?after={after}")).await?, 200).await?;
        let entries = list(&page, "items")?;
        expect(page["broken_at"].is_null(), "an unbroken chain", &page["broken_at"])?;
        expect(!page.to_string().contains(&word), "no text of a client's", &page)?;
        if let Some(entry) = entries.iter().find(|entry| entry["object"] == id) {
            equal("the action", entry["action"].clone(), "invoice created")?;
            for field in ["actor", "request_id", "hash"] {
                text(entry, field)?;
            }
            return Ok(());
        }
        let last = entries.last().and_then(|entry| entry["seq"].as_i64());
        expect(last.is_some(), "an entry for the new invoice", "none")?;
        after = last.unwrap_or_default();
    }
}

/// The answers to a good request, a bad one and one for nothing.
async fn three(target: &Target, origin: Option<&str>) -> anyhow::Result<Vec<Response>> {
    let ada = Client::login(target, ADA).await?;
    let mut answers = Vec::new();
    for path in ["invoices", "invoices?limit=0", "nothing", "healthz"] {
        let mut request = ada.request(Method::GET, path);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        answers.push(ada.send(request).await?);
    }
    Ok(answers)
}

async fn every_answer_has_the_headers(target: &Target) -> Outcome {
    for answer in three(target, None).await? {
        header_is(&answer, "cache-control", "no-store")?;
        header_is(&answer, "x-content-type-options", "nosniff")?;
        for name in ["x-request-id", "content-security-policy"] {
            expect(!header(&answer, name).is_empty(), format!("a header `{name}`"), "none")?;
        }
        for name in ["server", "x-powered-by"] {
            header_is(&answer, name, "")?;
        }
    }
    Ok(())
}

async fn an_origin_that_is_not_listed_reads_nothing(target: &Target) -> Outcome {
    for origin in
        ["https://evil.example", "null", "http://localhost", "https://acme.example.evil.example"]
    {
        for answer in three(target, Some(origin)).await? {
            header_is(&answer, "access-control-allow-origin", "")?;
            header_is(&answer, "access-control-allow-credentials", "")?;
        }
    }
    Ok(())
}

async fn the_service_describes_itself(target: &Target) -> Outcome {
    let document = json_of(target.get("openapi.json").await?, 200).await?;
    expect(text(&document, "openapi")?.starts_with("3."), "OpenAPI 3", &document["openapi"])?;
    for (path, method) in [
        ("/login", "post"),
        ("/invoices", "get"),
        ("/invoices/{id}", "patch"),
        ("/webhooks", "post"),
        ("/admin/customers", "get"),
        ("/audit", "get"),
    ] {
        let known = document["paths"][path][method].is_object();
        expect(known, format!("{method} {path} in the document"), &document["paths"])?;
    }
    Ok(())
}

async fn the_service_says_that_it_lives_and_is_ready(target: &Target) -> Outcome {
    lives_and_is_ready(target).await
}

async fn what_was_answered_with_201_is_there_after_a_kill(target: &Target) -> Outcome {
    let ada = Client::login(target, ADA).await?;
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(ada.invoice(&format!("Tea {n}")).await?);
    }
    target.restart().await?;
    // The key of its tokens may have gone with it.
    let ada = Client::login(target, ADA).await?;
    for id in ids {
        status(&ada.get(&format!("invoices/{id}")).await?, 200)?;
    }
    Ok(())
}
