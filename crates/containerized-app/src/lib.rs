//! "Containerize a Python Flask app with Docker."
//!
//! A Dockerfile of six lines is enough for a demonstration. In production the program is process number one: it has to
//! handle SIGTERM and drain, to say when it is ready, to stay below a limit of memory, and to need no rights. What is
//! built must hold no secret, and the orchestrator has to be told all this.
//!
//! In reading order: the naive version ([`whiteboard`]), the phases of a process ([`lifecycle`]), what number one has to
//! do ([`init`]), what the kernel allows ([`limits`], [`who`]), memory below a limit ([`memory`]), work that takes time
//! ([`jobs`]), what the process depends on ([`backend`]), what an orchestrator is told ([`manifest`]), and the calls
//! ([`error`], [`metrics`], [`api`], [`service`]). Beside `src` there are the Flask app (`app/`), the Dockerfiles,
//! `compose.yaml` and `deploy/`.

pub mod whiteboard;
pub mod lifecycle;
pub mod init;
pub mod limits;
pub mod who;
pub mod memory;
pub mod jobs;
pub mod backend;
pub mod manifest;
pub mod error;
pub mod metrics;
pub mod api;
pub mod service;
pub mod cases;
pub mod experiments;

use lab::{Answer, Serve, Serving, serve::asked_to_stop};

use crate::service::{Options, Service};

/// This answer, for the command line, the guide and the tests.
pub fn answer() -> Answer {
    Answer {
        name: "containerized-app",
        question: "Containerize a Python Flask app with Docker.",
        folder: env!("CARGO_MANIFEST_DIR"),
        needs: &[],
        migrations: None,
        try_it: &[
            "curl -s {url}/",
            r#"curl -s {url}/jobs -H 'content-type: application/json' -d '{"name":"report","milliseconds":500}'"#,
            "curl -s {url}/readyz",
            "curl -s {url}/who",
            "curl -s -X POST '{url}/eat?mib=8'",
            "curl -s {url}/metrics",
        ],
        serve: Serve::new(serve).whiteboard(serve_whiteboard),
        suite: cases::suite(),
        experiments: experiments::all(),
    }
}

async fn serve(options: Options, serving: Serving) -> anyhow::Result<()> {
    // Before anything else: until a handler is set, the kernel drops SIGTERM for process number one.
    let signal = asked_to_stop();
    let service = Service::new(&options);
    let (router, stop) = (service.router(), service.stop(signal));
    tokio::select! {
        // First, so that a service without a warm-up is ready when it says that it listens.
        biased;
        never = service.work() => match never {},
        served = serving.run_until(router, stop) => served,
    }
}

async fn serve_whiteboard(serving: Serving) -> anyhow::Result<()> {
    // The textbook's app has no handler for SIGTERM.
    serving.run_until(whiteboard::router(), std::future::pending()).await
}
