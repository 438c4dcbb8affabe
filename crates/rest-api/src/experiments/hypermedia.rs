//! Who breaks when a server moves its URLs, or forbids something: the client that follows links, or the one that builds URLs?

use anyhow::Context;
use conform::expect::json;
use lab::{Experiment, Lab, Sabotage};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::{
    compare::moved,
    fixture::{Fixture, serve_here},
};
use crate::cases::client::Client;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "hypermedia",
        "A server moves its URLs and forbids a move of an order: the client that follows links goes on, and the client that \
         builds URLs breaks",
        &[],
        run,
    )
    .sabotage(Sabotage {
        file: "src/order.rs",
        replace: "filter(|(_, from, _)| *from == state)",
        with: "filter(|_| state != State::Cancelled)",
        check: "as it was, and the order is shipped: the client with links",
    })
}

/// What became of a client's errand: to order something and to cancel it.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Cancelled,
    /// It saw that it may not, and did not try.
    SawThatItMayNot,
    /// It was refused or lost its way; the status.
    Broke(u16),
}

async fn run(_: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let mut rows = Vec::new();
    let mut ends = Vec::new();
    for (name, prefix, shipped) in [
        ("as it was", "", false),
        ("moved below /api", "/api", false),
        ("as it was, and the order is shipped", "", true),
    ] {
        let service = fixture.router(true)?;
        let service = if prefix.is_empty() { service } else { moved::below(prefix, service) };
        let (_here, client) = serve_here(service).await?;
        let user = client.create_somewhere(prefix).await?;
        let by_links = by_links(&client, &user, shipped).await?;
        let by_urls = by_urls(&client, &user, shipped).await?;
        rows.push(vec![name.to_owned(), words(&by_links), words(&by_urls)]);
        ends.push((name, by_links, by_urls));
    }
    lab.table(
        "Orders something, and cancels it",
        &["the server", "follows links", "builds URLs"],
        rows,
    );
    for (name, by_links, by_urls) in &ends[..2] {
        let cancelled = u32::from(*by_links == End::Cancelled);
        lab.check_eq(
            format!("{name}: orders that the client with links has cancelled"),
            1,
            cancelled,
        );
        let expected = if *name == "as it was" { "cancelled" } else { "broke with 404" };
        lab.check_eq(
            format!("{name}: the client that builds URLs"),
            expected.to_owned(),
            words(by_urls),
        );
    }
    let (name, by_links, by_urls) = &ends[2];
    lab.check_eq(
        format!("{name}: the client with links"),
        words(&End::SawThatItMayNot),
        words(by_links),
    );
    lab.check_eq(
        format!("{name}: the client that builds URLs"),
        words(&End::Broke(409)),
        words(by_urls),
    );
    Ok(())
}

fn words(end: &End) -> String {
    match end {
        End::Cancelled => "cancelled".to_owned(),
        End::SawThatItMayNot => "saw that it may not".to_owned(),
        End::Broke(status) => format!("broke with {status}"),
    }
}

impl Client {
    /// A new user, created where the entry point says; its body.
    async fn create_somewhere(&self, prefix: &str) -> anyhow::Result<Value> {
        let entry = json(self.get(&format!("{prefix}/"), &[]).await?).await?;
        let user = self.user("Ada");
        json(self.follow(&entry, "users", Method::POST, Some(&user)).await?).await
    }

    async fn follow(
        &self,
        from: &Value,
        link: &str,
        method: Method,
        body: Option<&Value>,
    ) -> anyhow::Result<Response> {
        let path = from["_links"][link]["href"].as_str();
        let path = path.with_context(|| format!("no link {link} in {from}"))?;
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(body);
        }
        self.send(request).await
    }
}

/// Knows the entry point and the names of links.
async fn by_links(client: &Client, user: &Value, shipped: bool) -> anyhow::Result<End> {
    let order = json!({ "item": "tea", "quantity": 1 });
    let ordered = client.follow(user, "orders", Method::POST, Some(&order)).await?;
    if ordered.status() != 201 {
        return Ok(End::Broke(ordered.status().as_u16()));
    }
    let mut order = json(ordered).await?;
    if shipped {
        client.follow(&order, "shipment", Method::POST, None).await?;
        order = json(client.follow(&order, "self", Method::GET, None).await?).await?;
    }
    if !order["_links"]["cancellation"].is_object() {
        return Ok(End::SawThatItMayNot);
    }
    let status = client.follow(&order, "cancellation", Method::POST, None).await?.status();
    Ok(if status == 200 { End::Cancelled } else { End::Broke(status.as_u16()) })
}

/// Knows how URLs are built, and what may be done with an order.
async fn by_urls(client: &Client, user: &Value, shipped: bool) -> anyhow::Result<End> {
    let id = user["id"].as_str().context("no id")?;
    let order = json!({ "item": "tea", "quantity": 1 });
    let request = client.request(Method::POST, &format!("users/{id}/orders")).json(&order);
    let ordered = client.send(request).await?;
    if ordered.status() != 201 {
        return Ok(End::Broke(ordered.status().as_u16()));
    }
    let order = json(ordered).await?;
    let order = format!("orders/{}", order["id"].as_str().context("no id")?);
    if shipped {
        client.go(&format!("{order}/shipment")).await?;
    }
    let status = client.go(&format!("{order}/cancellation")).await?.status();
    Ok(if status == 200 { End::Cancelled } else { End::Broke(status.as_u16()) })
}
