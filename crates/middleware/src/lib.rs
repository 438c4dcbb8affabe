//! "What is middleware in Express.js?"
//!
//! Layers around the handlers of a small notes API. A layer has the request before what is inside it, and the answer
//! after it. So their order decides what is true of the service, and the command line can change it.
//!
//! In reading order: the naive version ([`whiteboard`]); what a layer is ([`layer`]), and four of them, written in two ways
//! each, with the library's in [`experiments::compare`] ([`request_id`], [`timing`], [`auth`], [`timeout`]); what others limit
//! and count ([`limits`], [`metrics`]); what a layer learned and others need ([`context`]); what a request passed
//! ([`onion`]); their order ([`stack`]); what is kept ([`store`]); and how it speaks HTTP ([`error`], [`api`]).

pub mod whiteboard;
pub mod layer;
pub mod request_id;
pub mod timing;
pub mod auth;
pub mod timeout;
pub mod limits;
pub mod metrics;
pub mod context;
pub mod onion;
pub mod stack;
pub mod error;
pub mod store;
pub mod api;
pub mod cases;
pub mod experiments;

use lab::{Answer, Serve, Service, Serving};

use crate::{experiments::compare, stack::Settings, store::Store};

/// This answer, for the command line, the guide and the tests.
pub fn answer() -> Answer {
    Answer {
        name: "middleware",
        question: "What is middleware in Express.js?",
        folder: env!("CARGO_MANIFEST_DIR"),
        needs: &[Service::Postgres],
        migrations: Some(&store::MIGRATIONS),
        try_it: &[
            r#"curl -si {url}/notes -H 'authorization: Bearer let-ada-in' -H 'x-request-id: first' -H 'content-type: application/json' -d '{"text":"buy tea"}'"#,
            "curl -s {url}/stack/first",
            "curl -s {url}/stack/first.svg",
        ],
        serve: Serve::new(serve).whiteboard(serve_whiteboard),
        suite: cases::suite(),
        experiments: experiments::all(),
    }
}

async fn serve(settings: Settings, serving: Serving) -> anyhow::Result<()> {
    let stack = &settings.stack;
    let twice = stack.iter().enumerate().find(|(n, name)| stack[..*n].contains(name));
    anyhow::ensure!(twice.is_none(), "--stack names a layer twice: name each once");
    for warning in stack::warnings(&settings) {
        tracing::warn!("{warning}");
    }
    let store = Store::new(&serving.database().await?)?;
    serving.run(api::router(store, &settings, compare::layer)?).await
}

async fn serve_whiteboard(serving: Serving) -> anyhow::Result<()> {
    let router = whiteboard::router(&serving.database().await?).await?;
    serving.run(router).await
}
