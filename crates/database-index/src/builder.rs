//! How is an index built while the table is in use? Outside of the request that asked for it, one after another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use crate::error::{Error, Result, why_not_built};
use crate::{index::Index, index::Name, store::Store};

/// Builds that wait. A client that asks for one more is told to come back.
const QUEUE: usize = 64;

/// What was asked for in this process and is not ready: the index, and why its build failed, if it did.
pub type Builds = HashMap<Name, (Index, Option<&'static str>)>;

/// Whoever asks for an index asks this. The lock is held for a line or two, and never while anything is awaited.
#[derive(Debug)]
pub struct Builder {
    store: Store,
    builds: Arc<Mutex<Builds>>,
    queue: mpsc::Sender<(Name, Index)>,
}

impl Builder {
    /// Starts the task that builds. It ends with the process; PostgreSQL finishes the build that is under way also without us,
    /// and those that wait are lost.
    pub fn start(store: Store) -> Self {
        let (queue, mut asked) = mpsc::channel::<(Name, Index)>(QUEUE);
        let builder = Self { store: store.clone(), builds: Arc::default(), queue };
        let builds = builder.builds.clone();
        tokio::spawn(async move {
            while let Some((name, index)) = asked.recv().await {
                match store.build(&name, &index).await {
                    // From here on the catalogue knows it.
                    Ok(()) => drop(lock(&builds).remove(&name)),
                    Err(error) => {
                        tracing::warn!(%error, index = name.as_str(), "an index was not built");
                        lock(&builds).insert(name, (index, Some(why_not_built(&error))));
                    }
                }
            }
        });
        builder
    }

    // ANCHOR: ask
    /// Asks for an index; whether it is ready already. The same again is the same; another one of this name is a conflict. An
    /// invalid one that a broken build has left is replaced.
    pub async fn ask(&self, name: Name, index: Index) -> Result<bool> {
        let existing = self.store.indexes().await?;
        let there = existing.iter().find(|it| it.name == name.as_str());
        let mut builds = lock(&self.builds);
        if let Some((asked, None)) = builds.get(&name) {
            return if *asked == index { Ok(false) } else { Err(Error::OTHER_INDEX) };
        }
        if let Some(there) = there.filter(|it| it.state != "invalid") {
            let same = index.is_defined_by(&there.definition);
            return if same { Ok(there.state == "ready") } else { Err(Error::OTHER_INDEX) };
        }
        self.queue.try_send((name.clone(), index.clone())).map_err(|_| Error::BUSY)?;
        builds.insert(name, (index, None));
        Ok(false)
    }
    // ANCHOR_END: ask

    /// What is built or has failed.
    pub fn builds(&self) -> Builds {
        lock(&self.builds).clone()
    }

    /// Drops the index. One whose build has failed is only forgotten, if nothing of it is left. A build that was asked for while
    /// the drop waited stays, and comes after it.
    pub async fn drop_index(&self, name: &Name) -> Result<()> {
        let build = self.builds().remove(name);
        let existing = self.store.indexes().await?;
        match (existing.iter().find(|it| it.name == name.as_str()), &build) {
            (_, Some((_, None))) => return Err(Error::BUILDING),
            (Some(it), _) if it.of_constraint => return Err(Error::OF_A_CONSTRAINT),
            (Some(it), _) if it.state == "building" => return Err(Error::BUILDING),
            (Some(_), _) => self.store.drop_index(name).await?,
            (None, None) => return Err(Error::NOT_FOUND),
            (None, Some(_)) => {}
        }
        lock(&self.builds).retain(|it, (_, error)| it != name || error.is_none());
        Ok(())
    }
}

fn lock(builds: &Mutex<Builds>) -> MutexGuard<'_, Builds> {
    builds.lock().unwrap_or_else(PoisonError::into_inner)
}
