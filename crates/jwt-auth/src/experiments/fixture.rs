//! What do tests, experiments and cases start from? A fresh database, and the service on it as a process of its own.

use lab::{
    Lab, Service,
    child::{Child, ChildBuilder},
    database::Database,
};

use crate::{cases::client::Client, store::MIGRATIONS};

const NAME: &str = "jwt-auth";
/// Options that make passwords cheap to hash, where it does not matter how long a guess takes.
pub const CHEAP: [&str; 4] = ["--argon2-memory", "64", "--argon2-passes", "1"];

/// A fresh database. It is dropped with this value, so this has to outlive its services.
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

    /// Prepares a service on this database.
    pub fn serve(&self) -> ChildBuilder {
        Child::serve(NAME).database(&self.database)
    }

    /// Starts a service with cheap passwords and these options; and a client of it.
    pub async fn start(&self, options: &[&str]) -> anyhow::Result<(Child, Client)> {
        start(self.serve().args(&CHEAP).args(options)).await
    }

    /// The names and the private keys of the issuer, as a thief finds them in the database; the newest comes last.
    pub async fn stolen_keys(&self) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let pool = self.database.pool().await?;
        let keys = sqlx::query_as("select kid, private_key from signing_keys order by signs_from")
            .fetch_all(&pool)
            .await?;
        pool.close().await;
        Ok(keys)
    }
}

/// Starts a service that has been prepared; and a client of it.
pub async fn start(service: ChildBuilder) -> anyhow::Result<(Child, Client)> {
    let child = service.start().await?;
    let client = Client::at(child.url())?;
    Ok((child, client))
}

/// Prepares a service that has the key set of this issuer and nothing else: it could reach no database if it tried.
pub fn verifier(issuer: &str) -> ChildBuilder {
    let nowhere = "postgres://nobody@127.0.0.1:1/nothing";
    let key_set = format!("{issuer}/.well-known/jwks.json");
    Child::serve(NAME).env("DATABASE_URL", nowhere).args(&["--jwks", &key_set])
}
