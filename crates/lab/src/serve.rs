//! How is a router served well? With a limit on how long a client may take to ask, and a stop that lets
//! what is in flight finish. `axum::serve` has the second only, so this is hyper, a page of it.

use std::{fmt::Display, io, pin::pin, sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use axum::Router;
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
use url::Url;

use crate::{
    connection::Connections,
    database, open_files,
    stack::{self, Service},
    subject::Subject,
};

/// A client that has not sent the head of its request by then is cut off.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// What is still in flight this long after SIGTERM is given up.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// What an answer's `serve` function is given: a bound port, and the way to its servers.
#[derive(Debug)]
pub struct Serving {
    answer: Subject,
    /// Command lines to try, printed when it listens; `{url}` stands for its address.
    try_it: &'static [&'static str],
    /// What else stands for something in these lines.
    words: Words,
    listener: TcpListener,
    url: Url,
    reset: bool,
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
        Ok(Self { answer: answer.into(), try_it, words: Words::default(), listener, url, reset })
    }

    /// The address at which it will be served.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Puts this in the place of `{name}` in the lines to try: a second address, say, that is known only now.
    pub fn word(mut self, name: &'static str, value: impl Display) -> Self {
        self.words.add(name, value);
        self
    }

    /// The URL of the answer's own database, migrated; what is in it stays from run to run.
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

    /// Serves until SIGTERM or Ctrl-C, and then until what is in flight is done.
    pub async fn run(self, router: Router) -> anyhow::Result<()> {
        // First, since who reads that we listen may ask us to stop.
        let stop = asked_to_stop();
        self.announce();
        serve(self.listener, router, stop).await
    }

    /// The same over TLS.
    pub async fn run_tls(mut self, router: Router, config: ServerConfig) -> anyhow::Result<()> {
        self.url.set_scheme("https").map_err(|()| anyhow!("{} has no host", self.url))?;
        let stop = asked_to_stop();
        self.announce();
        serve_tls(self.listener, router, config, stop).await
    }

    fn announce(&self) {
        println!("listening on {}", self.url);
        for line in self.try_it {
            eprintln!("  {}", self.words.fill(line, self.url.as_str()));
        }
    }
}

/// What stands for something in the lines to try, beside `{url}`.
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

/// Binds, or names the option of the guide that chooses another port.
pub async fn bind(host: &str, port: u16) -> anyhow::Result<(TcpListener, Url)> {
    bind_or_name(host, port, "--port N").await
}

/// Binds, or says which words of the command line choose another port.
async fn bind_or_name(host: &str, port: u16, words: &str) -> anyhow::Result<(TcpListener, Url)> {
    let listener = listen((host, port)).await.with_context(|| {
        format!(
            "cannot listen on {host}:{port}; choose another port with `{words}` (0: any free one)"
        )
    })?;
    let url = Url::parse(&format!("http://{}/", listener.local_addr()?))?;
    Ok((listener, url))
}

/// Listens with room for a crowd. The standard library lets 128 wait to be accepted: whoever comes next is not heard, and
/// tries again after a second.
pub async fn listen(address: impl ToSocketAddrs) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await?;
    rustix::net::listen(&listener, 1_024)?;
    Ok(listener)
}

/// A router served within this process, on a free port, until it is dropped. What is compared in one
/// experiment has to be served in the same way.
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

/// Serves this router here.
pub async fn here(router: Router) -> anyhow::Result<Here> {
    let (listener, url) = bind("127.0.0.1", 0).await?;
    let accepting = tokio::spawn(serve(listener, router, std::future::pending()));
    Ok(Here { host: url.authority().to_owned(), accepting: accepting.abort_handle() })
}

/// Ends on the first SIGTERM or Ctrl-C that comes after this call.
pub fn asked_to_stop() -> impl Future<Output = ()> {
    stop_signal().map(drop)
}

/// The same, and says which of them came. (An `async fn` would begin to listen only when it is awaited, and a signal in
/// between would be lost.)
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

/// Accepts connections until `stop`, and then waits for those that are answering.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    serve_within(listener, router, None, HEAD_TIMEOUT, stop).await
}

/// The same over TLS. Clients choose between HTTP/2 and HTTP/1.1, unless the configuration says what they may speak.
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
                // Out of file descriptors, most likely: those that are open will time out.
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
