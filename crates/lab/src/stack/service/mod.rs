//! What is a service? A server that this workspace can find, start, ask and install. Each service has one file here,
//! with everything that is specific to it; the rest of `stack` is the same for all of them.
//!
//! To add a service, add a file with its `About`, a variant of [`Service`] and a line of `Service::about`.

mod container_engine;
mod etcd;
mod pgbouncer;
mod postgres;
mod rabbitmq;
mod redis;

use std::{fmt, path::Path};

use anyhow::Context;
use futures_util::future::BoxFuture;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::{home::Home, programs::Programs};

/// A server that experiments and answers may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// PostgreSQL 15 to 18.
    Postgres,
    /// Redis 7 or 8.
    Redis,
    /// RabbitMQ 3.10 to 4.x.
    RabbitMq,
    /// etcd 3.4 or later.
    Etcd,
    /// PgBouncer 1.18 or later, in front of a PostgreSQL.
    PgBouncer,
    /// Docker's daemon, which runs containers.
    ContainerEngine,
}

impl Service {
    /// The stack: the servers that answers use, and that `stack up` starts.
    pub const STACK: [Self; 3] = [Self::Postgres, Self::Redis, Self::RabbitMq];

    /// The stack, and the services that only a few experiments need.
    pub const EVERY: [Self; 6] = [
        Self::Postgres,
        Self::Redis,
        Self::RabbitMq,
        Self::Etcd,
        Self::PgBouncer,
        Self::ContainerEngine,
    ];

    /// The details from its file.
    pub(crate) const fn about(self) -> &'static About {
        match self {
            Self::Postgres => &postgres::ABOUT,
            Self::Redis => &redis::ABOUT,
            Self::RabbitMq => &rabbitmq::ABOUT,
            Self::Etcd => &etcd::ABOUT,
            Self::PgBouncer => &pgbouncer::ABOUT,
            Self::ContainerEngine => &container_engine::ABOUT,
        }
    }

    /// Whether only root can run it.
    pub(crate) const fn needs_root(self) -> bool {
        matches!(self, Self::ContainerEngine)
    }

    /// The variable that gives its URL.
    pub const fn variable(self) -> &'static str {
        self.about().variable
    }

    /// The image that `docker-compose.yml` and `docker run` use.
    pub const fn image(self) -> Option<&'static str> {
        self.about().image
    }

    /// The home of the server that the whole workspace shares.
    pub(super) fn shared_home(self) -> anyhow::Result<Home> {
        Home::new(Path::new(self.about().word), self.about().refuses_root)
    }

    /// A home for a server of one experiment's own.
    pub(super) fn own_home(self) -> anyhow::Result<Home> {
        let name = format!("{}-{:08x}", self.about().word, rand::random::<u32>());
        Home::new(&Path::new("own").join(name), self.about().refuses_root)
    }

    /// The newest installed programs.
    pub(crate) fn programs(self) -> Option<Programs> {
        (self.about().find)()
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.about().name)
    }
}

/// Everything that is specific to a service.
pub(crate) struct About {
    /// Its name, for people.
    pub name: &'static str,
    /// Its name in files, and as a service of `docker-compose.yml`.
    pub word: &'static str,
    /// The variable that gives its URL.
    pub variable: &'static str,
    /// What its URL may begin with, the usual one first.
    pub schemes: &'static [&'static str],
    /// Its package on each system.
    pub packages: Packages,
    /// Its image. `docker-compose.yml` has the same one.
    pub image: Option<&'static str>,
    /// How to run the image for an experiment if the service is not installed. `None` if that is not supported.
    pub container: Option<Container>,
    /// Where the Compose stack publishes it. Not the usual ports, which are often taken.
    pub compose_url: Option<&'static str>,
    /// Whether it refuses to run as root. Then an unprivileged user runs it.
    pub refuses_root: bool,
    /// Finds the newest installed programs.
    pub find: fn() -> Option<Programs>,
    /// Prepares its data and its configuration, and says how to start it on this port.
    pub launch: for<'a> fn(&'a Home, &'a Programs, u16) -> BoxFuture<'a, anyhow::Result<Launch>>,
    /// The address of the server that lives in this home.
    pub url: fn(&Home) -> anyhow::Result<String>,
    /// Connects, logs in and disconnects.
    pub greet: for<'a> fn(&'a str) -> BoxFuture<'a, anyhow::Result<()>>,
    /// Asks the server itself for its version.
    pub version: for<'a> fn(&'a str) -> BoxFuture<'a, anyhow::Result<String>>,
}

/// What differs between the images of the services.
pub(crate) struct Container {
    /// Where the server listens inside.
    pub port: u16,
    /// Where it keeps its data inside.
    pub data: &'static str,
    /// Its environment. `{password}` stands for the password.
    pub environment: &'static [(&'static str, &'static str)],
    /// Written to this place inside. `{password}` stands for the password.
    pub config: Option<(&'static str, &'static str)>,
    /// What `docker run` gets before and after the image's name.
    pub options: &'static [&'static str],
    pub arguments: &'static [&'static str],
}

/// The names of a service's packages.
pub(crate) struct Packages {
    pub debian: &'static str,
    pub fedora: &'static str,
    pub brew: &'static str,
}

/// How to start a server, how to stop it, and how to clean up after it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Launch {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Its environment, in addition to the few variables that every server gets.
    pub environment: Vec<(String, String)>,
    /// The signal that tells it to stop.
    pub stop: Stop,
    /// A program and its arguments, run after it has ended.
    pub after: Vec<String>,
    /// The container that it runs in. The command is then only the Docker client.
    pub container: Option<String>,
}

/// A signal that stops a server.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Stop {
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
    /// SIGKILL, to all of its processes: it has nothing to finish, because its data goes too.
    Kill,
}

impl Stop {
    pub(crate) fn signal(self) -> Signal {
        match self {
            Self::Terminate => Signal::TERM,
            Self::Interrupt => Signal::INT,
            Self::Kill => Signal::KILL,
        }
    }

    /// Its name, as `kill` takes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Terminate => "TERM",
            Self::Interrupt => "INT",
            Self::Kill => "KILL",
        }
    }
}

impl Launch {
    /// A program with these arguments, which SIGTERM stops.
    pub fn new(program: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let arguments = arguments.iter().map(|&argument| argument.to_owned());
        Ok(Self {
            command: std::iter::once(text(program)?).chain(arguments).collect(),
            environment: Vec::new(),
            stop: Stop::Terminate,
            after: Vec::new(),
            container: None,
        })
    }
}

/// A path as an argument or as a line of a configuration file.
pub(crate) fn text(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(text.to_owned())
}
