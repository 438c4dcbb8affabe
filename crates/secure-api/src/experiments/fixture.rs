//! What do tests, experiments and cases start from? A fresh database, and servers on it.

use conform::target::Target;
use lab::{
    Lab, Service,
    child::{Child, ChildBuilder},
    database::Database,
};
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    cases::client::PASSWORD,
    store::{MIGRATIONS, Store},
    token::{Caller, Role},
};

const NAME: &str = "secure-api";

/// A receiver of webhooks where nobody listens.
pub const NOBODY: &str = "127.0.0.1:9";
/// The secret of the key that signs tokens, as the servers are given it.
pub const KEY: &str = "only for experiments on this machine";

/// A fresh database. It is dropped with this value, so this has to outlive its servers.
#[derive(Debug)]
pub struct Fixture {
    /// With the schema, and nothing in it.
    pub database: Database,
    /// The experiment's own way to look into it.
    pub pool: PgPool,
}

impl Fixture {
    /// For a test, and for the cases.
    pub async fn fresh() -> anyhow::Result<Self> {
        let database = Database::fresh(NAME, &MIGRATIONS).await?;
        let pool = database.pool().await?;
        Ok(Self { database, pool })
    }

    /// For an experiment, whose report names the server.
    pub async fn of(lab: &Lab) -> anyhow::Result<Self> {
        lab.server(Service::Postgres).await?;
        Self::fresh().await
    }

    /// Prepares a server on this database, which takes every number of logins.
    pub fn serve(&self) -> ChildBuilder {
        self.serve_with(&["--logins-per-client", "1000000", "--logins-per-account", "100000"])
    }

    /// Prepares one with these options.
    pub fn serve_with(&self, options: &[&str]) -> ChildBuilder {
        let child = Child::serve(NAME).database(&self.database).args(options);
        child.env("SECURE_API_PASSWORD", PASSWORD).env("SECURE_API_KEY", KEY)
    }

    /// Starts a server that lets webhooks through to this address; and the way to it.
    pub async fn start(&self, receiver: &str) -> anyhow::Result<(Child, Target)> {
        let child = self.serve().args(&["--webhook-allow", receiver]).start().await?;
        let target = Target::new(child.url(), None)?;
        Ok((child, target))
    }

    /// The statements of the answer, on this database.
    pub fn store(&self) -> anyhow::Result<Store> {
        Ok(Store::new(self.database.url())?)
    }

    /// Who has this address.
    pub async fn caller(&self, email: &str) -> anyhow::Result<Caller> {
        let find = sqlx::query_as("select id, customer_id, role from users where email = $1");
        let (user, customer, role): (Uuid, Uuid, Role) =
            find.bind(email).fetch_one(&self.pool).await?;
        Ok(Caller { user, customer, role })
    }

    /// A digest of all rows of this customer: another row, or another value, is another digest.
    pub async fn digest(&self, customer: Uuid) -> anyhow::Result<String> {
        let digest = r#"
            select md5(concat(
                (select string_agg(i::text, ',' order by id) from invoices i where customer_id = $1),
                (select string_agg(a::text, ',' order by id) from attachments a where customer_id = $1),
                (select string_agg(w::text, ',' order by id) from webhooks w where customer_id = $1)))
        "#;
        Ok(sqlx::query_scalar(digest).bind(customer).fetch_one(&self.pool).await?)
    }

    /// How many invoices, attachments and webhooks this customer has.
    pub async fn rows(&self, customer: Uuid) -> anyhow::Result<i64> {
        let count = r#"
            select (select count(*) from invoices where customer_id = $1)
                + (select count(*) from attachments where customer_id = $1)
                + (select count(*) from webhooks where customer_id = $1)
        "#;
        Ok(sqlx::query_scalar(count).bind(customer).fetch_one(&self.pool).await?)
    }
}

/// The id in an answer; nothing if there is none.
pub fn id_of(body: &str) -> Option<String> {
    let body: Value = serde_json::from_str(body).ok()?;
    body["id"].as_str().map(str::to_owned)
}

/// The quarter of an hour in which attempts are counted now.
pub fn quarter() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp() / 900
}
