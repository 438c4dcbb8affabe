//! How does everyone get a database of their own in milliseconds? It is copied from a migrated template.
//!
//! Invariant: a fresh database is in use exactly as long as an advisory lock on its name is held. When
//! its process is killed PostgreSQL drops the lock, and the next process drops the database.

use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::{Context, anyhow, bail};
use sqlx::{
    AssertSqlSafe, Connection, PgConnection, PgPool,
    migrate::{MigrateError, Migrator},
    postgres::PgPoolOptions,
};
use tokio::sync::OnceCell;
use url::Url;

use crate::{
    Service,
    farewell::farewell,
    stack::{self, Source},
};

const FRESH: &str = "fresh_";
const TEMPLATE: &str = "template_";
const SPARE: &str = "spare_";
/// How many copies of a template are made ahead. Copying takes 0.1 s, taking a copy takes milliseconds.
const SPARES: usize = 4;

/// A database for one test or one experiment, dropped with this value.
#[derive(Debug)]
pub struct Database {
    name: String,
    url: String,
    server: String,
    /// Holds the lock on the name.
    _lock: PgConnection,
}

impl Database {
    /// A database on the shared server, with the schema.
    pub async fn fresh(answer: &str, migrations: &Migrator) -> anyhow::Result<Self> {
        let server = stack::server(Service::Postgres).await?.url;
        static LEFT_BEHIND: OnceCell<()> = OnceCell::const_new();
        LEFT_BEHIND.get_or_try_init(|| drop_what_was_left(&server)).await?;
        let fresh = Self::fresh_on(&server, answer, migrations).await?;
        make_spares(server, answer.to_owned(), schema_name(answer, migrations));
        Ok(fresh)
    }

    /// A database for one of several services of an answer, with that service's schema.
    pub async fn fresh_part(
        answer: &str,
        part: &str,
        migrations: &Migrator,
    ) -> anyhow::Result<Self> {
        // The part comes first: copies made ahead of a name that begins like another's would be taken for
        // copies with a schema that is no more.
        Self::fresh(&format!("{part}-of-{answer}"), migrations).await
    }

    /// The same as [`fresh`](Self::fresh), on a server of the experiment's own.
    pub async fn fresh_on(
        server: &str,
        answer: &str,
        migrations: &Migrator,
    ) -> anyhow::Result<Self> {
        let mut admin = PgConnection::connect(server).await?;
        let schema = schema_name(answer, migrations);
        let name = format!("{FRESH}{}_{:016x}", identifier(answer), rand::random::<u64>());
        // The lock comes before the database, so that nobody takes it for one left behind.
        lock(&mut admin, &name).await?;
        if !take_spare(&mut admin, &schema, &name).await? {
            make_template(&mut admin, server, &schema, migrations).await?;
            execute(&mut admin, format!("create database {name} template {TEMPLATE}{schema}"))
                .await
                .context("cannot create a database; the user needs the right CREATEDB")?;
        }
        Ok(Self {
            url: with_database(server, &name)?,
            name,
            server: server.to_owned(),
            _lock: admin,
        })
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
        let (name, server) = (self.name.clone(), self.server.clone());
        let drop_it = async move {
            let mut admin = PgConnection::connect(&server).await?;
            execute(&mut admin, format!("drop database if exists {name} with (force)")).await?;
            anyhow::Ok(())
        };
        farewell(&self.name, drop_it);
    }
}

/// The database in which `serve` keeps what a reader makes. Where `DATABASE_URL` is set, it is that one;
/// otherwise one with the answer's name, made on first use. `reset` empties it first.
pub async fn kept(answer: &str, migrations: &Migrator, reset: bool) -> anyhow::Result<String> {
    let server = stack::server(Service::Postgres).await?;
    if server.source == Source::Given {
        if reset {
            bail!("--reset is not for a database that you gave: empty it yourself");
        }
        migrate(&server.url, migrations).await?;
        return Ok(server.url);
    }
    beside(&server.url, &identifier(answer), migrations, reset).await
}

/// A further database that `serve` keeps, for an answer of several services: it lies beside the answer's own
/// one, whose name it bears with `_<part>` behind it, also where `DATABASE_URL` is set.
pub async fn kept_part(
    answer: &str,
    part: &str,
    migrations: &Migrator,
    reset: bool,
) -> anyhow::Result<String> {
    let server = stack::server(Service::Postgres).await?;
    if server.source != Source::Given {
        let name = format!("{}_{}", identifier(answer), identifier(part));
        return beside(&server.url, &name, migrations, reset).await;
    }
    if reset {
        bail!("--reset is not for a database that you gave: empty it yourself");
    }
    let url = Url::parse(&server.url)?;
    let given = url.path().trim_start_matches('/');
    if !given.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
        bail!("cannot make a database beside {given:?}: only a-z, 0-9 and _ may be in its name");
    }
    beside(&server.url, &format!("{given}_{}", identifier(part)), migrations, false).await
}

/// A database of this name on the same server, made on first use and migrated. `reset` empties it first.
async fn beside(
    server: &str,
    name: &str,
    migrations: &Migrator,
    reset: bool,
) -> anyhow::Result<String> {
    let url = with_database(server, name)?;
    let mut admin = PgConnection::connect(server).await?;
    lock(&mut admin, name).await?;
    if reset {
        execute(&mut admin, format!("drop database if exists {name} with (force)")).await?;
    }
    if !exists(&mut admin, name).await? {
        execute(&mut admin, format!("create database {name}"))
            .await
            .context("cannot create a database; the user needs the right CREATEDB")?;
    }
    migrate(&url, migrations).await?;
    // Closing the connection gives the lock back.
    admin.close().await?;
    Ok(url)
}

/// Brings a database to the newest schema, or says what a reader who changed a migration can do.
pub async fn migrate(url: &str, migrations: &Migrator) -> anyhow::Result<()> {
    let pool = PgPoolOptions::new().max_connections(1).connect(url).await?;
    let outcome = migrations.run(&pool).await;
    // Closed before anybody copies this database: a template must have no other users.
    pool.close().await;
    match outcome {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMismatch(version) | MigrateError::VersionMissing(version)) => {
            Err(anyhow!(
                "migration {version} was changed after this database had been made with it. Either \
                 undo the change and add a new migration, or start again with `serve --reset`, which \
                 deletes what the database holds"
            ))
        }
        Err(error) => Err(error).context("cannot migrate the database"),
    }
}

/// The answer, and a fingerprint of its migrations: what is named after it has exactly this schema.
fn schema_name(answer: &str, migrations: &Migrator) -> String {
    let mut hasher = DefaultHasher::new();
    for migration in migrations.iter() {
        migration.checksum.hash(&mut hasher);
    }
    format!("{}_{:016x}", identifier(answer), hasher.finish())
}

/// Makes the migrated database that fresh ones are copied from, if nobody has.
async fn make_template(
    admin: &mut PgConnection,
    server: &str,
    schema: &str,
    migrations: &Migrator,
) -> anyhow::Result<()> {
    let name = format!("{TEMPLATE}{schema}");
    lock(admin, &name).await?;
    if !exists(admin, &name).await? {
        let unfinished = format!("{name}_new");
        execute(admin, format!("drop database if exists {unfinished} with (force)")).await?;
        execute(admin, format!("create database {unfinished}")).await?;
        migrate(&with_database(server, &unfinished)?, migrations).await?;
        execute(admin, format!("alter database {unfinished} rename to {name}")).await?;
    }
    unlock(admin, &name).await
}

/// Takes a copy that was made ahead, if there is one.
async fn take_spare(admin: &mut PgConnection, schema: &str, name: &str) -> anyhow::Result<bool> {
    for spare in databases(admin, &format!("{SPARE}{schema}")).await? {
        // Fails if another process has just taken it.
        if execute(admin, format!("alter database {spare} rename to {name}")).await.is_ok() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Makes copies for those who come next, on a thread that nobody waits for. If the process ends
/// meanwhile, PostgreSQL finishes the copy or undoes it.
fn make_spares(server: String, answer: String, schema: String) {
    let make = async move {
        let mut admin = PgConnection::connect(&server).await?;
        let spares = format!("{SPARE}{schema}");
        lock(&mut admin, &spares).await?;
        // Copies with a schema that is no more.
        for old in databases(&mut admin, &format!("{SPARE}{}_", identifier(&answer))).await? {
            if !old.starts_with(&spares) {
                execute(&mut admin, format!("drop database if exists {old}")).await?;
            }
        }
        for _ in databases(&mut admin, &spares).await?.len()..SPARES {
            let spare = format!("{spares}_{:08x}", rand::random::<u32>());
            execute(&mut admin, format!("create database {spare} template {TEMPLATE}{schema}"))
                .await?;
        }
        anyhow::Ok(())
    };
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        if let Err(error) = runtime.block_on(make) {
            tracing::debug!(%error, "no copy was made ahead");
        }
        anyhow::Ok(())
    });
}

/// Drops the fresh databases that no living process holds.
async fn drop_what_was_left(server: &str) -> anyhow::Result<()> {
    let mut admin = PgConnection::connect(server).await?;
    for name in databases(&mut admin, FRESH).await? {
        let free: bool = sqlx::query_scalar("select pg_try_advisory_lock(hashtextextended($1, 0))")
            .bind(&name)
            .fetch_one(&mut admin)
            .await?;
        if free {
            execute(&mut admin, format!("drop database if exists {name} with (force)")).await?;
        }
    }
    Ok(admin.close().await?)
}

/// Waits for the lock on a name and holds it until the connection ends.
async fn lock(admin: &mut PgConnection, name: &str) -> anyhow::Result<()> {
    sqlx::query("select pg_advisory_lock(hashtextextended($1, 0))")
        .bind(name)
        .execute(admin)
        .await?;
    Ok(())
}

async fn unlock(admin: &mut PgConnection, name: &str) -> anyhow::Result<()> {
    sqlx::query("select pg_advisory_unlock(hashtextextended($1, 0))")
        .bind(name)
        .execute(admin)
        .await?;
    Ok(())
}

/// The names of the databases that begin like this.
async fn databases(admin: &mut PgConnection, prefix: &str) -> anyhow::Result<Vec<String>> {
    let query = "select datname::text from pg_database where starts_with(datname::text, $1)";
    Ok(sqlx::query_scalar(query).bind(prefix).fetch_all(admin).await?)
}

async fn exists(admin: &mut PgConnection, name: &str) -> anyhow::Result<bool> {
    Ok(sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(name)
        .fetch_one(admin)
        .await?)
}

/// Database names cannot be bound. Ours are made of letters, digits and underscores only.
async fn execute(admin: &mut PgConnection, sql: String) -> anyhow::Result<()> {
    sqlx::query(AssertSqlSafe(sql)).execute(admin).await?;
    Ok(())
}

fn identifier(answer: &str) -> String {
    answer.replace('-', "_")
}

fn with_database(server: &str, name: &str) -> anyhow::Result<String> {
    let mut url = Url::parse(server)?;
    url.set_path(name);
    Ok(url.into())
}
