//! How does an experiment harm a server without harming anyone? It starts one of its own, from the same
//! programs, on a port of its own; the keeper removes it when the experiment ends, however it ends.

use std::{
    fs::{self, File},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use tokio::time::sleep;

use super::{
    compose, container,
    home::{Home, Order},
    private::{self, Place},
    probe,
    programs::Programs,
    service::{Launch, Service},
};
use crate::skip::skip;

/// A private server that nobody shares.
#[derive(Debug)]
pub struct OwnServer {
    place: Place,
    /// Closing it tells the keeper to stop the server.
    user: Option<File>,
    /// Locked as long as this lives: what is not locked was left behind.
    _owner: File,
}

/// How long a keeper may take to carry out an order.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);

impl OwnServer {
    /// Starts a server with no data: what is installed, or else in a container. Otherwise installs it, if that is
    /// allowed; otherwise the experiment is skipped.
    pub async fn start(service: Service) -> anyhow::Result<Self> {
        let in_container = service.programs().is_none()
            && container::is_possible(service)
            && compose::engine_answers().await;
        let mut server = if in_container {
            container::pull(service).await?;
            Self::make(service, None)?
        } else {
            Self::prepare(service).await?
        };
        server.restart().await?;
        Ok(server)
    }

    /// Makes the home of a server and starts nothing. For a server that is to be a member of a group: its folder can
    /// be filled and its launch changed before [`restart`](Self::restart).
    pub(crate) async fn prepare(service: Service) -> anyhow::Result<Self> {
        if let Some(why) = super::why_not_installed(service) {
            return Err(skip(format!("it needs a {service} of its own, and {why}")));
        }
        super::bring(service).await?;
        let programs = service.programs().context("its programs are not where they should be")?;
        Self::make(service, Some(programs))
    }

    fn make(service: Service, programs: Option<Programs>) -> anyhow::Result<Self> {
        remove_what_was_left(service)?;
        let home = service.own_home()?;
        home.create()?;
        home.free_port()?;
        let owner = home.lock_file("owner.lock")?;
        owner.try_lock().with_context(|| {
            format!("another process holds the lock on {}", home.path.display())
        })?;
        Ok(Self { place: Place::new(service, home, programs), user: None, _owner: owner })
    }

    /// Changes how it is started, each time.
    pub(crate) fn adapt(&mut self, change: impl Fn(&mut Launch) + Send + Sync + 'static) {
        self.place.adapt = Box::new(change);
    }

    /// Its folder.
    pub(crate) fn home(&self) -> &Home {
        &self.place.home
    }

    /// What runs it.
    pub(crate) fn programs(&self) -> anyhow::Result<&Programs> {
        self.place.programs.as_ref().context("it runs in a container")
    }

    /// Its port, the same after a restart.
    pub fn port(&self) -> anyhow::Result<u16> {
        Ok(self.place.home.read("port")?.parse()?)
    }

    /// Its address, the same after a restart.
    pub fn url(&self) -> anyhow::Result<String> {
        self.place.url()
    }

    /// Its name and version.
    pub async fn version(&self) -> anyhow::Result<String> {
        probe::version(self.place.service, &self.url()?).await
    }

    /// SIGKILL to all of the server's processes, the nearest thing to a power cut that they can see. Returns
    /// when they are gone.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.order(Order::Kill).await?;
        while self.place.home.is_running()? {
            sleep(POLL).await;
        }
        self.user = None;
        Ok(())
    }

    /// SIGSTOP to all of the server's processes: it keeps its connections and answers nothing.
    pub async fn pause(&self) -> anyhow::Result<()> {
        self.order(Order::Pause).await
    }

    /// SIGCONT: ends the pause.
    pub async fn resume(&self) -> anyhow::Result<()> {
        self.order(Order::Resume).await
    }

    /// Starts it, or starts it again after [`kill`](Self::kill), with its data, on its port.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        let running = self.place.home.claim()?.context("it runs")?;
        self.user = Some(private::start(&self.place, running, Duration::ZERO, true).await?);
        Ok(())
    }

    /// Whether it runs, perhaps paused.
    pub fn is_running(&self) -> anyhow::Result<bool> {
        self.place.home.is_running()
    }

    /// Gives an order to the keeper, and waits until it has been carried out.
    async fn order(&self, order: Order) -> anyhow::Result<()> {
        let home = &self.place.home;
        let file = home.order(order)?;
        let deadline = Instant::now() + PATIENCE;
        while file.exists() {
            // Between two looks it may have been carried out, and a server that is to be killed is then gone.
            let goes_on = home.is_running()? || !file.exists();
            ensure!(goes_on, "{} does not run. {}", self.place.service, home.log_tail());
            ensure!(Instant::now() < deadline, "{} has no keeper any more", self.place.service);
            sleep(POLL).await;
        }
        Ok(())
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        // Its keeper removes the home of a server that it stops. Nobody does that for one that was killed.
        if self.user.is_none() && self.place.home.is_running().is_ok_and(|runs| !runs) {
            let _ = fs::remove_dir_all(&self.place.home.path);
        }
    }
}

/// Homes of experiments that were killed between a server's death and its restart.
fn remove_what_was_left(service: Service) -> anyhow::Result<()> {
    let example = service.own_home()?;
    let Some(Ok(homes)) = example.path.parent().map(fs::read_dir) else { return Ok(()) };
    for path in homes.flatten().map(|entry| entry.path()).filter(|path| is_named_as_ours(path)) {
        let home = Home { path, ..example.clone() };
        // One that is just being made has a lock that nobody holds yet.
        let age = fs::metadata(&home.path).and_then(|it| it.modified()).map(|it| it.elapsed());
        let young = !matches!(age, Ok(Ok(age)) if age > Duration::from_mins(1));
        if young || !home.path.join("owner.lock").exists() {
            continue;
        }
        if home.lock_file("owner.lock")?.try_lock().is_ok() && !home.is_running()? {
            tracing::debug!(home = %home.path.display(), "removing what was left behind");
            let _ = fs::remove_dir_all(&home.path);
        }
    }
    Ok(())
}

/// Whether a folder has the name of such a home, for example `redis-0badcafe`. `STACK_DIR` may name a folder in which a
/// reader keeps other things.
fn is_named_as_ours(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.rsplit_once('-')).is_some_and(|(word, number)| {
        Service::EVERY.iter().any(|service| service.about().word == word)
            && number.len() == 8
            && number.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_homes_that_we_make_have_names_that_we_know_again() -> anyhow::Result<()> {
        for service in Service::EVERY {
            let home = service.own_home()?;
            assert!(is_named_as_ours(&home.path), "{}", home.path.display());
        }
        for name in ["redis", "redis-1", "my-0badcafe", "redis-0badcafe-old", "redis-0BADCAFE"] {
            assert!(!is_named_as_ours(&Path::new("own").join(name)), "{name}");
        }
        Ok(())
    }
}
