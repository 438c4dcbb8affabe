//! "Explain RESTful APIs and their key principles."
//!
//! Users and their orders. The method says whether a request may be sent again, the status what became of it, and the
//! headers under which condition it holds. What the method does not promise, a key or a version does.
//!
//! In reading order: the naive version ([`whiteboard`]); what goes over the wire ([`links`], [`order`], [`user`]), in
//! which form ([`negotiate`]), under which condition ([`condition`]) and in which pieces ([`page`], [`patch`]); what may
//! come twice ([`idempotency`]); what is kept ([`store`]); and how it speaks HTTP ([`error`], [`api`]). GraphQL, to
//! compare, is in [`experiments::compare`], and is served beside it.

pub mod whiteboard;
pub mod links;
pub mod order;
pub mod user;
pub mod negotiate;
pub mod condition;
pub mod page;
pub mod patch;
pub mod idempotency;
pub mod store;
pub mod error;
pub mod api;
pub mod cases;
pub mod experiments;

use lab::{Answer, NoOptions, Serve, Service, Serving};

pub use store::MIGRATIONS;

use crate::{experiments::compare::graphql, store::Store};

/// This answer, for the command line, the guide and the tests.
pub fn answer() -> Answer {
    Answer {
        name: "rest-api",
        question: "Explain RESTful APIs and their key principles",
        folder: env!("CARGO_MANIFEST_DIR"),
        needs: &[Service::Postgres],
        migrations: Some(&MIGRATIONS),
        try_it: &[
            r#"ada=$(curl -si {url}/users -H 'content-type: application/json' -H "idempotency-key: ada-$(date +%s)" -d "{\"name\":\"Ada\",\"email\":\"ada-$(date +%s)@example.org\"}" | tr -d '\r' | sed -n 's/^location: //p')"#,
            r#"tag=$(curl -si {url}$ada | tr -d '\r' | sed -n 's/^etag: //p')"#,
            r#"curl -i -X PATCH {url}$ada -H "if-match: $tag" -H 'content-type: application/merge-patch+json' -d '{"name":"Ada Lovelace"}'"#,
            "curl -i '{url}/users?limit=2&sort=-created_at'",
        ],
        serve: Serve::new(serve).whiteboard(serve_whiteboard),
        suite: cases::suite(),
        experiments: experiments::all(),
    }
}

async fn serve(_: NoOptions, serving: Serving) -> anyhow::Result<()> {
    let store = Store::new(&serving.database().await?)?;
    serving.run(api::router(store.clone(), graphql::calls(store, true))).await
}

async fn serve_whiteboard(serving: Serving) -> anyhow::Result<()> {
    let router = whiteboard::router(&serving.database().await?).await?;
    serving.run(router).await
}
