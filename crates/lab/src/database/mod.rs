//! How does each test, experiment and answer get a database of its own, beside whatever else the server holds?
//!
//! In reading order: `mark` says which databases are ours, `admin` holds the statements, `migrate` brings the
//! schema, `make` creates, `template` copies, `kept` is for `serve`, `clean` drops what killed processes left.
//!
//! Invariant: a database is dropped only if it bears our mark, or if this process, or a dead one of this workspace,
//! wrote down its random name before it made the database. Only such a database is migrated, or one that the reader
//! names for that purpose (`--shard`).

mod admin;
mod clean;
mod kept;
mod make;
mod mark;
mod migrate;
mod template;

pub use kept::kept;
pub use migrate::migrate;

use sqlx::{PgPool, migrate::Migrator, postgres::PgPoolOptions};
use tokio::sync::OnceCell;

use crate::{Service, claim::Claim, farewell::farewell, stack};
use admin::{Admin, with_database};
use mark::{Kind, random_name};
use template::Template;

/// A database for one test or one experiment, dropped with this value.
#[derive(Debug)]
pub struct Database {
    name: String,
    url: String,
    server: String,
    claim: Option<Claim>,
}

impl Database {
    /// A database on the shared server, with the schema.
    pub async fn fresh(answer: &str, migrations: &Migrator) -> anyhow::Result<Self> {
        let server = stack::server(Service::Postgres).await?.url;
        static CLEAN: OnceCell<()> = OnceCell::const_new();
        CLEAN.get_or_try_init(|| clean::clean(&server)).await?;
        let (fresh, template) = Self::copy(&server, answer, migrations).await?;
        template.make_spares(server);
        Ok(fresh)
    }

    /// A database for one of several services of an answer, with that service's schema.
    pub async fn fresh_part(
        answer: &str,
        part: &str,
        migrations: &Migrator,
    ) -> anyhow::Result<Self> {
        Self::fresh(&format!("{answer}/{part}"), migrations).await
    }

    /// The same as [`fresh`](Self::fresh), on a server of the experiment's own.
    pub async fn fresh_on(
        server: &str,
        answer: &str,
        migrations: &Migrator,
    ) -> anyhow::Result<Self> {
        Ok(Self::copy(server, answer, migrations).await?.0)
    }

    async fn copy(
        server: &str,
        answer: &str,
        migrations: &Migrator,
    ) -> anyhow::Result<(Self, Template)> {
        let mut admin = Admin::connect(server).await?;
        let template = Template::of(&admin, answer, migrations);
        let name = random_name(Kind::Fresh);
        // Whatever goes wrong from here on, the database is dropped, or its claim names it.
        let fresh = Self {
            url: with_database(server, &name)?,
            server: server.to_owned(),
            claim: Some(make::claim(server, &name)?),
            name,
        };
        template.copy_to(&mut admin, server, &fresh.name, migrations).await?;
        admin.close().await?;
        Ok((fresh, template))
    }

    /// Its name on the server.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A small pool of connections to it.
    pub async fn pool(&self) -> anyhow::Result<PgPool> {
        Ok(PgPoolOptions::new().max_connections(5).connect(&self.url).await?)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (name, server, claim) = (self.name.clone(), self.server.clone(), self.claim.take());
        farewell(&self.name, async move {
            let mut admin = Admin::connect(&server).await?;
            admin.drop(&name).await?;
            if let Some(claim) = claim {
                claim.release();
            }
            admin.close().await
        });
    }
}
