//! PostgreSQL, 15 to 18.

use std::{fs, path::Path, process::Stdio};

use anyhow::{Context, bail};
use sqlx::{Connection, PgConnection};
use tokio::process::Command;

use super::{About, Container, Launch, Packages, Stop, text};
use crate::stack::{
    home::Home,
    programs::{Programs, on_path, programs, undisturbed, versions},
};

pub(super) const ABOUT: About = About {
    name: "PostgreSQL",
    word: "postgres",
    variable: "DATABASE_URL",
    schemes: &["postgres", "postgresql"],
    packages: Packages { debian: "postgresql", fedora: "postgresql-server", brew: "postgresql@17" },
    image: Some("postgres:17.6"),
    container: Some(Container {
        port: 5432,
        data: "/var/lib/postgresql/data",
        environment: &[
            ("POSTGRES_PASSWORD", "{password}"),
            ("POSTGRES_INITDB_ARGS", "--encoding=UTF8 --no-locale"),
        ],
        config: None,
        options: &[],
        arguments: &["-c", "max_connections=300"],
    }),
    compose_url: Some("postgres://answers:answers@127.0.0.1:54320/postgres"),
    refuses_root: true,
    find,
    launch: |home, programs, port| Box::pin(launch(home, programs, port)),
    url,
    greet: |url| Box::pin(greet(url)),
    version: |url| Box::pin(version(url)),
};

fn find() -> Option<Programs> {
    on_path("postgres")
        .into_iter()
        .chain(versions("/usr/lib/postgresql", "", "bin/postgres")) // Debian
        .chain(versions("/usr", "pgsql-", "bin/postgres")) // the PostgreSQL project's packages for Fedora
        .chain(versions("/opt/homebrew/opt", "postgresql@", "bin/postgres"))
        .chain(versions("/usr/local/opt", "postgresql@", "bin/postgres")) // Homebrew on Intel
        .chain(versions("/opt/local/lib", "postgresql", "bin/postgres")) // MacPorts
        .chain(["/Applications/Postgres.app/Contents/Versions/latest/bin/postgres".into()])
        .filter_map(programs)
        // Client packages and hand-made links bring a `postgres` without its `initdb`.
        .find(|programs| programs.folder.join("initdb").exists())
}

fn url(home: &Home) -> anyhow::Result<String> {
    let (port, password) = (home.read("port")?, home.read("password")?);
    // This server has no TLS, even if a reader's PGSSLMODE requires it for other servers.
    Ok(format!("postgres://postgres:{password}@127.0.0.1:{port}/postgres?sslmode=disable"))
}

/// The settings for durability stay at their defaults, so that measurements are realistic.
async fn launch(home: &Home, programs: &Programs, port: u16) -> anyhow::Result<Launch> {
    let data = home.path.join("data");
    if !data.exists() {
        initdb(home, programs, &data).await?;
    }
    check_major_version(&data, programs).await?;
    // `running.lock` was free, so the server that wrote this file has ended, even if its pid is in use again.
    let _ = fs::remove_file(data.join("postmaster.pid"));
    let mut launch = Launch::new(&programs.server, &["-D", &text(&data)?])?;
    for setting in [
        format!("port={port}"),
        "listen_addresses=127.0.0.1".into(),
        // The path of a socket is limited to 107 bytes, but the path of a checkout is not.
        "unix_socket_directories=".into(),
        // Every test has a pool of its own.
        "max_connections=300".into(),
    ] {
        launch.command.extend(["-c".into(), setting]);
    }
    // Without LC_ALL, PostgreSQL on macOS may refuse to start, because looking up the locale starts a thread.
    launch.environment.push(("LC_ALL".to_owned(), "C".to_owned()));
    // A fast shutdown, which does not wait for clients to go.
    launch.stop = Stop::Interrupt;
    Ok(launch)
}

/// Makes the data folder under another name and then renames it, so that an incomplete folder is never used.
async fn initdb(home: &Home, programs: &Programs, data: &Path) -> anyhow::Result<()> {
    let made = home.path.join("data.new");
    let _ = fs::remove_dir_all(&made);
    home.password()?;
    let mut initdb = Command::new(programs.folder.join("initdb"));
    undisturbed(initdb.as_std_mut())
        .env("LC_ALL", "C")
        .arg("--pgdata")
        .arg(&made)
        .arg("--pwfile")
        .arg(home.path.join("password"))
        .args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale"])
        // A crash of the machine in the first second costs a second `initdb`, no more.
        .arg("--no-sync")
        .current_dir(&home.path)
        .stdin(Stdio::null());
    if let Some(account) = home.account {
        initdb.uid(account.uid).gid(account.gid);
    }
    let output = initdb.kill_on_drop(true).output().await.context("initdb cannot be run")?;
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
            "the data in {} was made by PostgreSQL {}, but the server is {of_server}: delete the folder, or \
             install the old version again",
            data.display(),
            of_data.trim(),
        );
    }
    Ok(())
}

pub(super) async fn greet(url: &str) -> anyhow::Result<()> {
    Ok(PgConnection::connect(url).await?.close().await?)
}

async fn version(url: &str) -> anyhow::Result<String> {
    let mut connection = PgConnection::connect(url).await?;
    let version: String =
        sqlx::query_scalar("show server_version").fetch_one(&mut connection).await?;
    connection.close().await?;
    // Debian adds its own: `15.18 (Debian 15.18-0+deb12u1)`.
    Ok(version.split(' ').next().unwrap_or_default().to_owned())
}
