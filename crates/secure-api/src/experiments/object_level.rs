//! API1: somebody who is logged in asks for what is somebody else's, by every id and in every place that takes one.

use std::collections::BTreeMap;

use anyhow::Context;
use lab::{Experiment, Lab, Sabotage};
use reqwest::{Method, RequestBuilder};
use serde_json::json;
use uuid::Uuid;

use super::fixture::{Fixture, NOBODY, id_of};
use crate::cases::client::{ADA, Client, GIL, PNG, new_word};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Invoices of the customer that is attacked
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    invoices: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "object-level",
        "A user of another customer reads, changes and names nothing of this one, by whatever id and in whatever place; and \
         without any check in a statement, the lock on the rows alone would stop it",
        &["--invoices", "4"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/store.rs",
        replace: "set_config('role', 'pg_database_owner', true)\"",
        with: "set_config('app.role', 'pg_database_owner', true)\"",
        check: "rows that a statement without any check sees",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let (_child, target) = fixture.start(NOBODY).await?;
    let (ada, gil) = (Client::login(&target, ADA).await?, Client::login(&target, GIL).await?);
    let (acme, globex) = (fixture.caller(ADA).await?, fixture.caller(GIL).await?);
    let own = gil.invoice("an invoice of the attacker").await?;
    let word = new_word();
    let (mut ids, mut owned) = (Vec::new(), 0);
    for n in 0..params.invoices {
        let id = ada.invoice(&format!("{word} {n}")).await?;
        owned += u32::from(ada.get(&format!("invoices/{id}")).await?.status() == 200);
        // A version without attachments has none to protect.
        let file = id_of(&ada.upload(&id, "scan.png", PNG).await?.text().await?);
        let hook = json!({ "url": format!("http://{NOBODY}/{word}") });
        let hook = id_of(&ada.post("webhooks", &hook).await?.text().await?);
        ids.push((id, file, hook));
    }
    lab.check_eq("invoices that their owner can read", params.invoices, owned);
    let before = fixture.digest(acme.customer).await?;
    let attack = Attack { gil: &gil, acme: acme.customer, own };
    let (mut leaks, mut accepted, mut rows) = (0, 0, BTreeMap::new());
    for (n, (id, file, hook)) in ids.iter().enumerate() {
        lab.progress(n as u64, ids.len() as u64, "asked for what is another customer's");
        for (place, request) in attack.requests(id, file.as_deref(), hook.as_deref())? {
            let answer = gil.send(request).await?;
            let status = answer.status();
            leaks += u32::from(answer.text().await?.contains(&word));
            accepted += u32::from(status.is_success() && place.starts_with("as a reference"));
            *rows.entry((place, status.as_u16())).or_insert(0) += 1;
        }
    }
    let rows = rows.into_iter().map(|((place, status), count): ((&str, u16), i32)| {
        vec![place.to_owned(), status.to_string(), count.to_string()]
    });
    lab.table("Where the id was, and the answer", &["place", "status", "times"], rows.collect());
    lab.check_eq("answers with a text of the other customer", 0, leaks);
    lab.check_eq("references to what is the other customer's that were accepted", 0, accepted);
    // The other lock: statements that have forgotten the check, as the attacker's customer.
    let (store, own) = (fixture.store()?, fixture.rows(globex.customer).await?);
    let sees = "select (select count(*) from invoices) + (select count(*) from attachments)
                    + (select count(*) from webhooks)";
    let writes =
        ["update invoices set title = 'stolen'", "delete from attachments", "delete from webhooks"];
    let seen = store
        .tenant(globex, async |tx| {
            let seen: i64 = sqlx::query_scalar(sees).fetch_one(&mut *tx).await?;
            for write in writes {
                sqlx::query(write).execute(&mut *tx).await?;
            }
            Ok(seen)
        })
        .await?;
    lab.check_eq("rows that a statement without any check sees", own, seen);
    let after = fixture.digest(acme.customer).await?;
    lab.check_eq("digest of the other customer's rows", before, after);
    Ok(())
}

struct Attack<'a> {
    gil: &'a Client,
    acme: Uuid,
    own: String,
}

impl Attack<'_> {
    /// Every place that takes an id, and the id's neighbours.
    fn requests(
        &self,
        id: &str,
        file: Option<&str>,
        hook: Option<&str>,
    ) -> anyhow::Result<Vec<(&'static str, RequestBuilder)>> {
        let get = |path: String| self.gil.request(Method::GET, &path);
        let post = |path: String| self.gil.request(Method::POST, &path);
        let number = Uuid::parse_str(id).context("an id that is no UUID")?.as_u128();
        let neighbours = [number.wrapping_sub(1), number.wrapping_add(1)].map(Uuid::from_u128);
        let patch = |path: String| {
            self.gil.request(Method::PATCH, &path).json(&json!({ "title": "stolen" }))
        };
        let mut requests = vec![
            ("in the path of GET", get(format!("invoices/{id}"))),
            ("in the path of GET, in capitals", get(format!("invoices/{}", id.to_uppercase()))),
            (
                "in the path of GET, without dashes",
                get(format!("invoices/{}", id.replace('-', ""))),
            ),
            ("in the path of PATCH", patch(format!("invoices/{id}"))),
            ("in the path of the PDF", post(format!("invoices/{id}/pdf"))),
            (
                "in the path of an upload",
                post(format!("invoices/{id}/attachments?name=a.png")).body(PNG),
            ),
            ("in the query of the list", get(format!("invoices?after={id}&limit=100"))),
            (
                "in the query of the list, the customer's",
                get(format!("invoices?customer_id={}", self.acme)),
            ),
            ("in the query of the export", get(format!("exports?after={id}"))),
            (
                "as a reference in the body",
                post("invoices".to_owned())
                    .json(&json!({ "title": "x", "amount_cents": 1, "corrects": id })),
            ),
            (
                "as a reference in the body, the customer's",
                post("invoices".to_owned())
                    .json(&json!({ "title": "x", "amount_cents": 1, "customer_id": self.acme })),
            ),
            (
                "as a reference in a change",
                self.gil
                    .request(Method::PATCH, &format!("invoices/{}", self.own))
                    .json(&json!({ "title": "x", "corrects": id, "customer_id": self.acme })),
            ),
        ];
        for neighbour in neighbours {
            requests
                .push(("in the path of GET, a neighbour's", get(format!("invoices/{neighbour}"))));
        }
        if let Some(file) = file {
            requests.push(("in the path of an attachment", get(format!("attachments/{file}"))));
        }
        if let Some(hook) = hook {
            requests.push((
                "as a reference in a webhook's test",
                post(format!("webhooks/{hook}/test")),
            ));
        }
        // Last, since afterwards there is nothing to ask for.
        let delete = self.gil.request(Method::DELETE, &format!("invoices/{id}"));
        requests.push(("in the path of DELETE", delete));
        Ok(requests)
    }
}
