//! etcd, 3.4 or later.

use anyhow::{Context, ensure};
use serde_json::Value;

use super::{About, Launch, Packages, text};
use crate::{
    port,
    stack::{
        home::Home,
        programs::{Programs, installed, programs},
    },
};

pub(super) const ABOUT: About = About {
    name: "etcd",
    word: "etcd",
    variable: "ETCD_URL",
    schemes: &["http", "https"],
    packages: Packages { debian: "etcd-server", fedora: "etcd", brew: "etcd" },
    image: Some("quay.io/coreos/etcd:v3.5.21"),
    container: None,
    compose_url: None,
    refuses_root: false,
    find: || installed("etcd").find_map(programs),
    launch: |home, programs, port| Box::pin(async move { launch(home, programs, port) }),
    // etcd needs no password unless users are enabled, and ours listens on loopback only.
    url: |home| Ok(format!("http://127.0.0.1:{}", home.read("port")?)),
    greet: |url| Box::pin(greet(url)),
    version: |url| Box::pin(version(url)),
};

/// A group of one.
fn launch(home: &Home, programs: &Programs, port: u16) -> anyhow::Result<Launch> {
    let (clients, peers) =
        (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{}", port::free()?));
    let mut launch = Launch::new(&programs.server, &[])?;
    for (name, value) in [
        ("--name", "lab"),
        ("--data-dir", &text(&home.path.join("data"))?),
        ("--listen-client-urls", &clients),
        ("--advertise-client-urls", &clients),
        ("--listen-peer-urls", &peers),
        ("--initial-advertise-peer-urls", &peers),
        ("--initial-cluster", &format!("lab={peers}")),
    ] {
        launch.command.extend([name.to_owned(), value.to_owned()]);
    }
    Ok(launch)
}

async fn ask(url: &str, path: &str) -> anyhow::Result<Value> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("{}/{path}", url.trim_end_matches('/'));
    Ok(client.get(url).send().await?.error_for_status()?.json().await?)
}

/// `/health` is true only if there is a leader.
async fn greet(url: &str) -> anyhow::Result<()> {
    let health = ask(url, "health").await?;
    ensure!(health["health"] == "true", "etcd is not healthy: {health}");
    Ok(())
}

async fn version(url: &str) -> anyhow::Result<String> {
    let version = ask(url, "version").await?;
    Ok(version["etcdserver"].as_str().context("no etcdserver in its version")?.to_owned())
}
