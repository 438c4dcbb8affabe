//! How is HTTP served over TLS? A handshake for each connection, in a task of its own and with a time limit; then HTTP.
//!
//! Invariant: no client can keep a connection open by saying nothing, nor make another client wait.

use std::{io, net::SocketAddr, pin::pin, time::Duration};

use axum::Router;
use edge::connection::answer;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::connection::Connection;

/// For a client that speaks HTTP where TLS is spoken. It cannot read an alert.
const SPEAK_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\n\
    content-length: 42\r\nconnection: close\r\n\r\nThis is HTTPS. Write https:// in the URL.\n";

/// How connections are served.
#[derive(Clone)]
pub struct Listener {
    tls: TlsAcceptor,
    router: Router,
    /// For a handshake, and for the head of a request.
    patience: Duration,
    /// Owns the task of each connection.
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
        // What is still in flight then is given up.
        if timeout(Duration::from_secs(10), self.tasks.wait()).await.is_err() {
            tracing::warn!("gave up waiting for requests in flight");
        }
    }

    // ANCHOR: spawn
    /// Shakes hands and answers in a task of its own. In the loop that accepts, one slow client would stop all others.
    fn spawn(&self, stream: TcpStream, peer: SocketAddr) {
        let this = self.clone();
        self.tasks.spawn(async move {
            let shaken = timeout(this.patience, this.shake_hands(stream)).await;
            let served = match shaken {
                // In a box, so that a connection that never gets here does not take the memory for it.
                Ok(Ok(stream)) => {
                    let connection = Connection::of(stream.get_ref().1, peer);
                    let stop = this.stopping.cancelled();
                    Box::pin(answer(stream, this.router, connection, this.patience, stop)).await
                }
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
}
