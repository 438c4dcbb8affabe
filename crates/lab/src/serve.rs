//! How is a router served well? With a limit on how long a client may take to send a request, and a stop that lets
//! requests in flight finish. `axum::serve` has only the second, so we use hyper directly.

use std::{fmt::Display, io, pin::pin, sync::Arc, time::Duration};

use anyhow::{Context, anyhow, ensure};
use axum::{Router, middleware::from_fn};
use futures_util::FutureExt;
use sqlx::migrate::Migrator;
use tokio::{
    net::{TcpListener, ToSocketAddrs},
    signal::unix::{Signal, SignalKind, signal},
    task::AbortHandle,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::{Host, Url};

use crate::{
    connection::Connections,
    database, foreign_page, open_files,
    stack::{self, Service},
    subject::Subject,
};

/// A client that has not sent the head of its request within this time is cut off.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests that are still in flight this long after SIGTERM are dropped.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// What an answer's `serve` function is given: a bound port, and the way to its servers.
#[derive(Debug)]
pub struct Serving {
    answer: Subject,
    /// Command lines to try, printed when it listens; `{url}` stands for its address.
    try_it: &'static [&'static str],
    /// What the other words in these lines stand for.
    words: Words,
    listener: TcpListener,
    url: Url,
    reset: bool,
    /// No other machine, and no page of another site, may call it.
    only_here: bool,
}

impl Serving {
    pub(crate) async fn bind(
        answer: impl Into<Subject>,
        try_it: &'static [&'static str],
        host: &str,
        port: u16,
        reset: bool,
    ) -> anyhow::Result<Self> {
        let (listener, url) = bind_or_name(host, port, "serve --port N").await?;
        let (answer, words) = (answer.into(), Words::default());
        Ok(Self { answer, try_it, words, listener, url, reset, only_here: false })
    }

    /// For a version that trusts whoever calls it. It is an error if it listens where other machines can call it.
    pub(crate) fn only_here(self) -> anyhow::Result<Self> {
        ensure!(
            self.is_local(),
            "the whiteboard version trusts whoever calls it, so it is not served on {}; leave out `--host`",
            self.url.host_str().unwrap_or_default()
        );
        Ok(Self { only_here: true, ..self })
    }

    /// The address at which it will be served.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Whether only programs of this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self.url.host() {
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            // We made the URL from the address that we listen on.
            Some(Host::Domain(_)) | None => false,
        }
    }

    /// Sets what `{name}` stands for in the lines to try: for example a second address, which is known only now.
    pub fn word(mut self, name: &'static str, value: impl Display) -> Self {
        self.words.add(name, value);
        self
    }

    /// The URL of the answer's own database, migrated. Its data stays from run to run.
    pub async fn database(&self) -> anyhow::Result<String> {
        let migrations = self.answer.migrations.context("this answer has no migrations")?;
        database::kept(self.answer.name, None, migrations, self.reset).await
    }

    /// The URL of a further database beside the answer's own, for an answer of several services, each with
    /// its own schema: `serving.database_named("inventory", &MIGRATIONS)`.
    pub async fn database_named(
        &self,
        part: &str,
        migrations: &Migrator,
    ) -> anyhow::Result<String> {
        database::kept(self.answer.name, Some(part), migrations, self.reset).await
    }

    /// Migrates another database, which the reader has named.
    pub async fn migrate(&self, url: &str) -> anyhow::Result<()> {
        let migrations = self.answer.migrations.context("this answer has no migrations")?;
        database::migrate(url, migrations).await
    }

    /// The URL of a server.
    pub async fn server(&self, service: Service) -> anyhow::Result<String> {
        Ok(stack::server(service).await?.url)
    }

    /// Serves until SIGTERM or Ctrl-C, and then until the requests in flight are answered.
    pub async fn run(self, router: Router) -> anyhow::Result<()> {
        // Before the announcement: a program that reads it may send a signal at once.
        let stop = asked_to_stop();
        self.announce();
        let router = self.guarded(router);
        serve(self.listener, router, stop).await
    }

    /// The same, but it stops when `stop` completes. For an answer that does something between the signal and the moment
    /// at which it takes no more connections, or that ignores signals. Take [`asked_to_stop`] before this call.
    pub async fn run_until(
        self,
        router: Router,
        stop: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        self.announce();
        let router = self.guarded(router);
        serve(self.listener, router, stop).await
    }

    /// The same over TLS.
    pub async fn run_tls(mut self, router: Router, config: ServerConfig) -> anyhow::Result<()> {
        self.url.set_scheme("https").map_err(|()| anyhow!("{} has no host", self.url))?;
        let stop = asked_to_stop();
        self.announce();
        let router = self.guarded(router);
        serve_tls(self.listener, router, config, stop).await
    }

    fn guarded(&self, router: Router) -> Router {
        if self.only_here { router.layer(from_fn(foreign_page::refuse)) } else { router }
    }

    fn announce(&self) {
        println!("listening on {}", self.url);
        for line in self.try_it {
            eprintln!("  {}", self.words.fill(line, self.url.as_str()));
        }
    }
}

/// What the words in the lines to try stand for, beside `{url}`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Words(Vec<(&'static str, String)>);

impl Words {
    /// `{name}` stands for this.
    pub fn add(&mut self, name: &'static str, value: impl Display) {
        self.0.push((name, value.to_string()));
    }

    /// The line, for the server at this URL.
    pub fn fill(&self, line: &str, url: &str) -> String {
        let line = line.replace("{url}", url.trim_end_matches('/'));
        self.0.iter().fold(line, |line, (name, value)| line.replace(&format!("{{{name}}}"), value))
    }
}

/// Binds. The error names the guide's option for another port.
pub async fn bind(host: &str, port: u16) -> anyhow::Result<(TcpListener, Url)> {
    bind_or_name(host, port, "--port N").await
}

/// Binds. The error names the command-line option for another port.
async fn bind_or_name(host: &str, port: u16, words: &str) -> anyhow::Result<(TcpListener, Url)> {
    let listener = listen((host, port)).await.with_context(|| {
        format!(
            "cannot listen on {host}:{port}; choose another port with `{words}` (0: any free port)"
        )
    })?;
    let url = Url::parse(&format!("http://{}/", listener.local_addr()?))?;
    Ok((listener, url))
}

/// Listens with a long queue. With the standard library's, only 128 connections can wait to be accepted; the next
/// client gets no answer and tries again after a second.
pub async fn listen(address: impl ToSocketAddrs) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await?;
    rustix::net::listen(&listener, 1_024)?;
    Ok(listener)
}

/// A router served within this process, on a free port, until this is dropped. Servers that one experiment compares
/// have to be served in the same way.
#[derive(Debug)]
pub struct Here {
    /// Where it listens: `127.0.0.1:40123`.
    pub host: String,
    accepting: AbortHandle,
}

impl Drop for Here {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Serves this router within this process.
pub async fn here(router: Router) -> anyhow::Result<Here> {
    let (listener, url) = bind("127.0.0.1", 0).await?;
    let accepting = tokio::spawn(serve(listener, router, std::future::pending()));
    Ok(Here { host: url.authority().to_owned(), accepting: accepting.abort_handle() })
}

/// Completes on the first SIGTERM or Ctrl-C after this call.
pub fn asked_to_stop() -> impl Future<Output = ()> {
    stop_signal().map(drop)
}

/// The same, and returns which signal came. (An `async fn` would begin to listen only when it is awaited, and would
/// miss a signal in between.)
pub(crate) fn stop_signal() -> impl Future<Output = SignalKind> {
    let kinds = [SignalKind::terminate(), SignalKind::interrupt()];
    let signals = kinds.map(signal);
    async move {
        let [mut terminate, mut interrupt] = signals.map(|signal| {
            signal.inspect_err(|error| tracing::warn!(%error, "a signal cannot be awaited")).ok()
        });
        tokio::select! {
            Some(()) = received(&mut terminate) => kinds[0],
            Some(()) = received(&mut interrupt) => kinds[1],
            else => std::future::pending().await,
        }
    }
}

/// The next of these signals, if they can be awaited.
async fn received(signal: &mut Option<Signal>) -> Option<()> {
    signal.as_mut()?.recv().await
}

/// Accepts connections until `stop`, and then waits for the requests in flight.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    serve_within(listener, router, None, HEAD_TIMEOUT, stop).await
}

/// The same over TLS. Clients choose between HTTP/2 and HTTP/1.1, unless the configuration lists the protocols.
pub async fn serve_tls(
    listener: TcpListener,
    router: Router,
    config: ServerConfig,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    serve_within(listener, router, Some(acceptor(config)), HEAD_TIMEOUT, stop).await
}

fn acceptor(mut config: ServerConfig) -> TlsAcceptor {
    if config.alpn_protocols.is_empty() {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    TlsAcceptor::from(Arc::new(config))
}

async fn serve_within(
    listener: TcpListener,
    router: Router,
    tls: Option<TlsAcceptor>,
    head_timeout: Duration,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    open_files::allow_many();
    let (tasks, stopping) = (TaskTracker::new(), CancellationToken::new());
    let connections =
        Connections { router, tls, head_timeout, tasks: tasks.clone(), stopping: stopping.clone() };
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, peer)) => connections.spawn(stream, peer),
            Err(error) => {
                // Most likely we are out of file descriptors. Open connections will time out and free some.
                tracing::warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    stopping.cancel();
    tasks.close();
    if timeout(DRAIN_TIMEOUT, tasks.wait()).await.is_err() {
        tracing::warn!("gave up waiting for requests in flight");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
