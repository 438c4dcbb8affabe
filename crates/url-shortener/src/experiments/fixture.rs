//! What do tests, experiments and cases start from? Fresh shards, and shorteners in front of them.

use futures_util::future::try_join_all;
use lab::{
    Lab, Service,
    child::{Child, ChildBuilder},
    database::Database,
};

use crate::{MIGRATIONS, cases::client::Client};

/// Options for a shortener that lets a client create as many links as it likes.
pub const UNLIMITED: [&str; 2] = ["--creates-per-second", "4000000000"];

/// Fresh databases. They are dropped with this value, so it has to outlive its programs.
#[derive(Debug)]
pub struct Fixture {
    /// At least one.
    pub shards: Vec<Database>,
}

impl Fixture {
    /// One empty shard.
    pub async fn fresh() -> anyhow::Result<Self> {
        let mut fixture = Self { shards: Vec::new() };
        fixture.add_shard().await?;
        Ok(fixture)
    }

    /// One empty shard for an experiment, whose report names the server.
    pub async fn of(lab: &Lab) -> anyhow::Result<Self> {
        lab.server(Service::Postgres).await?;
        Self::fresh().await
    }

    /// Adds an empty shard. Programs that are started later use it.
    pub async fn add_shard(&mut self) -> anyhow::Result<()> {
        self.shards.push(Database::fresh("url-shortener", &MIGRATIONS).await?);
        Ok(())
    }

    /// The first shard, which is the only one unless some were added.
    pub fn database(&self) -> &Database {
        &self.shards[0]
    }

    /// Prepares a shortener on these shards.
    pub fn serve(&self) -> ChildBuilder {
        let serve = Child::serve("url-shortener").database(self.database());
        if self.shards.len() == 1 {
            return serve;
        }
        self.shards.iter().fold(serve, |serve, shard| serve.args(&["--shard", shard.url()]))
    }

    /// Starts a shortener with these options, and returns it with a client.
    pub async fn start(&self, options: &[&str]) -> anyhow::Result<(Child, Client)> {
        start(self.serve().args(options)).await
    }
}

/// Starts a program that has been prepared, and returns it with a client.
pub async fn start(program: ChildBuilder) -> anyhow::Result<(Child, Client)> {
    let child = program.start().await?;
    let client = Client::at(child.url())?;
    Ok((child, client))
}

/// How many of these links do not lead where they should. Each is a code and its URL.
pub async fn lost(client: &Client, links: &[(String, String)]) -> anyhow::Result<u64> {
    let parts = links.chunks(links.len().div_ceil(16).max(1)).map(|part| async move {
        let mut lost = 0;
        for (code, url) in part {
            lost += u64::from(client.destination(code).await? != *url);
        }
        anyhow::Ok(lost)
    });
    Ok(try_join_all(parts).await?.into_iter().sum())
}
