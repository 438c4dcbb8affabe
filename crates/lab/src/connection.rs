//! How is one connection served? In HTTP/1.1 or HTTP/2, whichever the client speaks, over plain TCP or TLS.
//!
//! Invariant: no client can keep a connection open by doing nothing. Whatever has to come before the first request (a
//! TLS handshake, a preface, a head) has to come within one time limit.

use std::{
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::ConnectInfo};
use hyper::{Request, body::Incoming, rt::Executor, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service as _;

/// How connections are served.
#[derive(Clone)]
pub(crate) struct Connections {
    /// What answers.
    pub router: Router,
    /// With TLS, if this is set.
    pub tls: Option<TlsAcceptor>,
    /// A client that has not sent the head of its request by then is cut off.
    pub head_timeout: Duration,
    /// Owns the task of each connection, and those of an HTTP/2 connection's streams.
    pub tasks: TaskTracker,
    /// When this is cancelled, a connection ends with the requests that are in flight.
    pub stopping: CancellationToken,
}

impl Connections {
    /// Serves a connection in a task of its own.
    pub fn spawn(&self, stream: TcpStream, peer: SocketAddr) {
        let this = self.clone();
        self.tasks.spawn(async move {
            if let Err(error) = this.accept(stream, peer).await {
                tracing::debug!(%error, %peer, "connection ended");
            }
        });
    }

    async fn accept(self, stream: TcpStream, peer: SocketAddr) -> Result<(), Error> {
        // Answers are small and whole: there is nothing to wait for.
        let _ = stream.set_nodelay(true);
        match self.tls.clone() {
            None => self.answer(stream, peer).await,
            // In a box, so that the many plain connections do not take the memory of this one.
            Some(tls) => Box::pin(self.answer_over(tls, stream, peer)).await,
        }
    }

    async fn answer_over(
        self,
        tls: TlsAcceptor,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Result<(), Error> {
        let stream = tokio::select! {
            shaken = timeout(self.head_timeout, tls.accept(stream)) => shaken.map_err(|_| too_late())??,
            () = self.stopping.cancelled() => return Ok(()),
        };
        self.answer(stream, peer).await
    }

    /// Answers requests until the client is done, or until we are stopping and the last request is answered.
    async fn answer<S>(self, stream: S, peer: SocketAddr) -> Result<(), Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Self { router, head_timeout, tasks, stopping, .. } = self;
        let asked = Arc::new(AtomicBool::new(false));
        let service = service_fn({
            let asked = Arc::clone(&asked);
            move |mut request: Request<Incoming>| {
                asked.store(true, Ordering::Relaxed);
                request.extensions_mut().insert(ConnectInfo(peer));
                // A router is always ready.
                router.clone().call(request)
            }
        });
        let mut builder = auto::Builder::new(Tracked(tasks));
        builder.http1().timer(TokioTimer::new()).header_read_timeout(head_timeout);
        // In HTTP/2 it is a ping that a silent client does not answer. It also finds one that stops within a head.
        let http2 = &mut builder.http2();
        http2.timer(TokioTimer::new()).keep_alive_interval(head_timeout);
        http2.keep_alive_timeout(head_timeout);
        let mut connection =
            pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
        // hyper's time limits begin when it knows which HTTP is spoken. This one begins now.
        let silent = async {
            sleep(head_timeout).await;
            if asked.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            ended = &mut connection => return ended,
            () = silent => return Err(too_late().into()),
            () = stopping.cancelled() => {}
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    }
}

type Error = Box<dyn std::error::Error + Send + Sync>;

fn too_late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client did not ask in time")
}

/// Spawns the tasks of HTTP/2 streams where they are waited for.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> Executor<F> for Tracked
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}
