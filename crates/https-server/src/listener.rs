//! How is HTTP served over TLS? A handshake for each connection, in a task of its own and with a time limit; then HTTP.
//!
//! Invariant: no client can keep a connection open by doing nothing, nor make another client wait.

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
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;

use crate::connection::Connection;

/// What is still in flight this long after the server was asked to stop is given up.
const DRAIN: Duration = Duration::from_secs(10);
/// For a client that speaks HTTP where TLS is spoken. It cannot read an alert.
const SPEAK_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\n\
    content-length: 41\r\nconnection: close\r\n\r\nThis is HTTPS. Write https:// in the URL.\n";

/// How connections are served.
#[derive(Clone)]
pub struct Listener {
    tls: TlsAcceptor,
    router: Router,
    /// For a handshake, and for the head of a request.
    patience: Duration,
    /// Owns the task of each connection, and those of the streams of HTTP/2.
    tasks: TaskTracker,
    /// When this is cancelled, connections end with what is in flight.
    stopping: CancellationToken,
}

impl Listener {
    /// Serves this router.
    pub fn new(tls: TlsAcceptor, router: Router, patience: Duration) -> Self {
        let (tasks, stopping) = (TaskTracker::new(), CancellationToken::new());
        Self { tls, router, patience, tasks, stopping }
    }

    /// Accepts connections until `stop`, and then waits for those that are answering.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut stop => break,
            };
            match accepted {
                Ok((stream, peer)) => self.spawn(stream, peer),
                Err(error) => {
                    // Out of file descriptors, most likely: those that are open will time out.
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(listener);
        self.stopping.cancel();
        self.tasks.close();
        if timeout(DRAIN, self.tasks.wait()).await.is_err() {
            tracing::warn!("gave up waiting for requests in flight");
        }
    }

    // ANCHOR: spawn
    /// Shakes hands and answers in a task of its own. In the loop that accepts, one slow client would stop all others.
    fn spawn(&self, stream: TcpStream, peer: SocketAddr) {
        let this = self.clone();
        self.tasks.spawn(async move {
            let shaken = tokio::select! {
                shaken = timeout(this.patience, this.shake_hands(stream)) => shaken,
                () = this.stopping.cancelled() => return,
            };
            let served = match shaken {
                // In a box, so that a connection that never gets here does not take the memory for it.
                Ok(Ok(stream)) => Box::pin(this.answer(stream, peer)).await,
                Ok(Err(error)) => Err(error.into()),
                Err(_) => Err("the handshake took too long".into()),
            };
            if let Err(error) = served {
                tracing::debug!(%error, %peer, "connection ended");
            }
        });
    }

    async fn shake_hands(&self, mut stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let _ = stream.set_nodelay(true);
        let mut first = [0];
        stream.peek(&mut first).await?;
        // TLS begins with 22, and HTTP with a letter.
        if first[0].is_ascii_alphabetic() {
            let _ = stream.read(&mut [0; 4_096]).await?;
            stream.write_all(SPEAK_TLS).await?;
            stream.shutdown().await?;
            return Err(io::Error::other("the client spoke plain HTTP"));
        }
        self.tls.accept(stream).await
    }
    // ANCHOR_END: spawn

    /// Answers requests until the client is done, or until we are stopping and the last request is answered.
    async fn answer(self, stream: TlsStream<TcpStream>, peer: SocketAddr) -> Result<(), Error> {
        let Self { router, patience, tasks, stopping, .. } = self;
        let connection = Connection::of(stream.get_ref().1);
        let asked = Arc::new(AtomicBool::new(false));
        let service = service_fn({
            let asked = Arc::clone(&asked);
            move |mut request: Request<Incoming>| {
                asked.store(true, Ordering::Relaxed);
                request.extensions_mut().insert(ConnectInfo(peer));
                request.extensions_mut().insert(connection.clone());
                // A router is always ready.
                router.clone().call(request)
            }
        });
        let mut builder = auto::Builder::new(Tracked(tasks));
        builder.http1().timer(TokioTimer::new()).header_read_timeout(patience);
        // In HTTP/2 it is a ping that a silent client does not answer.
        let http2 = &mut builder.http2();
        http2.timer(TokioTimer::new()).keep_alive_interval(patience).keep_alive_timeout(patience);
        let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
        // hyper's time limits begin when it knows which HTTP is spoken. This one begins now.
        let silent = async {
            sleep(patience).await;
            if asked.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            ended = &mut serving => return ended,
            () = silent => return Err("the client did not ask in time".into()),
            () = stopping.cancelled() => {}
        }
        serving.as_mut().graceful_shutdown();
        serving.await
    }
}

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Spawns the tasks of HTTP/2 streams where they are waited for.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tracked {
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}
