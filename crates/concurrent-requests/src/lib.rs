//! "How do you handle concurrent requests in a backend service?"
//!
//! A shop on the day of its sale. Async code waits cheaply, but something always sets the capacity: threads, connections,
//! a lock. What comes beyond that waits in a short queue or is refused at once, so that the rest gets an answer in time.
//!
//! In reading order: the naive version ([`whiteboard`]); what is sold ([`order`]) and reported ([`report`]); until when an
//! answer is wanted ([`deadline`]), how many may be at work ([`limit`]) and who begins ([`admission`]), where CPU work runs
//! ([`price`]) and who blocks a thread ([`watchdog`]), what a slow dependency may take ([`bulkhead`]), what happens to work
//! that nobody waits for ([`cancel`]) and to work that takes long ([`jobs`]); what is kept ([`store`]); how the parts are put
//! together ([`service`]) and speak HTTP ([`error`], [`api`]).

pub mod whiteboard;
pub mod order;
pub mod report;
pub mod deadline;
pub mod limit;
pub mod admission;
pub mod price;
pub mod watchdog;
pub mod bulkhead;
pub mod cancel;
pub mod jobs;
pub mod store;
pub mod service;
pub mod error;
pub mod api;
pub mod cases;
pub mod experiments;

use lab::{Answer, Serve, Service, Serving};

pub use store::MIGRATIONS;

use crate::service::{Options, Shop};

/// This answer, for the command line, the guide and the tests.
pub fn answer() -> Answer {
    Answer {
        name: "concurrent-requests",
        question: "How do you handle concurrent requests in a backend service?",
        folder: env!("CARGO_MANIFEST_DIR"),
        needs: &[Service::Postgres],
        migrations: Some(&MIGRATIONS),
        try_it: &[
            r#"curl -s -X PUT {url}/products/7 -H 'content-type: application/json' -d '{"name":"tea","cents":1000,"stock":2}'"#,
            "curl -s {url}/products/7/price",
            r#"curl -si {url}/orders -H "idempotency-key: $(date +%s)" -H 'content-type: application/json' -d '{"product":7,"quantity":1}'"#,
            "curl -s -X POST {url}/reports/$(date -u +%F)",
            "curl -s {url}/pressure",
        ],
        serve: Serve::new(serve).whiteboard(serve_whiteboard),
        suite: cases::suite(),
        experiments: experiments::all(),
    }
}

async fn serve(options: Options, serving: Serving) -> anyhow::Result<()> {
    let (shop, worker) = Shop::open(&serving.database().await?, options)?;
    serving.run(api::router(shop)).await?;
    // The jobs that were accepted, before the process ends.
    worker.finish().await;
    Ok(())
}

async fn serve_whiteboard(serving: Serving) -> anyhow::Result<()> {
    let router = whiteboard::router(&serving.database().await?).await?;
    serving.run(router).await
}
