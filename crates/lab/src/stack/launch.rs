//! How is each server started, and how is it told to stop?

use std::{fs, path::Path};

use anyhow::{Context, bail};
use tokio::process::Command;

use super::{
    Service,
    home::Home,
    programs::{Programs, on_path},
};
use crate::port;

/// A command line, its environment, and the shell words that end what it began.
#[derive(Debug)]
pub struct Launch {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Its environment, beside ours.
    pub environment: Vec<(&'static str, String)>,
    /// Stops the server; `$server` is its pid.
    pub stop: &'static str,
    /// Cleans up after it.
    pub after: String,
}

/// Prepares the data folder and the configuration, and says how to start the server.
pub async fn prepare(home: &Home, programs: &Programs, port: u16) -> anyhow::Result<Launch> {
    match home.kind {
        Service::Postgres => postgres(home, programs, port).await,
        Service::Redis => redis(home, programs, port),
        Service::RabbitMq => rabbitmq(home, programs, port),
    }
}

/// Durability stays at its defaults, so that what is measured is true.
async fn postgres(home: &Home, programs: &Programs, port: u16) -> anyhow::Result<Launch> {
    let data = home.path.join("data");
    if !data.exists() {
        initdb(home, programs, &data).await?;
    }
    check_major_version(&data, programs).await?;
    // `running.lock` was free, so whoever wrote this has gone, even if its pid now belongs to another.
    let _ = fs::remove_file(data.join("postmaster.pid"));
    let mut command = vec![text(&programs.server)?, "-D".into(), text(&data)?];
    for setting in [
        format!("port={port}"),
        "listen_addresses=127.0.0.1".into(),
        // The path of a socket is limited to 107 bytes, that of a checkout is not.
        "unix_socket_directories=".into(),
        // Every test has a pool of its own.
        "max_connections=300".into(),
    ] {
        command.extend(["-c".into(), setting]);
    }
    // SIGINT: a fast shutdown, which does not wait for clients to go.
    Ok(Launch { command, environment: vec![], stop: "kill -INT $server", after: String::new() })
}

/// Made beside its place and moved there, so that a half-made folder is never taken for a whole one.
async fn initdb(home: &Home, programs: &Programs, data: &Path) -> anyhow::Result<()> {
    let made = home.path.join("data.new");
    let _ = fs::remove_dir_all(&made);
    home.password()?;
    let mut initdb = Command::new(programs.folder.join("initdb"));
    initdb
        .arg("--pgdata")
        .arg(&made)
        .arg("--pwfile")
        .arg(home.path.join("password"))
        .args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale"])
        // A crash of the machine in the first second costs a second `initdb`, no more.
        .arg("--no-sync")
        .current_dir(&home.path)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    if let Some(account) = home.account {
        initdb.uid(account.uid).gid(account.gid);
    }
    let output = initdb.output().await.context("initdb cannot be run")?;
    if !output.status.success() {
        bail!("initdb failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(fs::rename(&made, data)?)
}

async fn check_major_version(data: &Path, programs: &Programs) -> anyhow::Result<()> {
    let of_data = fs::read_to_string(data.join("PG_VERSION")).context("no PG_VERSION")?;
    let output = Command::new(&programs.server).arg("--version").output().await?;
    let version = String::from_utf8_lossy(&output.stdout).into_owned();
    let of_server = version.split_whitespace().nth(2).unwrap_or_default();
    if of_server.split('.').next() != Some(of_data.trim()) {
        bail!(
            "the data in {} is PostgreSQL {}'s, the server is {of_server}: delete the folder, or \
             install the old version again",
            data.display(),
            of_data.trim(),
        );
    }
    Ok(())
}

/// An append-only file, so that what a reader made is there on the next day.
fn redis(home: &Home, programs: &Programs, port: u16) -> anyhow::Result<Launch> {
    let password = home.password()?;
    let config = format!(
        "bind 127.0.0.1\nport {port}\nrequirepass {password}\nappendonly yes\nsave \"\"\n\
         daemonize no\n"
    );
    let config = home.write("redis.conf", &config)?;
    let command = vec![text(&programs.server)?, text(&config)?];
    Ok(Launch { command, environment: vec![], stop: "kill -TERM $server", after: String::new() })
}

/// With an `epmd` (Erlang's port mapper) of its own, which outlives the node and is ended after it.
fn rabbitmq(home: &Home, programs: &Programs, port: u16) -> anyhow::Result<Launch> {
    // Left by a node that was killed: its pid may by now be somebody else's.
    let _ = fs::remove_file(home.path.join("rabbitmq.pid"));
    let password = home.password()?;
    let config = format!(
        "listeners.tcp.1 = 127.0.0.1:{port}\ndefault_user = lab\ndefault_pass = {password}\n\
         # A private broker yields to its reader's other programs late, not early.\n\
         disk_free_limit.absolute = 50MB\n"
    );
    let config = home.write("rabbitmq.conf", &config)?;
    let plugins = home.write("enabled_plugins", "[rabbitmq_consistent_hash_exchange].\n")?;
    let (epmd_port, dist_port) = (port::free()?, port::free()?);
    let folder = text(&home.path)?;
    let environment = vec![
        ("HOME", folder.clone()),
        ("RABBITMQ_NODENAME", "lab@localhost".to_owned()),
        ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".to_owned()),
        ("RABBITMQ_NODE_PORT", port.to_string()),
        ("RABBITMQ_DIST_PORT", dist_port.to_string()),
        ("RABBITMQ_MNESIA_BASE", format!("{folder}/mnesia")),
        ("RABBITMQ_LOG_BASE", folder.clone()),
        ("RABBITMQ_LOGS", "-".to_owned()),
        ("RABBITMQ_CONFIG_FILE", text(&config)?),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", text(&plugins)?),
        ("RABBITMQ_PID_FILE", format!("{folder}/rabbitmq.pid")),
        ("ERL_EPMD_PORT", epmd_port.to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
    ];
    let epmd = on_path("epmd").map_or_else(|| Ok("epmd".to_owned()), |path| text(&path))?;
    Ok(Launch {
        command: vec![text(&programs.server)?],
        environment,
        // Its wrapper would start a second Erlang to say goodbye: the node itself takes a SIGTERM.
        stop: "kill -TERM $(cat rabbitmq.pid || echo $server)",
        after: format!("'{epmd}' -port {epmd_port} -kill"),
    })
}

fn text(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(text.to_owned())
}
