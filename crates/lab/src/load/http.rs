//! How do we send load cheaply? With a minimal HTTP/1.1 client that only finds the end of an answer. A full client
//! costs more than the servers that we compare, and would hide their difference.

use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Connections to one server, for an open loop, which cannot know how many requests will be in flight. Each request
/// takes a free connection, or opens one.
#[derive(Debug)]
pub struct Pool {
    host: String,
    free: Mutex<Vec<Connection>>,
}

impl Pool {
    /// A pool for `127.0.0.1:PORT`. No connection is open yet.
    pub fn of(host: &str) -> Self {
        Self { host: host.to_owned(), free: Mutex::default() }
    }

    /// Sends a GET, reads its answer to the end and returns its status.
    pub async fn get(&self, path: &str) -> anyhow::Result<u16> {
        self.send(|connection| connection.get(path)).await
    }

    /// Sends a POST of JSON, reads its answer to the end and returns its status.
    pub async fn post(&self, path: &str, json: &str) -> anyhow::Result<u16> {
        self.send(|connection| connection.post(path, json)).await
    }

    /// Sends the request that this makes, reads its answer to the end and returns its status. A connection that fails is
    /// not used again.
    pub async fn send(&self, request: impl FnOnce(&Connection) -> Vec<u8>) -> anyhow::Result<u16> {
        let free = || self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = free().pop();
        let mut connection = match taken {
            Some(connection) => connection,
            None => Connection::open(&self.host).await?,
        };
        let request = request(&connection);
        let status = connection.send(&request).await?;
        free().push(connection);
        Ok(status)
    }
}

/// One connection that stays open.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    host: String,
    received: Vec<u8>,
}

impl Connection {
    /// Connects to `127.0.0.1:PORT`.
    pub async fn open(host: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, host: host.to_owned(), received: Vec::with_capacity(4_096) })
    }

    /// The bytes of a GET. Make them once and send them often.
    pub fn get(&self, path: &str) -> Vec<u8> {
        format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.host).into_bytes()
    }

    /// The bytes of a POST of JSON.
    pub fn post(&self, path: &str, json: &str) -> Vec<u8> {
        self.post_with(path, &[], json)
    }

    /// The same, with further headers, such as an idempotency key.
    pub fn post_with(&self, path: &str, headers: &[(&str, String)], json: &str) -> Vec<u8> {
        let headers = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n{}\
             content-length: {}\r\n\r\n{json}",
            self.host,
            headers.collect::<String>(),
            json.len(),
        )
        .into_bytes()
    }

    /// Sends a request, reads its answer to the end and returns its status.
    pub async fn send(&mut self, request: &[u8]) -> anyhow::Result<u16> {
        self.stream.write_all(request).await?;
        self.received.clear();
        let (status, end) = loop {
            let read = self.stream.read_buf(&mut self.received).await?;
            ensure!(read > 0, "the connection was closed");
            if let Some(head) = self.received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let (status, length) = parse(&self.received[..head])?;
                break (status, head + 4 + length);
            }
            ensure!(self.received.len() < 65_536, "the head does not end");
        };
        while self.received.len() < end {
            let read = self.stream.read_buf(&mut self.received).await?;
            ensure!(read > 0, "the connection was closed within a body");
        }
        Ok(status)
    }
}

/// The status and the length of the body.
fn parse(head: &[u8]) -> anyhow::Result<(u16, usize)> {
    let head = std::str::from_utf8(head)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status")?;
    let mut length = 0;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            bail!("a chunked answer, which this client cannot read");
        }
    }
    Ok((status.parse()?, length))
}
