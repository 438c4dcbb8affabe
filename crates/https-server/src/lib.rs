//! "What is the difference between HTTP and HTTPS?"
//!
//! HTTPS is the same HTTP inside TLS: nobody on the way can read it, change it unnoticed, or pass for the server, as far
//! as the client checks the certificate. It does not hide who talks to whom, when, and how much. And it protects nothing
//! that goes by plain HTTP first; so there is a redirect, HSTS, and a refusal where a redirect comes too late.
//!
//! In reading order: the naive version ([`whiteboard`]), what a client checks ([`chain`]), who signs it ([`ca`]), which
//! certificate is served ([`certificate`]), what a handshake agrees on ([`tls`], [`machine`]), what a handler knows of it
//! ([`connection`]), how connections are served ([`listener`]), the way from HTTP to HTTPS ([`redirect`]), what is
//! protected ([`session`], [`pages`]), and the two ports ([`error`], [`plain`], [`api`], [`service`]).

pub mod whiteboard;
pub mod chain;
pub mod ca;
pub mod certificate;
pub mod tls;
pub mod machine;
pub mod connection;
pub mod listener;
pub mod redirect;
pub mod session;
pub mod pages;
pub mod error;
pub mod plain;
pub mod api;
pub mod service;
pub mod cases;
pub mod experiments;

use std::path::PathBuf;

use anyhow::Context;
use lab::{Answer, Serve, Serving, serve::asked_to_stop};
use tokio::net::TcpListener;

use crate::service::{Options, Service};

/// This answer, for the command line, the guide and the tests.
pub fn answer() -> Answer {
    Answer {
        name: "https-server",
        question: "What is the difference between HTTP and HTTPS?",
        folder: env!("CARGO_MANIFEST_DIR"),
        needs: &[],
        migrations: None,
        try_it: &[
            "curl -i '{url}/pages/debts?from=mail'",
            r#"curl -s -o /dev/null -w '%{http_code}\n' {url}/login -H 'content-type: application/json' -d '{"user":"ada","password":"lovelace"}'"#,
            r#"curl -i --cacert "{home}/ca.pem" {https}/"#,
            r#"cookie=$(curl -s -D - --cacert "{home}/ca.pem" {https}/login -H 'content-type: application/json' -d '{"user":"ada","password":"lovelace"}' | sed -n 's/^set-cookie: \([^;]*\).*/\1/p')"#,
            r#"curl -s --cacert "{home}/ca.pem" {https}/me -H "cookie: $cookie""#,
        ],
        serve: Serve::new(serve).whiteboard(serve_whiteboard),
        suite: cases::suite(),
        experiments: experiments::all(),
    }
}

async fn serve(options: Options, serving: Serving) -> anyhow::Result<()> {
    let home = options.home.clone().unwrap_or_else(home);
    let listener = listen(&serving, options.https_port).await?;
    let service = Service::start(options, &home, listener.local_addr()?.port())?;
    let serving = serving.word("home", home.display()).word("https", service.names.url());
    let plain = service.plain.clone();
    tokio::join!(service.serve_https(listener, asked_to_stop()), serving.run(plain)).1
}

async fn serve_whiteboard(serving: Serving) -> anyhow::Result<()> {
    // Not beside the answer's own authority: its certificate has the same name.
    let home = std::env::var_os("HTTPS_SERVER_HOME")
        .map_or_else(|| home().join("whiteboard"), PathBuf::from);
    let listener = listen(&serving, 0).await?;
    let port = listener.local_addr()?.port();
    let https = format!("https://localhost:{port}");
    let serving = serving.word("home", home.display()).word("https", https);
    // Pages of other sites are kept from the first port only. The second one needs no guard: a browser does not trust its
    // certificate, all that it has is two constants in memory, and no call changes them.
    tokio::select! {
        served = whiteboard::serve_https(listener, &home) => served,
        served = serving.run(whiteboard::plain(port)) => served,
    }
}

/// Binds the second port, on the address of the first.
async fn listen(serving: &Serving, port: u16) -> anyhow::Result<TcpListener> {
    let address = serving.url().socket_addrs(|| None)?.first().context("it is bound")?.ip();
    let bound = lab::serve::listen((address, port)).await;
    bound.with_context(|| format!("cannot serve HTTPS on {port}; choose another --https-port"))
}

/// Unless told otherwise, below the workspace's `target`: each checkout has an authority of its own.
fn home() -> PathBuf {
    lab::stack::workspace().join("target/https-server")
}
