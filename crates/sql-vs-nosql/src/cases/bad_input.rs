//! What a client may send by mistake or on purpose, and what it gets.

use anyhow::Context;
use conform::{
    bodies::refuses_bad_bodies,
    case::Outcome,
    cases,
    expect::{equal, status, status_in},
    http::{invalid, not_allowed, not_found, problem, refused},
    target::Target,
};
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Client, new_id};

cases! {
    Plain a_body_that_is_no_customer_is_refused: "PUT /customers/{id} with a bad body: 400, 413, 415 or 422; and the next good one is taken", "One bad client must not cost the others anything.";
    Plain a_body_that_is_no_product_is_refused: "The same for PUT /products/{id}", "Every call that takes a body is attacked.";
    Plain a_body_that_is_no_order_is_refused: "The same for POST /orders", "Every call that takes a body is attacked.";
    Plain a_body_that_is_no_amount_or_session_is_refused: "The same for deposits, deliveries and sessions", "Every call that takes a body is attacked.";
    Plain a_field_that_cannot_be_is_named: "A bad name, country, phone or price, or a field of the shop's own: 422 that names it", "A form wants to show it at the right place.";
    Plain money_is_no_float: "A price of 0.1 + 0.2, a text or 1e300: 422", "No float is 0.30.";
    Plain what_a_store_would_change_is_refused: "A NUL, or a number beyond 2^53: 422; half a surrogate: 400", "What is kept has to come back as it was sent.";
    Plain an_operator_is_a_value: "{\"$gt\": \"\"} where text is wanted: 422, and as a parameter: a text", "In some stores it would be a query that finds everything.";
    Plain a_patch_that_makes_no_customer_is_refused: "A PATCH that takes the name away or touches the balance: 422, and nothing is changed", "The result has to be a customer.";
    Plain a_query_that_is_none_is_refused: "A bad max_price, by, snapshot or as_of_schema, or one twice: 422 that names it", "A filter that is ignored shows everything.";
    Plain a_string_that_cannot_be_an_id_is_not_found: "An id with other letters: 404, for every method", "It is a part of a key, and paths are input too.";
    Plain a_wrong_method_is_not_allowed: "A method that a path does not have: 405 with Allow", "It tells a client's author what the path is for.";
    Plain an_unknown_path_is_not_found: "A path that there is not: 404", "An everyday event, and no error of the server.";
}

async fn a_body_that_is_no_customer_is_refused(target: &Target) -> Outcome {
    let path = format!("customers/{}", new_id());
    let good = json!({ "name": "Ada", "country": "GB", "phones": ["1"] });
    refuses_bad_bodies(target, || target.request(Method::PUT, &path), &good).await
}

async fn a_body_that_is_no_product_is_refused(target: &Target) -> Outcome {
    let path = format!("products/{}", new_id());
    let good = json!({ "name": "Tea", "price_cents": 250 });
    refuses_bad_bodies(target, || target.request(Method::PUT, &path), &good).await
}

async fn a_body_that_is_no_order_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, tea) = (client.customer("GB", 100_000).await?, client.product(1, 1_000).await?);
    let good = json!({ "customer": ada, "lines": { tea.as_str(): 1 } });
    refuses_bad_bodies(target, || target.request(Method::POST, "orders"), &good).await?;
    for lines in
        [json!({}), json!({ tea.as_str(): 0 }), json!({ tea.as_str(): 1_001 }), json!({ "A": 1 })]
    {
        let order = json!({ "customer": ada, "lines": lines });
        problem(target.post("orders", &order).await?, 422).await.context(order.to_string())?;
    }
    Ok(())
}

async fn a_body_that_is_no_amount_or_session_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let (ada, tea) = (client.customer("GB", 0).await?, client.product(1, 0).await?);
    let good = json!({ "amount": 1 });
    for path in [format!("customers/{ada}/deposits"), format!("products/{tea}/deliveries")] {
        refuses_bad_bodies(target, || target.request(Method::POST, &path), &good).await?;
        for amount in [json!(0), json!(-1), json!(0.5), json!(1e18), json!("1")] {
            let answer = target.post(&path, &json!({ "amount": amount })).await?;
            invalid(answer, "amount").await.with_context(|| amount.to_string())?;
        }
    }
    let path = format!("sessions/{}", new_id());
    let good = json!({ "customer": "ada", "ttl_seconds": 60 });
    refuses_bad_bodies(target, || target.request(Method::PUT, &path), &good).await?;
    for ttl in [json!(0), json!(-1), json!(86_401), json!(1e300)] {
        let session = json!({ "customer": "ada", "ttl_seconds": ttl });
        invalid(client.put(&path, &session).await?, "ttl_seconds").await?;
    }
    Ok(())
}

async fn a_field_that_cannot_be_is_named(target: &Target) -> Outcome {
    let client = Client::of(target);
    let path = format!("customers/{}", new_id());
    let ada = json!({ "name": "Ada", "country": "GB", "phones": [] });
    let long = "x".repeat(201);
    for (field, values) in [
        (
            "name",
            vec![json!(""), json!(" "), json!("a\nb"), json!("a\u{2028}b"), json!(long), json!({})],
        ),
        ("country", vec![json!(""), json!("gb"), json!("GBR"), json!("G1"), json!(["GB"])]),
        ("phones", vec![json!("1"), json!([1]), json!([""]), json!(vec!["1"; 11])]),
        ("id", vec![json!("x")]),
        ("balance_cents", vec![json!(1), json!(null)]),
    ] {
        for value in values {
            let mut body = ada.clone();
            body[field] = value;
            let answer = client.put(&path, &body).await?;
            invalid(answer, field).await.with_context(|| body.to_string())?;
        }
    }
    problem(target.get(&path).await?, 404).await?;
    let both = json!({ "name": "Ada", "country": "GB", "phone": "1", "phones": [] });
    invalid(client.put(&path, &both).await?, "phone").await?;
    let stock = json!({ "name": "Tea", "price_cents": 1, "stock": 1 });
    invalid(client.put(&format!("products/{}", new_id()), &stock).await?, "stock").await
}

async fn money_is_no_float(target: &Target) -> Outcome {
    let client = Client::of(target);
    let path = format!("products/{}", new_id());
    for price in
        [json!(0.1 + 0.2), json!(2.5), json!("250"), json!(1e300), json!(0), json!(-1), json!(null)]
    {
        let answer = client.put(&path, &json!({ "name": "Tea", "price_cents": price })).await?;
        invalid(answer, "price_cents").await.with_context(|| price.to_string())?;
    }
    Ok(())
}

async fn what_a_store_would_change_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let path = format!("customers/{}", new_id());
    for odd in [
        json!("a\0b"),
        json!({ "a\0b": 1 }),
        json!(9_007_199_254_740_993_i64),
        json!([1e17]),
        json!(u64::MAX),
    ] {
        let body = json!({ "name": "Ada", "country": "GB", "odd": odd });
        invalid(client.put(&path, &body).await?, "odd").await.context(body.to_string())?;
    }
    for text in [r#""\ud800""#, "1e999"] {
        let body = format!(r#"{{"name":"Ada","country":"GB","odd":{text}}}"#);
        let request = target.request(Method::PUT, &path).header("content-type", "application/json");
        refused(target.send(request.body(body)).await?, &[400, 422]).await.context(text)?;
    }
    problem(target.get(&path).await?, 404).await.map(drop)
}

async fn an_operator_is_a_value(target: &Target) -> Outcome {
    let client = Client::of(target);
    let operator = json!({ "$gt": "" });
    let tea = client.product(1, 5).await?;
    let order = json!({ "customer": operator, "lines": { tea.as_str(): 1 } });
    invalid(target.post("orders", &order).await?, "customer").await?;
    let session = json!({ "customer": operator, "ttl_seconds": 60 });
    invalid(client.put(&format!("sessions/{}", new_id()), &session).await?, "customer").await?;
    for query in ["colour[$gt]=", "%24where=1", "colour=%7B%22%24gt%22%3A%22%22%7D"] {
        let found = client.read(&format!("products?{query}&mark={}", new_id())).await?;
        equal("what is found", found["items"].clone(), json!([])).context(query)?;
    }
    Ok(())
}

async fn a_patch_that_makes_no_customer_is_refused(target: &Target) -> Outcome {
    let client = Client::of(target);
    let path = format!("customers/{}", client.customer("GB", 7).await?);
    let before = client.read(&path).await?;
    for (patch, field) in [
        (json!({ "name": null }), "name"),
        (json!({ "country": 7 }), "country"),
        (json!({ "balance_cents": 1_000_000 }), "balance_cents"),
        (json!({ "id": "x" }), "id"),
    ] {
        invalid(client.patch(&path, &patch).await?, field).await.context(patch.to_string())?;
    }
    for patch in [json!([]), json!("x"), Value::Null] {
        refused(client.patch(&path, &patch).await?, &[400, 422]).await?;
    }
    equal("the customer", client.read(&path).await?, before)
}

async fn a_query_that_is_none_is_refused(target: &Target) -> Outcome {
    let many: String = (1..=21).map(|n| format!("&a{n}=x")).collect();
    let ada = Client::of(target).customer("GB", 0).await?;
    for (path, field) in [
        ("products?max_price=x".to_owned(), "max_price"),
        ("products?max_price=-1".to_owned(), "max_price"),
        ("products?max_price=0.3".to_owned(), "max_price"),
        ("products?max_price=1&max_price=2".to_owned(), "max_price"),
        ("products?colour=a&colour=b".to_owned(), "colour"),
        (format!("products?{}", &many[1..]), "a21"),
        ("reports/revenue".to_owned(), "by"),
        ("reports/revenue?by=shoe".to_owned(), "by"),
        ("reports/revenue?by=month&snapshot=maybe".to_owned(), "snapshot"),
        ("reports/revenue?by=month&limit=1".to_owned(), "limit"),
        (format!("customers/{ada}?as_of_schema=3"), "as_of_schema"),
        (format!("customers/{ada}?as_of_schema="), "as_of_schema"),
    ] {
        invalid(target.get(&path).await?, field).await.context(path)?;
    }
    Ok(())
}

async fn a_string_that_cannot_be_an_id_is_not_found(target: &Target) -> Outcome {
    let client = Client::of(target);
    let long = "a".repeat(65);
    for id in ["A", "a.b", "a%20b", "%00", "..%2fhealthz", "a:b", "%24gt", "'--", "%C3%A4", &long] {
        for kind in ["customers", "products", "sessions", "feed"] {
            let path = format!("{kind}/{id}");
            not_found(target, &[&path]).await.context(path)?;
        }
        for (path, body) in [
            (format!("customers/{id}"), json!({ "name": "Ada", "country": "GB" })),
            (format!("products/{id}"), json!({ "name": "Tea", "price_cents": 1 })),
            (format!("sessions/{id}"), json!({ "customer": "ada", "ttl_seconds": 1 })),
        ] {
            problem(client.put(&path, &body).await?, 404).await.context(path)?;
        }
        let path = format!("customers/{id}/deposits");
        let deposit = target.post(&path, &json!({ "amount": 1 })).await?;
        problem(deposit, 404).await.context(path)?;
    }
    // Bytes that are no text: nobody has to make sense of them.
    refused(target.get("customers/%ff%fe").await?, &[400, 404]).await
}

async fn a_wrong_method_is_not_allowed(target: &Target) -> Outcome {
    let ada = format!("customers/{}", Client::of(target).customer("GB", 0).await?);
    let calls = [
        (Method::POST, ada.as_str()),
        (Method::DELETE, "products/tea"),
        (Method::GET, "orders"),
        (Method::POST, "products"),
        (Method::PUT, "consistency"),
    ];
    not_allowed(target, &calls).await?;
    let head = target.ask(Method::HEAD, &ada).await?;
    status_in(&head, &[200])?;
    status(&head, 200)
}

async fn an_unknown_path_is_not_found(target: &Target) -> Outcome {
    not_found(target, &["nothing", "customers", "customers/a/b/c", "reports", "order"]).await
}
