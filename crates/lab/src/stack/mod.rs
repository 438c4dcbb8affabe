//! Where do the real servers come from? Each server comes from the first source that has it:
//!
//! 1. `given`: `DATABASE_URL`, `REDIS_URL`, `AMQP_URL`, in the environment or in `.env`. If `stack env` has printed the
//!    URL, it is a server of ours, and its source stays the same;
//! 2. `compose`: the `docker-compose.yml` stack, if it is up;
//! 3. `private`: the installed `programs`, run under `target/stack/`;
//! 4. `compose` again, brought up, if there is a container engine;
//! 5. `install`: `apt-get`, as root on Debian and its relatives, and then 3;
//! 6. otherwise an error that names what is missing and how to install it on this system.
//!
//! Invariant: a URL that is set is used, or is an error; we never fall back to another server.

pub mod compose;
mod container;
mod family;
mod given;
mod home;
mod install;
pub(crate) mod keeper;
pub mod own;
mod private;
mod probe;
pub(crate) mod programs;
pub mod service;

pub(crate) use home::parent as folder;
pub use home::workspace;
pub use programs::ELSEWHERE;
pub use service::Service;

use std::{
    fmt,
    fs::{self, File},
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context, bail};
use futures_util::future::join_all;
use serde::Serialize;
use tokio::sync::Mutex;

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
    pub service: Service,
    /// Its address, with credentials.
    pub url: String,
    /// Where it was found.
    pub source: Source,
    /// Our registration as a user of a private server: the server runs while this file is open.
    user: Option<Arc<File>>,
}

impl Server {
    /// Its name and version, as the server itself reports it: `PostgreSQL 15.18`.
    pub async fn version(&self) -> anyhow::Result<String> {
        probe::version(self.service, &self.url).await
    }

    /// Whether it can still be used. `stack down` may have stopped a private server.
    fn lives(&self) -> anyhow::Result<bool> {
        match self.user {
            Some(_) => self.service.shared_home()?.is_running(),
            None => Ok(true),
        }
    }
}

/// The servers that this process uses. Each has a lock of its own, so they start side by side.
static USED: [Mutex<Option<Server>>; Service::EVERY.len()] =
    [const { Mutex::const_new(None) }; Service::EVERY.len()];

/// The server of this service: found or started by the first caller, shared by all others.
pub async fn server(service: Service) -> anyhow::Result<Server> {
    let mut used = USED[service as usize].lock().await;
    if let Some(server) = used.as_ref()
        && server.lives()?
    {
        return Ok(server.clone());
    }
    let server = find(service).await?;
    *used = Some(server.clone());
    Ok(server)
}

async fn find(service: Service) -> anyhow::Result<Server> {
    let server = |url, source| Server { service, url, source, user: None };
    if let Some(url) = given::url(service)? {
        let (source, variable) = (source_of(service, &url), service.variable());
        if source == Source::Private {
            return join(service).await;
        }
        probe::answers(service, &url).await.with_context(|| {
            format!("{variable} is set to {}, which does not answer", masked(&url))
        })?;
        announce(service, format_args!("using {variable} ({})", masked(&url)));
        return Ok(server(url, source));
    }
    if let Some(url) = compose::found(service).await {
        announce(service, "using the Compose stack");
        return Ok(server(url.to_owned(), Source::Compose));
    }
    if service.programs().is_none() {
        if let Some(url) = compose::url(service)
            && compose::engine_answers().await
        {
            compose::up(service, url).await?;
            return Ok(server(url.to_owned(), Source::Compose));
        }
        install::install(service).await?;
    }
    join(service).await
}

/// Finds or starts the private server, and registers this process as a user: the server runs at least as long as we do.
async fn join(service: Service) -> anyhow::Result<Server> {
    let Some(programs) = service.programs() else {
        bail!("{service} was installed, but its programs are not in any known place");
    };
    let (url, user) = private::join(service, programs).await?;
    Ok(Server { service, url, source: Source::Private, user: Some(Arc::new(user)) })
}

/// Where the server at a given URL comes from: from the reader, unless `stack env` prints the same URL. A process with
/// such a URL is a user of our server, as if it had found the server itself.
fn source_of(service: Service, url: &str) -> Source {
    if private::address(service).as_deref() == Some(url) && service.programs().is_some() {
        Source::Private
    } else if compose::url(service) == Some(url) {
        Source::Compose
    } else {
        Source::Given
    }
}

/// Whether the reader has set its URL, and not to that of the private server.
pub(crate) fn is_given(service: Service) -> bool {
    match given::url(service) {
        Ok(url) => url.is_some_and(|url| source_of(service, &url) != Source::Private),
        // An invalid URL was set too.
        Err(_) => true,
    }
}

/// Why no server of this service is available here. Looks for programs and asks no server.
pub(crate) fn why_none(service: Service) -> Option<String> {
    let brought = compose::url(service).is_some() && compose::has_engine();
    if is_given(service) || brought { None } else { why_none_of_its_own(service) }
}

/// Why an experiment cannot have a server of its own here.
pub(crate) fn why_none_of_its_own(service: Service) -> Option<String> {
    if container::is_possible(service) { None } else { why_not_installed(service) }
}

/// Why its programs are neither installed here nor can be.
pub(crate) fn why_not_installed(service: Service) -> Option<String> {
    if service.needs_root() && !rustix::process::geteuid().is_root() {
        return Some(format!("only root can run {service}"));
    }
    if service == Service::ContainerEngine && is_a_chroot() {
        return Some(format!("{service} cannot unpack an image in a chroot"));
    }
    let here = service.programs().is_some() || install::is_allowed();
    (!here).then(|| format!("{service} is not installed here ({})", install::command(service)))
}

/// Whether the root folder is not a mount point. Then it cannot be mounted again, which Docker does to unpack an image.
fn is_a_chroot() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    !mounts.is_empty() && !mounts.lines().any(|mount| mount.split(' ').nth(4) == Some("/"))
}

/// Installs the programs of a service, if they are missing.
pub(crate) async fn bring(service: Service) -> anyhow::Result<()> {
    if service.programs().is_some() { Ok(()) } else { install::install(service).await }
}

/// The same for a server of an experiment's own, unless a container engine provides it.
pub(crate) async fn bring_own(service: Service) -> anyhow::Result<()> {
    if container::is_possible(service) { Ok(()) } else { bring(service).await }
}

/// A client of a service: the one on the `PATH`, or else the one beside the server.
pub(crate) fn tool(service: Service, name: &str) -> PathBuf {
    let beside = || Some(service.programs()?.folder.join(name)).filter(|path| path.is_file());
    programs::on_path(name).or_else(beside).unwrap_or_else(|| name.into())
}

/// Finds or starts the given servers, side by side.
pub async fn up(services: &[Service]) -> anyhow::Result<Vec<Server>> {
    // Not `try_join_all`: the failure of one must not cut another's start short.
    join_all(services.iter().map(|&service| server(service))).await.into_iter().collect()
}

/// Finds or starts those of the given servers that need no installation and no download.
pub async fn up_installed(services: &[Service]) -> anyhow::Result<()> {
    let here = join_all(services.iter().map(|&service| async move {
        let here = service.programs().is_some() || is_given(service);
        (here || compose::found(service).await.is_some()).then_some(service)
    }));
    let here: Vec<_> = here.await.into_iter().flatten().collect();
    up(&here).await.map(drop)
}

/// Stops the private servers, even if they are in use. Returns those that ran.
pub async fn down() -> anyhow::Result<Vec<Service>> {
    let stopped = join_all(Service::EVERY.map(private::stop)).await;
    let stopped: Vec<bool> = stopped.into_iter().collect::<anyhow::Result<_>>()?;
    Ok(Service::EVERY
        .into_iter()
        .zip(stopped)
        .filter_map(|(service, ran)| ran.then_some(service))
        .collect())
}

/// The state of one server, for a person.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Which server.
    pub service: String,
    /// `running`, `stopped` (it starts when it is needed) or `missing`.
    pub state: &'static str,
    /// `given`, `compose` or `private`. If the server does not run, the source that would be used.
    pub source: String,
    /// Its address without the password, or a note about its state.
    pub address: String,
}

/// Looks at every server of the stack and starts none.
pub async fn status() -> Vec<Status> {
    join_all(Service::STACK.map(|service| async move {
        let (state, source, address) = look(service)
            .await
            .unwrap_or_else(|error| ("missing", Source::Given.to_string(), format!("{error:#}")));
        Status { service: service.to_string(), state, source, address }
    }))
    .await
}

async fn look(service: Service) -> anyhow::Result<(&'static str, String, String)> {
    if let Some(url) = given::url(service)? {
        let source = source_of(service, &url);
        if source != Source::Private {
            let error = probe::answers(service, &url).await.err();
            let state = if error.is_none() { "running" } else { "missing" };
            return Ok((state, source.to_string(), masked(&url)));
        }
    } else if let Some(url) = compose::found(service).await {
        return Ok(("running", Source::Compose.to_string(), masked(url)));
    }
    let source = Source::Private.to_string();
    let home = service.shared_home()?;
    if home.is_running()? {
        let address =
            (service.about().url)(&home).map_or_else(|_| "starting".to_owned(), |url| masked(&url));
        return Ok(("running", source, address));
    }
    Ok(match service.programs() {
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

/// Prints a progress line on standard error, because standard output is for the reports.
fn announce(service: Service, what: impl fmt::Display) {
    eprintln!("  {service:<10}  {what}");
}
