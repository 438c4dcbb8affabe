//! Where do the real servers come from? From the first source that has them, each server on its own:
//!
//! 1. `given`: `DATABASE_URL`, `REDIS_URL`, `AMQP_URL`, in the environment or in `.env`;
//! 2. `compose`: the `docker-compose.yml` stack, if it is up;
//! 3. `private`: the installed `programs`, run under `target/stack/`;
//! 4. `compose` again, brought up, if there is a container engine;
//! 5. `install`: `apt-get`, as root on Debian and its kin, and then 3;
//! 6. otherwise an error that names what is missing and how this system gets it.
//!
//! Invariant: a URL that is set is used or is an error; nothing ever falls through to another server.

pub mod compose;
mod given;
mod home;
mod install;
mod launch;

pub mod own;
mod private;
mod probe;
mod programs;

pub(crate) use home::parent as folder;
pub use home::workspace;

use std::{fmt, fs::File, sync::Arc};

use anyhow::{Context, bail};
use futures_util::future::join_all;
use serde::Serialize;
use tokio::sync::Mutex;

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// PostgreSQL 15 to 18.
    Postgres,
    /// Redis 7 or 8.
    Redis,
    /// RabbitMQ 3.10 to 4.x.
    RabbitMq,
}

impl Service {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Postgres, Self::Redis, Self::RabbitMq];

    /// The variable that gives its URL.
    pub fn variable(self) -> &'static str {
        match self {
            Self::Postgres => "DATABASE_URL",
            Self::Redis => "REDIS_URL",
            Self::RabbitMq => "AMQP_URL",
        }
    }

    /// Its name in files, and as a service of `docker-compose.yml`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::RabbitMq => "rabbitmq",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Postgres => "PostgreSQL",
            Self::Redis => "Redis",
            Self::RabbitMq => "RabbitMQ",
        })
    }
}

/// Where a server was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Its URL was set.
    Given,
    /// The Compose stack.
    Compose,
    /// A private server of this workspace.
    Private,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Given => "given",
            Self::Compose => "compose",
            Self::Private => "private",
        })
    }
}

/// A server that answered.
#[derive(Clone, Debug)]
pub struct Server {
    /// What it is.
    pub kind: Service,
    /// Its address, with credentials.
    pub url: String,
    /// Where it was found.
    pub source: Source,
    /// The claim on a private server: while it is open, the server stays.
    user: Option<Arc<File>>,
}

impl Server {
    /// Its name and version, asked of the server itself: `PostgreSQL 15.18`.
    pub async fn version(&self) -> anyhow::Result<String> {
        probe::version(self.kind, &self.url).await
    }

    /// Whether it can still be used. A private one may have been stopped by `stack down`.
    fn lives(&self) -> anyhow::Result<bool> {
        match self.user {
            Some(_) => home::Home::shared(self.kind)?.is_running(),
            None => Ok(true),
        }
    }
}

/// The servers that this process uses. Each has a lock of its own, so they start side by side.
static USED: [Mutex<Option<Server>>; 3] = [const { Mutex::const_new(None) }; 3];

/// The server of this kind: found or started by the first caller, shared by all others.
pub async fn server(kind: Service) -> anyhow::Result<Server> {
    let mut used = USED[kind as usize].lock().await;
    if let Some(server) = used.as_ref()
        && server.lives()?
    {
        return Ok(server.clone());
    }
    let server = find(kind).await?;
    *used = Some(server.clone());
    Ok(server)
}

async fn find(kind: Service) -> anyhow::Result<Server> {
    let server = |url, source| Server { kind, url, source, user: None };
    if let Some(url) = given::url(kind)? {
        probe::answers(kind, &url).await.with_context(|| {
            format!("{} is set to {}, which does not answer", kind.variable(), masked(&url))
        })?;
        announce(kind, format_args!("using {} ({})", kind.variable(), masked(&url)));
        return Ok(server(url, Source::Given));
    }
    if compose::is_up(kind).await {
        announce(kind, "using the Compose stack");
        return Ok(server(compose::url(kind), Source::Compose));
    }
    if programs::find(kind).is_none() {
        if compose::engine_answers().await {
            compose::up(kind).await?;
            return Ok(server(compose::url(kind), Source::Compose));
        }
        install::install(kind).await?;
    }
    let Some(programs) = programs::find(kind) else {
        bail!("{kind} was installed, and still its programs are not to be found");
    };
    let (url, user) = private::join(kind, &programs).await?;
    Ok(Server { kind, url, source: Source::Private, user: Some(Arc::new(user)) })
}

/// Finds or starts the given servers, side by side.
pub async fn up(kinds: &[Service]) -> anyhow::Result<Vec<Server>> {
    // Not `try_join_all`: the failure of one must not cut another's start short.
    join_all(kinds.iter().map(|&kind| server(kind))).await.into_iter().collect()
}

/// Stops the private servers, whoever uses them. Returns those that ran.
pub async fn down() -> anyhow::Result<Vec<Service>> {
    let stopped = join_all(Service::ALL.map(private::stop)).await;
    let stopped: Vec<bool> = stopped.into_iter().collect::<anyhow::Result<_>>()?;
    Ok(Service::ALL
        .into_iter()
        .zip(stopped)
        .filter_map(|(kind, ran)| ran.then_some(kind))
        .collect())
}

/// The state of one server, for a person.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Which server.
    pub kind: String,
    /// `running`, `stopped` (it starts when it is needed) or `missing`.
    pub state: &'static str,
    /// `given`, `compose`, `private`; what would be used, if it does not run.
    pub source: String,
    /// Its address without the password, or what is wrong.
    pub address: String,
}

/// Looks at every server and starts none.
pub async fn status() -> Vec<Status> {
    join_all(Service::ALL.map(|kind| async move {
        let (state, source, address) = look(kind)
            .await
            .unwrap_or_else(|error| ("missing", Source::Given.to_string(), format!("{error:#}")));
        Status { kind: kind.to_string(), state, source, address }
    }))
    .await
}

async fn look(kind: Service) -> anyhow::Result<(&'static str, String, String)> {
    if let Some(url) = given::url(kind)? {
        let error = probe::answers(kind, &url).await.err();
        let state = if error.is_none() { "running" } else { "missing" };
        return Ok((state, Source::Given.to_string(), masked(&url)));
    }
    if compose::is_up(kind).await {
        return Ok(("running", Source::Compose.to_string(), masked(&compose::url(kind))));
    }
    let source = Source::Private.to_string();
    let home = home::Home::shared(kind)?;
    if home.is_running()? {
        let address = home.url().map_or_else(|_| "starting".to_owned(), |url| masked(&url));
        return Ok(("running", source, address));
    }
    Ok(match programs::find(kind) {
        Some(_) => ("stopped", source, "starts when it is needed".to_owned()),
        None => ("missing", source, "is installed when it is needed".to_owned()),
    })
}

/// The URL without its password.
pub fn masked(url: &str) -> String {
    match url::Url::parse(url) {
        Ok(mut parsed) if parsed.password().is_some() => {
            // Fails only for URLs that cannot have a password, and this one has one.
            let _ = parsed.set_password(Some("…"));
            parsed.to_string().replace("%E2%80%A6", "…")
        }
        _ => url.to_owned(),
    }
}

/// A progress line. Standard error, because standard output belongs to the reports.
fn announce(kind: Service, what: impl fmt::Display) {
    eprintln!("  {kind:<10}  {what}");
}
