//! What do tests, experiments and cases start from? A fresh database, a fresh part of Redis, and programs in front of
//! them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Parser;
use conform::target::eventually;
use lab::{
    Lab, Service,
    child::{Child, ChildBuilder},
    database::Database,
    keys::Keys,
};
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tokio::time::sleep;

use crate::{
    MIGRATIONS,
    cases::client::Client,
    link::Address,
    service::{Service as Running, Tuning},
    store::Store,
    user::UserId,
};

/// Options for tests that try no time-out: a busy machine must not run into one.
pub const CALM: [&str; 4] = ["--redis-timeout", "3", "--database-timeout", "10"];

/// Options with time enough for everything. What is seen then does not depend on the machine's speed.
pub const NO_TIMEOUTS: [&str; 6] =
    ["--trust", "60", "--redis-timeout", "20", "--database-timeout", "60"];

/// A fresh database and a fresh part of Redis. They are deleted with this value, so it has to outlive its programs.
#[derive(Debug)]
pub struct Fixture {
    /// No users are in it at first.
    pub database: Database,
    /// Where Redis is.
    pub redis_url: String,
    /// What every key begins with.
    pub key_prefix: String,
    /// Deletes the keys in the end, if Redis is shared.
    _keys: Option<Keys>,
}

impl Fixture {
    /// A fresh database, and a part of the shared Redis.
    pub async fn fresh() -> anyhow::Result<Self> {
        let keys = Keys::fresh("cache-aside").await?;
        let (redis_url, key_prefix) = (keys.url().to_owned(), keys.prefix().to_owned());
        let database = Database::fresh("cache-aside", &MIGRATIONS).await?;
        Ok(Self { database, redis_url, key_prefix, _keys: Some(keys) })
    }

    /// The same for an experiment, whose report names the servers.
    pub async fn of(lab: &Lab) -> anyhow::Result<Self> {
        lab.server(Service::Postgres).await?;
        lab.server(Service::Redis).await?;
        Self::fresh().await
    }

    /// A fresh database, and a Redis of the experiment's own.
    pub async fn with_redis(lab: &Lab, redis_url: String) -> anyhow::Result<Self> {
        let database = lab.database().await?;
        Ok(Self { database, redis_url, key_prefix: String::new(), _keys: None })
    }

    /// Prepares a process on these servers.
    pub fn serve(&self) -> ChildBuilder {
        self.serve_through(&self.redis_url)
    }

    /// Prepares a process on these servers, with this way to Redis.
    pub fn serve_through(&self, redis_url: &str) -> ChildBuilder {
        // In the environment and not as an option, so that the whiteboard version finds it too.
        let serve = Child::serve("cache-aside").database(&self.database);
        serve.env("REDIS_URL", redis_url).args(&["--key-prefix", &self.key_prefix])
    }

    /// Starts a [`CALM`] process with these options, waits until it believes Redis, and returns it with a client.
    pub async fn start(&self, options: &[&str]) -> anyhow::Result<(Child, Client)> {
        let child = self.serve().args(&CALM).args(options).start().await?;
        let client = believing(&child).await?;
        Ok((child, client))
    }

    /// The defaults, but with [`NO_TIMEOUTS`], for a service within this process.
    pub fn no_timeouts(&self) -> Tuning {
        Tuning {
            key_prefix: self.key_prefix.clone(),
            trust: Duration::from_mins(1),
            redis_timeout: Duration::from_secs(20),
            database_timeout: Duration::from_mins(1),
            ..Self::tuning()
        }
    }

    /// The defaults.
    pub fn tuning() -> Tuning {
        #[derive(Parser)]
        struct Defaults {
            #[command(flatten)]
            tuning: Tuning,
        }
        Defaults::parse_from(["defaults"]).tuning
    }

    /// Starts the service within this process, for experiments that call it as a function. It believes Redis.
    pub async fn app(&self, tuning: &Tuning) -> anyhow::Result<Arc<Running>> {
        let service = Running::start(self.database.url(), &self.redis_url, tuning);
        let service = service.map_err(|error| anyhow::anyhow!("{error}"))?;
        believes(&service).await?;
        Ok(service)
    }

    /// A connection to Redis.
    pub async fn redis(&self) -> anyhow::Result<MultiplexedConnection> {
        let client = redis::Client::open(self.redis_url.as_str())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        connection.set_response_timeout(Duration::from_secs(10));
        Ok(connection)
    }

    /// What every key of a user begins with, in this life of Redis.
    pub async fn keys_of_users(&self) -> anyhow::Result<String> {
        let address = Address::new(&self.redis_url, &self.key_prefix, Duration::from_secs(10), 0)?;
        let store = Store::new(self.database.url(), Duration::from_secs(10))?;
        let (origin, _) = store.pending(1).await?;
        let key = address.link(origin).await?.key(id(1)?);
        Ok(key.trim_end_matches('1').to_owned())
    }

    /// The key of a user, in this life of Redis.
    pub async fn key(&self, id: impl std::fmt::Display) -> anyhow::Result<String> {
        Ok(format!("{}{id}", self.keys_of_users().await?))
    }

    /// The keys that are there.
    pub async fn keys(&self, redis: &mut MultiplexedConnection) -> anyhow::Result<Vec<String>> {
        let all = format!("{}*", self.key_prefix);
        Ok(redis::cmd("KEYS").arg(all).query_async(redis).await?)
    }

    /// Makes users 1 to `count`: user 7 is called `user 7` and reached at `user7@example.org`.
    pub async fn make_users(&self, count: u32) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect(self.database.url()).await?;
        sqlx::query(
            r#"
            insert into users (name, email, email_key)
            select 'user ' || n, 'user' || n || '@example.org', 'user' || n || '@example.org'
            from generate_series(1, $1) as n
            order by n
            "#,
        )
        .bind(i64::from(count))
        .execute(&mut connection)
        .await?;
        // They are in no cache yet.
        sqlx::raw_sql("truncate invalidations; analyze users").execute(&mut connection).await?;
        Ok(connection.close().await?)
    }

    /// How many times the table of users was searched. PostgreSQL counts, not the program.
    ///
    /// A connection may tell what it did only when it ends, so all others must end.
    pub async fn queries(&self) -> anyhow::Result<u64> {
        let mut connection = PgConnection::connect(self.database.url()).await?;
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let others: i64 = sqlx::query_scalar(
                r#"
                select count(*)
                from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid()
                    and backend_type = 'client backend'
                "#,
            )
            .fetch_one(&mut connection)
            .await?;
            if others == 0 {
                break;
            }
            ensure!(Instant::now() < deadline, "{others} connections to the database do not end");
            sleep(Duration::from_millis(10)).await;
        }
        let searches: i64 = sqlx::query_scalar(
            r#"
            select coalesce(seq_scan, 0) + coalesce(idx_scan, 0)
            from pg_stat_user_tables
            where relname = 'users'
            "#,
        )
        .fetch_one(&mut connection)
        .await?;
        connection.close().await?;
        Ok(searches.unsigned_abs())
    }
}

/// The id of the n-th user.
pub fn id(n: u32) -> anyhow::Result<UserId> {
    UserId::parse(&n.to_string()).context("an id")
}

/// The user that [`Fixture::make_users`] has made with this id, under another name.
pub fn renamed(id: i64, name: &str) -> Value {
    json!({ "name": name, "email": format!("user{id}@example.org") })
}

/// Waits until a process believes Redis, and returns a client of it.
pub async fn believing(child: &Child) -> anyhow::Result<Client> {
    let client = Client::at(child.url())?;
    eventually("Redis is believed", async || {
        let ready: Value = client.readiness().await?.json().await?;
        Ok((ready["redis"] == "believed").then_some(()))
    })
    .await?;
    Ok(client)
}

/// Waits until this service believes Redis.
pub async fn believes(service: &Running) -> anyhow::Result<()> {
    let trust = &service.trust;
    eventually("Redis is believed", async || Ok(trust.believed().map(drop))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_that_the_chapter_states() {
        let tuning = Fixture::tuning();
        assert_eq!((tuning.ttl.as_secs(), tuning.absence_ttl.as_secs()), (3_600, 10));
        assert_eq!((tuning.near, tuning.key_prefix.as_str()), (0, "worked-answers:cache-aside:"));
        assert!(tuning.trust / 3 > tuning.redis_timeout);
    }
}
