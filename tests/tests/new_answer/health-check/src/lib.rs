//! "What does a health check say?"
//!
//! That the process is alive (`/healthz`), and that it can do its work (`/readyz`). This service needs no server for
//! its work, so both say the same. It is the smallest answer, and shows the shape of an answer.
//!
//! In reading order: [`whiteboard`], [`api`].

pub mod whiteboard;
pub mod api;
pub mod cases;
pub mod experiments;

use lab::{Answer, NoOptions, Serve, Serving};

/// This answer, for the command line, the guide and the tests.
pub fn answer() -> Answer {
    Answer {
        name: "health-check",
        question: "What does a health check say?",
        folder: env!("CARGO_MANIFEST_DIR"),
        needs: &[],
        migrations: None,
        try_it: &["curl -i {url}/healthz"],
        serve: Serve::new(serve).whiteboard(serve_whiteboard),
        suite: cases::suite(),
        experiments: experiments::all(),
    }
}

async fn serve(_: NoOptions, serving: Serving) -> anyhow::Result<()> {
    serving.run(api::router()).await
}

async fn serve_whiteboard(serving: Serving) -> anyhow::Result<()> {
    serving.run(whiteboard::router()).await
}
