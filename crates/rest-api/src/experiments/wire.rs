//! What stands between a client and its servers? A proxy that takes them in turn, and that can lose an answer.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};

/// A proxy in front of several servers. Dropping it ends its connections.
#[derive(Debug)]
pub struct Wire {
    /// Where it listens.
    pub url: String,
    lose: Arc<AtomicBool>,
    accepting: AbortHandle,
}

impl Wire {
    /// Each connection goes to the next of these servers, `host:port`. If that one is dead, the connection is closed: the
    /// proxy does not know what may be sent twice.
    pub async fn to(servers: Vec<String>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let lose = Arc::new(AtomicBool::new(false));
        let losing = Arc::clone(&lose);
        let accepting = tokio::spawn(async move {
            // Dropped with this task, and with it every connection.
            let (mut connections, next) = (JoinSet::new(), AtomicUsize::new(0));
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                let server = &servers[next.fetch_add(1, Ordering::Relaxed) % servers.len()];
                connections.spawn(connection(client, server.clone(), Arc::clone(&losing)));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { url, lose, accepting: accepting.abort_handle() })
    }

    /// The next answer is lost: the server has given it, and the client's connection is reset.
    pub fn lose_the_next_answer(&self) {
        self.lose.store(true, Ordering::SeqCst);
    }

    /// Whether the answer that was to be lost has been.
    pub fn has_lost_it(&self) -> bool {
        !self.lose.load(Ordering::SeqCst)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn connection(client: TcpStream, server: String, lose: Arc<AtomicBool>) {
    // Resets instead of saying goodbye, when it is dropped.
    let _ = client.set_zero_linger();
    let _ = client.set_nodelay(true);
    let Ok(server) = TcpStream::connect(server).await else { return };
    let _ = server.set_nodelay(true);
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let there = async { tokio::io::copy(&mut from_client, &mut to_server).await.map(drop) };
    let back = async {
        let mut buffer = vec![0; 64 * 1_024];
        loop {
            let read = from_server.read(&mut buffer).await?;
            // The server has answered, so it has done what it was asked.
            if read == 0 || lose.swap(false, Ordering::SeqCst) {
                return std::io::Result::Ok(());
            }
            to_client.write_all(&buffer[..read]).await?;
        }
    };
    tokio::select! {
        _ = there => {}
        _ = back => {}
    }
}
