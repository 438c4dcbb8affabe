//! How do several databases look like one? Each code has its place on the ring.

use futures_util::future::try_join_all;

use crate::{
    code::Code,
    error::Error,
    ring::Ring,
    store::{Link, Store},
};

/// The databases, in the order in which they were named. The order is the shards' identity: hosts may be
/// renamed, a new shard is added at the end.
#[derive(Debug)]
pub struct Shards {
    ring: Ring,
    stores: Vec<Store>,
}

impl Shards {
    /// Connects to the databases when they are first asked. The error is a malformed URL, or no URL.
    pub fn new(urls: &[String]) -> Result<Self, sqlx::Error> {
        if urls.is_empty() {
            return Err(sqlx::Error::Configuration("there must be a shard at least".into()));
        }
        let stores = urls.iter().map(|url| Store::new(url)).collect::<Result<_, _>>()?;
        Ok(Self { ring: Ring::new(urls.len()), stores })
    }

    /// The number of the shard that has this code.
    pub fn number_of(&self, code: &Code) -> usize {
        self.ring.shard_of(code)
    }

    /// The shard that has this code.
    pub fn of(&self, code: &Code) -> &Store {
        &self.stores[self.number_of(code)]
    }

    /// The shard that has the sequence.
    pub fn first(&self) -> &Store {
        &self.stores[0]
    }

    /// All of them, by number.
    pub fn all(&self) -> &[Store] {
        &self.stores
    }

    /// The link, if it leads anywhere.
    pub async fn link(&self, code: &Code) -> Result<Link, Error> {
        match self.of(code).find(code).await? {
            None => Err(Error::NotFound),
            Some(link) if link.is_expired() => Err(Error::Gone),
            Some(link) => Ok(link),
        }
    }

    /// Whether all of them answer.
    pub async fn ping(&self) -> Result<(), Error> {
        try_join_all(self.stores.iter().map(Store::ping)).await?;
        Ok(())
    }
}
