//! Does a server answer, and which version is it? Asked over its own protocol.

use std::time::Duration;

use anyhow::Context;
use sqlx::{Connection, PgConnection};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::Service;

/// A server on loopback that takes longer than this is not one that we could use.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connects, logs in, says goodbye.
pub async fn answers(kind: Service, url: &str) -> anyhow::Result<()> {
    let greeting = async {
        match kind {
            Service::Postgres => PgConnection::connect(url).await?.close().await?,
            Service::Redis => {
                let client = redis::Client::open(url)?;
                let mut connection = client.get_multiplexed_async_connection().await?;
                redis::cmd("PING").exec_async(&mut connection).await?;
            }
            Service::RabbitMq => {
                let properties = lapin::ConnectionProperties::default();
                let connection = lapin::Connection::connect(url, properties).await?;
                connection.close(200, "goodbye".into()).await?;
            }
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, greeting).await.context("it took more than five seconds")?
}

/// The server's name and version.
pub async fn version(kind: Service, url: &str) -> anyhow::Result<String> {
    let version = timeout(PATIENCE, async {
        match kind {
            Service::Postgres => postgres_version(url).await,
            Service::Redis => redis_version(url).await,
            Service::RabbitMq => rabbitmq_version(url).await,
        }
    });
    let version = version.await.with_context(|| format!("{kind} did not tell its version"))??;
    Ok(format!("{kind} {version}"))
}

async fn postgres_version(url: &str) -> anyhow::Result<String> {
    let mut connection = PgConnection::connect(url).await?;
    let version: String =
        sqlx::query_scalar("show server_version").fetch_one(&mut connection).await?;
    connection.close().await?;
    // Debian adds its own: `15.18 (Debian 15.18-0+deb12u1)`.
    Ok(version.split(' ').next().unwrap_or_default().to_owned())
}

async fn redis_version(url: &str) -> anyhow::Result<String> {
    let client = redis::Client::open(url)?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let text: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
    let version = text.lines().find_map(|line| line.strip_prefix("redis_version:"));
    Ok(version.context("INFO has no redis_version")?.to_owned())
}

/// RabbitMQ names its version in the first frame that it sends, before anyone logs in; `lapin` keeps
/// that frame to itself, so it is read here: the key, `S`, four bytes of length, the value.
async fn rabbitmq_version(url: &str) -> anyhow::Result<String> {
    let url = url::Url::parse(url)?;
    let host = url.host_str().context("no host")?;
    let mut stream = TcpStream::connect((host, url.port().unwrap_or(5672))).await?;
    stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
    let mut frame = Vec::new();
    let key = b"\x07versionS";
    loop {
        if let Some(at) = frame.windows(key.len()).position(|window| window == key)
            && let Some((length, value)) = frame[at + key.len()..].split_first_chunk::<4>()
            && let Some(version) = value.get(..u32::from_be_bytes(*length) as usize)
        {
            return Ok(String::from_utf8_lossy(version).into_owned());
        }
        let read = stream.read_buf(&mut frame).await?;
        anyhow::ensure!(read > 0 && frame.len() < 65_536, "no version in its first frame");
    }
}
