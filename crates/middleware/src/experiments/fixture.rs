//! What do tests, experiments and cases start from? A fresh database, servers on it, and stacks to choose from.

use anyhow::Context;
use axum::Router;
use clap::{Args, Command, FromArgMatches, ValueEnum};
use conform::target::Target;
use lab::{
    Lab, Service,
    child::{Child, ChildBuilder},
    database::Database,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::compare;
use crate::{
    api,
    layer::Name,
    stack::Settings,
    store::{MIGRATIONS, Store},
};

const NAME: &str = "middleware";

/// The key of the user `ada`, unless others are given.
pub const ADA: &str = "Bearer let-ada-in";

/// Every layer, in our order; of the two that check signatures, the one that keeps the body.
pub fn ours() -> Vec<Name> {
    let all = Name::value_variants().iter().copied();
    all.filter(|name| *name != Name::SignatureStream).collect()
}

/// As on the command line.
pub fn written(stack: &[Name]) -> String {
    stack.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// What the command line makes of these words.
pub fn settings(words: &[&str]) -> anyhow::Result<Settings> {
    let command = Settings::augment_args(Command::new(NAME).no_binary_name(true));
    Ok(Settings::from_arg_matches(&command.try_get_matches_from(words)?)?)
}

/// A fresh database. It is dropped with this value, so this has to outlive its servers.
#[derive(Debug)]
pub struct Fixture {
    /// With the schema, and nothing in it.
    pub database: Database,
}

impl Fixture {
    /// For a test, and for the cases.
    pub async fn fresh() -> anyhow::Result<Self> {
        Ok(Self { database: Database::fresh(NAME, &MIGRATIONS).await? })
    }

    /// For an experiment, whose report names the server.
    pub async fn of(lab: &Lab) -> anyhow::Result<Self> {
        lab.server(Service::Postgres).await?;
        Self::fresh().await
    }

    /// Prepares a server on this database.
    pub fn serve(&self) -> ChildBuilder {
        Child::serve(NAME).database(&self.database)
    }

    /// Starts a server with these options; and a client of it.
    pub async fn start(&self, words: &[&str]) -> anyhow::Result<(Child, Target)> {
        let child = self.serve().args(words).start().await?;
        let target = Target::new(child.url(), None)?;
        Ok((child, target))
    }

    /// The service within this process, with these options.
    pub fn router(&self, words: &[&str]) -> anyhow::Result<Router> {
        let store = Store::new(self.database.url())?;
        Ok(api::router(store, &settings(words)?, compare::layer)?)
    }
}

/// Sends these bytes on a connection of its own, and reads what comes until it is closed, or until this text comes.
pub async fn exchange(address: &str, bytes: &[u8], until: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(bytes).await?;
    let mut seen = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&seen).into_owned();
        if text.contains(until) {
            return Ok(text);
        }
        let read = stream.read_buf(&mut seen);
        let read = tokio::time::timeout(std::time::Duration::from_secs(20), read).await;
        // A connection that is reset has ended as well.
        if read.context("neither an answer nor an end")?.unwrap_or(0) == 0 {
            return Ok(text);
        }
    }
}
