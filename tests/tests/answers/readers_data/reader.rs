//! Which data must not change? A reader's, on the reader's own servers, with names that nearly match ours.

use std::collections::HashMap;

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use lab::{
    Service,
    child::{Child, ChildBuilder},
    stack::own::OwnServer,
};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
        QueueBindOptions, QueueDeclareOptions,
    },
    types::FieldTable,
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row};
use url::Url;

use crate::support::Outcome;

/// The database that the reader gives us.
pub const GIVEN: &str = "shop";

/// Databases of the reader's, and their comments.
const DATABASES: [(&str, Option<&str>); 17] = [
    (GIVEN, None),
    ("fresh_produce", None),
    ("fresh_url_shortener_0123456789abcdef", None),
    ("template_url_shortener_0123456789abcdef", None),
    ("template_url_shortener_0123456789abcdef_new", None),
    ("spare_url_shortener_0123456789abcdef_01234567", None),
    ("worked_answers_fresh_produce", Some(r#"{"kind":"fresh","of":"url-shortener","made":0}"#)),
    ("worked_answers_fresh_0123456789abcdef", None),
    ("worked_answers_spare_0123456789abcdef", Some("worked-answers are what I read at night")),
    ("worked_answers_template_0123456789abcdef", Some("mine")),
    ("Fresh \"Produce\"", None),
    ("url_shortener", None),
    ("cache_aside", Some("my own answer")),
    ("notification_worker", None),
    ("saga_orchestrator", None),
    ("shop_inventory", None),
    ("shop_payment", None),
];

/// Queues of the reader's.
const QUEUES: [&str; 8] = [
    "lab.notification-worker.0123456789abcdef.dead",
    "lab.saga.0123456789abcdef.inventory",
    "notifications.dead",
    "saga.inventory",
    "worked-answers",
    "worked-answers.notification-worker.0123456789abcdef.dead",
    "worked-answers.notification-worker.0123456789abcdef.0.high",
    "worked-answers.of-mine.dead",
];

/// Exchanges of the reader's, each bound to the first queue.
const EXCHANGES: [&str; 4] = [
    "lab.notification-worker.0123456789abcdef",
    "notifications",
    "saga.events",
    "worked-answers.notification-worker.0123456789abcdef",
];

/// A reader's servers.
pub struct Reader {
    servers: HashMap<&'static str, OwnServer>,
}

impl Reader {
    /// A reader with these servers, which are empty.
    pub async fn with(services: &[Service]) -> anyhow::Result<Self> {
        let start = services.iter().map(|&service| async move {
            anyhow::Ok((service.variable(), OwnServer::start(service).await?))
        });
        let reader = Self { servers: try_join_all(start).await?.into_iter().collect() };
        reader.sql("postgres", &format!("create database {GIVEN}")).await?;
        Ok(reader)
    }

    /// The value of the variable of this service.
    pub fn url(&self, service: Service) -> anyhow::Result<String> {
        let url = self.servers.get(service.variable()).context("no such server")?.url()?;
        if service == Service::Postgres { self.database(GIVEN) } else { Ok(url) }
    }

    /// The URL of this database.
    pub fn database(&self, name: &str) -> anyhow::Result<String> {
        let server = self.servers.get(Service::Postgres.variable()).context("no PostgreSQL")?;
        let mut url = Url::parse(&server.url()?)?;
        url.set_path(name);
        Ok(url.into())
    }

    /// A child that is given these servers.
    pub fn gives(&self, mut child: ChildBuilder) -> anyhow::Result<ChildBuilder> {
        for service in Service::STACK {
            if self.servers.contains_key(service.variable()) {
                child = child.env(service.variable(), self.url(service)?);
            }
        }
        Ok(child)
    }

    /// Serves an answer on these servers.
    pub async fn serve(&self, answer: &str, options: &[&str]) -> anyhow::Result<Child> {
        self.gives(Child::serve(answer).args(options))?.start().await
    }

    /// A connection to this database.
    async fn connection(&self, database: &str) -> anyhow::Result<PgConnection> {
        Ok(PgConnection::connect(&self.database(database)?).await?)
    }

    /// Runs statements in a database.
    pub async fn sql(&self, database: &str, statements: &str) -> Outcome {
        let mut connection = self.connection(database).await?;
        sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&mut connection).await?;
        Ok(connection.close().await?)
    }

    /// The first column of each row.
    pub async fn rows(&self, database: &str, query: &str) -> anyhow::Result<Vec<String>> {
        let mut connection = self.connection(database).await?;
        let column = first_column(&mut connection, query).await?;
        connection.close().await?;
        Ok(column)
    }

    /// The databases that bear our mark, with their comments.
    pub async fn marked(&self) -> anyhow::Result<Vec<String>> {
        let query = r#"
            select datname || ' ' || shobj_description(oid, 'pg_database')
            from pg_database
            where shobj_description(oid, 'pg_database') like 'worked-answers {%'
            order by datname"#;
        self.rows("postgres", query).await
    }

    /// A connection to Redis.
    pub async fn redis(&self) -> anyhow::Result<redis::aio::MultiplexedConnection> {
        let client = redis::Client::open(self.url(Service::Redis)?)?;
        Ok(client.get_multiplexed_async_connection().await?)
    }

    /// A connection to RabbitMQ.
    pub async fn rabbitmq(&self) -> anyhow::Result<Connection> {
        let url = self.url(Service::RabbitMq)?;
        Ok(Connection::connect(&url, ConnectionProperties::default()).await?)
    }

    /// Creates the reader's databases, keys, queues and exchanges.
    pub async fn plant(&self) -> Outcome {
        self.plant_databases().await?;
        self.plant_keys().await?;
        self.plant_queues().await
    }

    /// Databases with tables whose names are ours, and with a history of migrations that is not.
    pub async fn plant_databases(&self) -> Outcome {
        let plant = DATABASES.map(|(name, comment)| self.plant_database(name, comment));
        try_join_all(plant).await?;
        Ok(())
    }

    async fn plant_database(&self, name: &str, comment: Option<&str>) -> Outcome {
        let quoted = name.replace('"', "\"\"");
        if name != GIVEN {
            self.sql("postgres", &format!("create database \"{quoted}\"")).await?;
        }
        let mut statements = r#"
            create table _sqlx_migrations (version bigint, mine text);
            insert into _sqlx_migrations values (1, 'not yours');
            create table links (code text primary key, url text);
            insert into links select n, 'https://example.com/' || n from generate_series(1, 9) n;
            create table users (id serial, name text);
            insert into users (name) values ('Ada'), (null);
            "#
        .to_owned();
        if let Some(comment) = comment {
            statements.push_str(&format!("comment on database \"{quoted}\" is '{comment}'"));
        }
        self.sql(name, &statements).await
    }

    async fn plant_keys(&self) -> Outcome {
        let mut redis = self.redis().await?;
        redis::pipe()
            .cmd("SET")
            .arg("lab:some:0123456789abcdef:key")
            .arg("mine")
            .cmd("SET")
            .arg("lab:x")
            .arg(7)
            .arg("EX")
            .arg(86_400)
            .cmd("RPUSH")
            .arg("worked-answers:cache-aside:0123456789abcdef:key")
            .arg(1)
            .arg(2)
            .cmd("SADD")
            .arg("worked-answers")
            .arg("a")
            .arg("b")
            .cmd("SET")
            .arg("worked-answers-of-mine:owners")
            .arg("me")
            .cmd("HSET")
            .arg("user:1")
            .arg("name")
            .arg("Ada")
            .cmd("SET")
            .arg("user:2")
            .arg("2\n{\"id\":2}")
            .arg("EX")
            .arg(86_400)
            .cmd("ZADD")
            .arg("rate-limiter:{x}:gcra:tat")
            .arg(1)
            .arg("x")
            .cmd("SET")
            .arg("jwt-auth:denied:x")
            .arg(b"\xff\x00")
            .cmd("XADD")
            .arg("notifications:user:1")
            .arg("1-1")
            .arg("k")
            .arg("v")
            .cmd("SELECT")
            .arg(1)
            .cmd("SET")
            .arg("lab:some:0123456789abcdef:key")
            .arg("in another part")
            .cmd("SELECT")
            .arg(0)
            .exec_async(&mut redis)
            .await?;
        Ok(())
    }

    async fn plant_queues(&self) -> Outcome {
        let connection = self.rabbitmq().await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        for queue in QUEUES {
            let options = QueueDeclareOptions { durable: true, ..Default::default() };
            channel.queue_declare(queue.into(), options, FieldTable::default()).await?;
            for message in ["one", "two"] {
                publish(&channel, "", queue, &format!("{message} for {queue}")).await?;
            }
        }
        for exchange in EXCHANGES {
            let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
            let nothing = FieldTable::default();
            channel
                .exchange_declare(exchange.into(), ExchangeKind::Topic, options, nothing)
                .await?;
            let (options, nothing) = (QueueBindOptions::default(), FieldTable::default());
            channel
                .queue_bind(QUEUES[0].into(), exchange.into(), "#".into(), options, nothing)
                .await?;
        }
        Ok(connection.close(200, "goodbye".into()).await?)
    }

    /// Everything on the servers that is not marked as ours, one line for each thing.
    pub async fn everything(&self) -> anyhow::Result<Vec<String>> {
        let mut all = self.databases().await?;
        all.extend(self.keys().await?);
        all.extend(self.queues().await?);
        Ok(all)
    }

    /// Every database without our mark: its owner, and every row of every table with its physical place and the
    /// transaction that wrote it.
    pub async fn databases(&self) -> anyhow::Result<Vec<String>> {
        let foreign = r#"
            select to_jsonb(d)::text || coalesce(shobj_description(oid, 'pg_database'), '')
            from (select oid, datname, datdba, datconnlimit, datacl from pg_database) d
            where coalesce(shobj_description(oid, 'pg_database'), '') not like 'worked-answers {%'
            order by datname"#;
        let mut all = self.rows("postgres", foreign).await?;
        let names = DATABASES.map(|(name, _)| name).into_iter().chain(["postgres", "template1"]);
        // At once: to connect takes much longer than to read.
        all.extend(try_join_all(names.map(|name| self.contents(name))).await?.concat());
        Ok(all)
    }

    /// Every row of every table of this database.
    async fn contents(&self, name: &str) -> anyhow::Result<Vec<String>> {
        let tables = r#"
            select schemaname || '.' || tablename
            from pg_tables
            where schemaname not in ('pg_catalog', 'information_schema')
            order by 1"#;
        let (mut connection, mut all) = (self.connection(name).await?, Vec::new());
        for table in first_column(&mut connection, tables).await? {
            let rows = format!("select ctid || ' ' || xmin || ' ' || t::text from {table} t");
            for row in first_column(&mut connection, &rows).await? {
                all.push(format!("{name} {table} {row}"));
            }
        }
        connection.close().await?;
        Ok(all)
    }

    /// The reader's keys, as Redis itself would save them, and when they expire.
    async fn keys(&self) -> anyhow::Result<Vec<String>> {
        let (mut redis, mut all) = (self.redis().await?, Vec::new());
        for part in [0, 1] {
            redis::cmd("SELECT").arg(part).exec_async(&mut redis).await?;
            let mut keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut redis).await?;
            keys.sort();
            for key in keys {
                let ours =
                    key.starts_with("worked-answers:") && !key.ends_with("0123456789abcdef:key");
                if !ours {
                    let value: Vec<u8> =
                        redis::cmd("DUMP").arg(&key).query_async(&mut redis).await?;
                    let ends: i64 =
                        redis::cmd("PEXPIRETIME").arg(&key).query_async(&mut redis).await?;
                    all.push(format!("redis {part} {key} {ends} {value:?}"));
                }
            }
        }
        Ok(all)
    }

    /// The reader's queues and what is in them, and that the exchanges are there.
    async fn queues(&self) -> anyhow::Result<Vec<String>> {
        let connection = self.rabbitmq().await?;
        let mut all = Vec::new();
        for queue in QUEUES {
            // Messages that were not acknowledged go back, in order, when the channel is closed.
            let channel = connection.create_channel().await?;
            while let Some(message) =
                channel.basic_get(queue.into(), BasicGetOptions::default()).await?
            {
                all.push(format!("{queue}: {}", String::from_utf8_lossy(&message.data)));
            }
            channel.close(200, "goodbye".into()).await?;
        }
        let channel = connection.create_channel().await?;
        for exchange in EXCHANGES {
            let options = ExchangeDeclareOptions { passive: true, ..Default::default() };
            let nothing = FieldTable::default();
            channel
                .exchange_declare(exchange.into(), ExchangeKind::Topic, options, nothing)
                .await?;
            all.push(format!("exchange {exchange}"));
        }
        connection.close(200, "goodbye".into()).await?;
        Ok(all)
    }

    /// Whether a message still goes through each exchange to the queue that is bound to it. This adds messages, so
    /// it comes last.
    pub async fn bindings_work(&self) -> Outcome {
        let connection = self.rabbitmq().await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        for exchange in EXCHANGES {
            publish(&channel, exchange, "any", "through").await?;
        }
        Ok(connection.close(200, "goodbye".into()).await?)
    }
}

/// The first column of each row.
async fn first_column(connection: &mut PgConnection, query: &str) -> anyhow::Result<Vec<String>> {
    let rows = sqlx::raw_sql(AssertSqlSafe(query.to_owned())).fetch_all(connection).await?;
    rows.into_iter().map(|row| Ok(row.try_get::<Option<_>, _>(0)?.unwrap_or_default())).collect()
}

/// Publishes a message that has to reach a queue.
async fn publish(channel: &Channel, exchange: &str, key: &str, body: &str) -> Outcome {
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let properties = BasicProperties::default().with_delivery_mode(2);
    let sent =
        channel.basic_publish(exchange.into(), key.into(), options, body.as_bytes(), properties);
    let confirmation = sent.await?.await?;
    ensure!(matches!(confirmation, lapin::Confirmation::Ack(None)), "{exchange}: {confirmation:?}");
    Ok(())
}
