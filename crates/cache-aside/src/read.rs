//! How is one user read, and how a hundred? Redis first, then the database.
//!
//! Commands on one connection are sent without waiting for each other, so a hundred `GET`s are one round trip. `MGET`
//! would be one command, but a cluster refuses it when the keys lie on different servers.

use std::sync::Arc;

use futures_util::future::try_join_all;
use tokio::time::Instant;

use crate::{
    error::Error,
    flight::Turn,
    link::Link,
    service::Service,
    trust::Trouble,
    ttl,
    user::UserId,
    value::{Read, Source},
};

impl Service {
    // ANCHOR: get
    /// The user, as it is now or was at some moment since this was called.
    pub async fn get(self: &Arc<Self>, id: UserId) -> Result<Read, Error> {
        if let Some(link) = self.trust.believed() {
            match self.through(&link, id).await {
                Ok(read) => return Ok(read),
                Err(Trouble::Other(error)) => return Err(error),
                Err(Trouble::Redis(away)) => self.trust.doubt(&link, &away),
            }
        }
        Ok((self.store.find(id).await?, Source::Bypass))
    }

    async fn through(self: &Arc<Self>, link: &Arc<Link>, id: UserId) -> Result<Read, Trouble> {
        let give_up_at = Instant::now() + self.patience;
        loop {
            if let Some(read) = self.look(link, id).await? {
                return Ok(read);
            }
            if Instant::now() > give_up_at {
                // The value that it waited for was not stored, or was deleted at once.
                return self.load_only(id).await;
            }
            match self.flights.board(id) {
                Turn::Follow(mut end) => {
                    // An error means that the flight has ended. Nothing is ever sent.
                    let _ = end.changed().await;
                }
                Turn::Lead(landing) => {
                    let (service, link) = (Arc::clone(self), Arc::clone(link));
                    // A task, so that a client that goes away does not leave its followers and a lease behind.
                    let load = self.tasks.spawn(async move {
                        let _landing = landing;
                        service.fill(&link, id).await
                    });
                    return load.await.map_err(Error::internal)?;
                }
            }
        }
    }
    // ANCHOR_END: get

    // ANCHOR: refresh
    /// The value that a cache has. By chance, starts a reload in the background while the value is still good. Nobody
    /// waits for the reload, so it may fail.
    async fn look(self: &Arc<Self>, link: &Arc<Link>, id: UserId) -> Result<Option<Read>, Trouble> {
        let Some((value, is_near)) = link.get(id).await? else { return Ok(None) };
        let left = value.left(link.now());
        if ttl::draw(left, value.load_time, self.beta)
            && let Turn::Lead(landing) = self.flights.board(id)
        {
            let (service, link, old) = (Arc::clone(self), Arc::clone(link), value.token);
            self.tasks.spawn(async move {
                let _landing = landing;
                if let Err(trouble) = service.replace(&link, id, &old).await {
                    tracing::debug!(%trouble, "not refreshed");
                }
            });
        }
        let source = if is_near { Source::Near } else { Source::Hit };
        Ok(Some((value.user, source(left.as_secs()))))
    }
    // ANCHOR_END: refresh

    // ANCHOR: get_many
    /// These users, each as it is now or was at some moment since this was called. Without Redis they are one query, so
    /// that they take one of the few connections.
    pub async fn get_many(self: &Arc<Self>, ids: &[UserId]) -> Result<Vec<Read>, Error> {
        if self.trust.believed().is_some() {
            return try_join_all(ids.iter().map(|id| self.get(*id))).await;
        }
        let mut users = self.store.find_many(ids).await?;
        Ok(ids.iter().map(|id| (users.remove(id).flatten(), Source::Bypass)).collect())
    }
    // ANCHOR_END: get_many
}
