//! How do the experiments speak to the service? Over connections of their own, as its clients.

use lab::{
    Lab,
    child::{Child, ChildBuilder},
    keys::Keys,
    load::http::Connection,
};
use tokio::task::JoinSet;

/// What became of many requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// 200s.
    pub passed: u64,
    /// 429s.
    pub refused: u64,
    /// Anything else.
    pub other: u64,
}

impl Tally {
    fn add(&mut self, status: u16) {
        match status {
            200 => self.passed += 1,
            429 => self.refused += 1,
            _ => self.other += 1,
        }
    }
}

/// Prepares a limiter that counts in this part of Redis. A busy machine must not look like a Redis that is away.
pub fn in_redis(lab: &Lab, keys: &Keys, name: &str) -> ChildBuilder {
    let prefix = format!("{}{name}:", keys.prefix());
    lab.serve().env("REDIS_URL", keys.url()).args(&[
        "--store",
        "redis",
        "--store-timeout",
        "20s",
        "--prefix",
        &prefix,
    ])
}

/// The bytes of a request with these headers.
pub fn request(child: &Child, headers: &[(&str, &str)]) -> Vec<u8> {
    let headers = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
    let headers: String = headers.collect();
    format!("GET /api/hello HTTP/1.1\r\nhost: {}\r\n{headers}\r\n", child.address()).into_bytes()
}

/// Each of the clients sends one request after another, the first to the first child and so on.
pub async fn hammer(children: &[Child], clients: u64, requests: u64) -> anyhow::Result<Tally> {
    let mut hammering = JoinSet::new();
    for n in 0..clients {
        let child = &children[usize::try_from(n)? % children.len()];
        let (host, request) = (child.address().to_owned(), request(child, &[]));
        let requests = requests / clients + u64::from(n < requests % clients);
        hammering.spawn(async move {
            let mut tally = Tally::default();
            let mut connection = Connection::open(&host).await?;
            for _ in 0..requests {
                tally.add(connection.send(&request).await?);
            }
            anyhow::Ok(tally)
        });
    }
    let mut all = Tally::default();
    for tally in hammering.join_all().await {
        let tally = tally?;
        all.passed += tally.passed;
        all.refused += tally.refused;
        all.other += tally.other;
    }
    Ok(all)
}

/// Sends these requests one after another.
pub async fn send_all(child: &Child, requests: &[Vec<u8>]) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let mut connection = Connection::open(child.address()).await?;
    for request in requests {
        tally.add(connection.send(request).await?);
    }
    Ok(tally)
}
