//! Redis, 7 or 8.

use anyhow::Context;
use redis::aio::MultiplexedConnection;

use super::{About, Container, Launch, Packages, text};
use crate::stack::{
    home::Home,
    programs::{Programs, installed, programs},
};

pub(super) const ABOUT: About = About {
    name: "Redis",
    word: "redis",
    variable: "REDIS_URL",
    schemes: &["redis", "rediss"],
    packages: Packages { debian: "redis-server", fedora: "redis", brew: "redis" },
    image: Some("redis:8.2.1"),
    container: Some(Container {
        port: 6379,
        data: "/data",
        environment: &[],
        config: Some((
            "/redis.conf",
            "port 6379\nrequirepass {password}\nappendonly yes\nsave \"\"\ndir /data\n",
        )),
        // Not the image's script: it changes the user, and that user could not read the configuration.
        options: &["--entrypoint", "redis-server"],
        arguments: &["/redis.conf"],
    }),
    // With the user's name: for `redis://:password@…`, `redis-cli` would send an empty name.
    compose_url: Some("redis://default:answers@127.0.0.1:63790/"),
    refuses_root: false,
    find: || installed("redis-server").find_map(programs),
    launch: |home, programs, port| Box::pin(async move { launch(home, programs, port) }),
    url,
    greet: |url| Box::pin(greet(url)),
    version: |url| Box::pin(version(url)),
};

fn url(home: &Home) -> anyhow::Result<String> {
    let (port, password) = (home.read("port")?, home.read("password")?);
    Ok(format!("redis://default:{password}@127.0.0.1:{port}/"))
}

/// With an append-only file, so that a reader's data survives a restart.
fn launch(home: &Home, programs: &Programs, port: u16) -> anyhow::Result<Launch> {
    let password = home.password()?;
    let config = format!(
        "bind 127.0.0.1\nport {port}\nrequirepass {password}\nappendonly yes\nsave \"\"\n\
         daemonize no\n"
    );
    let config = home.write("redis.conf", &config)?;
    Launch::new(&programs.server, &[&text(&config)?])
}

async fn connect(url: &str) -> anyhow::Result<MultiplexedConnection> {
    Ok(redis::Client::open(url)?.get_multiplexed_async_connection().await?)
}

async fn greet(url: &str) -> anyhow::Result<()> {
    Ok(redis::cmd("PING").exec_async(&mut connect(url).await?).await?)
}

async fn version(url: &str) -> anyhow::Result<String> {
    let mut connection = connect(url).await?;
    let text: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
    let version = text.lines().find_map(|line| line.strip_prefix("redis_version:"));
    Ok(version.context("INFO has no redis_version")?.to_owned())
}
