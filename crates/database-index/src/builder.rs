//! How is an index built while the table is in use? Outside of the request that asked for it, one after another.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::mpsc, task::JoinHandle};

use crate::error::{Error, Result, why_not_built};
use crate::index::{Index, Name};
use crate::store::Store;

/// Builds that wait. A client that asks for one more is told to come back.
const QUEUE: usize = 64;

/// A build that was asked for in this process.
#[derive(Clone, Debug)]
pub struct Build {
    /// What is built.
    pub index: Index,
    /// Why it failed, if it did.
    pub failed: Option<&'static str>,
}

/// Its lock is held for a line or two, and never while anything is awaited.
type Builds = Arc<Mutex<HashMap<Name, Build>>>;

/// Whoever asks for an index asks this.
#[derive(Debug)]
pub struct Builder {
    store: Store,
    builds: Builds,
    queue: mpsc::Sender<(Name, Index)>,
}

/// What became of a PUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The index is there already.
    Ready,
    /// It is built, now or soon.
    Accepted,
}

impl Builder {
    /// Starts the task that builds. It ends when the builder is dropped, after the build that is under way; the handle is
    /// for whoever waits for that.
    pub fn start(store: Store) -> (Self, JoinHandle<()>) {
        let (queue, mut asked) = mpsc::channel::<(Name, Index)>(QUEUE);
        let builds = Builds::default();
        let (ours, its) = (store.clone(), builds.clone());
        let task = tokio::spawn(async move {
            while let Some((name, index)) = asked.recv().await {
                let built = ours.build(&name, &index).await;
                let mut builds = lock(&its);
                match built {
                    // From here on the catalogue knows it.
                    Ok(()) => drop(builds.remove(&name)),
                    Err(error) => {
                        tracing::warn!(%error, index = name.as_str(), "an index was not built");
                        let failed = Some(why_not_built(&error));
                        builds.insert(name, Build { index, failed });
                    }
                }
            }
        });
        (Self { store, builds, queue }, task)
    }

    // ANCHOR: ask
    /// Asks for an index. The same again is the same; another one of this name is a conflict. An invalid one that a broken
    /// build has left is replaced.
    pub async fn ask(&self, name: Name, index: Index) -> Result<Asked> {
        let existing = self.store.indexes().await?;
        let there = existing.iter().find(|it| it.name == name.as_str());
        let mut builds = lock(&self.builds);
        match builds.get(&name) {
            Some(build) if build.failed.is_some() => {}
            Some(build) if build.index == index => return Ok(Asked::Accepted),
            Some(_) => return Err(Error::OTHER_INDEX),
            None => {}
        }
        match there {
            Some(it) if it.building && index.is_defined_by(&it.definition) => {
                return Ok(Asked::Accepted);
            }
            Some(it) if it.valid && index.is_defined_by(&it.definition) => return Ok(Asked::Ready),
            Some(it) if it.valid || it.building => return Err(Error::OTHER_INDEX),
            _ => {}
        }
        self.queue.try_send((name.clone(), index.clone())).map_err(|_| Error::QUEUE_FULL)?;
        builds.insert(name, Build { index, failed: None });
        Ok(Asked::Accepted)
    }
    // ANCHOR_END: ask

    /// The build of this name, if one is under way, or has failed.
    pub fn find(&self, name: &Name) -> Option<Build> {
        lock(&self.builds).get(name).cloned()
    }

    /// All of them.
    pub fn all(&self) -> Vec<(Name, Build)> {
        lock(&self.builds).iter().map(|(name, build)| (name.clone(), build.clone())).collect()
    }

    /// Drops the index. One whose build has failed is only forgotten, if nothing of it is left.
    pub async fn drop(&self, name: &Name) -> Result<()> {
        let build = self.find(name);
        if build.as_ref().is_some_and(|build| build.failed.is_none()) {
            return Err(Error::BUILDING);
        }
        let existing = self.store.indexes().await?;
        match existing.iter().find(|it| it.name == name.as_str()) {
            Some(it) if it.of_constraint => return Err(Error::OF_A_CONSTRAINT),
            Some(it) if it.building => return Err(Error::BUILDING),
            Some(_) => self.store.drop(name).await?,
            None if build.is_none() => return Err(Error::NOT_FOUND),
            None => {}
        }
        lock(&self.builds).remove(name);
        Ok(())
    }
}

fn lock(builds: &Builds) -> MutexGuard<'_, HashMap<Name, Build>> {
    builds.lock().unwrap_or_else(PoisonError::into_inner)
}
