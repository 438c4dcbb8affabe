//! Who is called? A server that counts its connections, and gives each the same answer.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::{AbortHandle, JoinSet},
};

/// A server. Dropping it ends its connections.
#[derive(Debug)]
pub struct Receiver {
    /// Where it listens.
    pub address: SocketAddr,
    connections: Arc<AtomicU32>,
    accepting: AbortHandle,
}

impl Receiver {
    /// Listens here, and answers with this status line and these headers.
    pub async fn at(address: &str, head: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let connections = Arc::new(AtomicU32::new(0));
        let (counter, answer) = (
            Arc::clone(&connections),
            format!("HTTP/1.1 {head}\r\ncontent-length: 6\r\nconnection: close\r\n\r\ninside"),
        );
        let accepting = tokio::spawn(async move {
            // Dropped with this task, and with it every connection.
            let mut answering = JoinSet::new();
            loop {
                let Ok((mut stream, _)) = listener.accept().await else { continue };
                counter.fetch_add(1, Ordering::SeqCst);
                let answer = answer.clone();
                answering.spawn(async move {
                    // One read has all of a small request.
                    let _ = stream.read(&mut [0; 4_096]).await;
                    let _ = stream.write_all(answer.as_bytes()).await;
                    let _ = stream.shutdown().await;
                });
                while answering.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, connections, accepting: accepting.abort_handle() })
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
