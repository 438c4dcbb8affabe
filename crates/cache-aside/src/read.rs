//! How is one user read, and how a hundred? Redis first, then the database.
//!
//! Commands on one connection are sent without waiting for each other, so a hundred `GET`s are one round trip. `MGET`
//! would be one command, but a cluster refuses it when the keys lie on different servers.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::{
    error::Error,
    flight::{Flights, Turn},
    lease::Loader,
    link::{Added, Link},
    trust::{Trouble, Trust},
    ttl,
    user::UserId,
    value::{self, Read, Source, Users},
};

/// What was read of many.
#[derive(Debug)]
pub struct Many {
    /// Each of those that were asked for.
    pub users: Users,
    /// How many of them a cache knew, if it was asked.
    pub hits: Option<usize>,
}

/// Reads users.
#[derive(Debug)]
pub struct Reader {
    /// Whether Redis is to be believed.
    pub trust: Arc<Trust>,
    /// Who loads what is not there.
    pub loader: Loader,
    /// What is being loaded.
    pub flights: Arc<Flights>,
    /// For early refreshes: 1 as the paper has it, 0 for none.
    pub beta: f64,
    /// Loads, which go on when the client that asked first has gone.
    pub tasks: TaskTracker,
}

impl Reader {
    // ANCHOR: get
    /// The user, as it is now or was at some moment since this was called.
    pub async fn get(self: &Arc<Self>, id: UserId) -> Result<Read, Error> {
        let Some(link) = self.trust.link().await else { return self.bypass(id).await };
        match self.through(&link, id).await {
            Ok(read) => Ok(read),
            Err(Trouble::Other(error)) => Err(error),
            Err(Trouble::Redis(away)) => {
                self.trust.doubt(&link, &away);
                self.bypass(id).await
            }
        }
    }

    async fn through(self: &Arc<Self>, link: &Arc<Link>, id: UserId) -> Result<Read, Trouble> {
        let mut give_up_at = None;
        loop {
            if let Some(read) = self.look(link, id).await? {
                return Ok(read);
            }
            let give_up_at =
                *give_up_at.get_or_insert_with(|| Instant::now() + self.loader.patience);
            if Instant::now() > give_up_at {
                // What it waited for was not stored, or deleted at once.
                return self.loader.load_only(id).await;
            }
            match self.flights.board(id) {
                Turn::Follow(mut end) => {
                    // An error: it has ended. That is all that is ever told.
                    let _ = end.changed().await;
                }
                Turn::Lead(landing) => {
                    let (reader, link) = (Arc::clone(self), Arc::clone(link));
                    // A task, so that a client that goes away does not leave its followers and a lease behind.
                    let load = self.tasks.spawn(async move {
                        let _landing = landing;
                        reader.loader.fill(&link, id).await
                    });
                    return load.await.map_err(Error::internal)?;
                }
            }
        }
    }
    // ANCHOR_END: get

    /// What a cache has, if it can be used. Perhaps starts a refresh.
    pub async fn look(
        self: &Arc<Self>,
        link: &Arc<Link>,
        id: UserId,
    ) -> Result<Option<Read>, Trouble> {
        let Some((place, value)) = link.get(id).await? else { return Ok(None) };
        let left = Duration::from_millis(value.expires_at.saturating_sub(link.now()));
        if ttl::draw(left, value.load_time, self.beta) {
            self.refresh(link, id, value.token.clone());
        }
        Ok(Some(Read::hit(place, value, link.now())))
    }

    // ANCHOR: refresh
    /// Reloads in the background what is still good. Nobody waits for it, so a failure only costs the chance.
    fn refresh(self: &Arc<Self>, link: &Arc<Link>, id: UserId, old: String) {
        let Turn::Lead(landing) = self.flights.board(id) else { return };
        let (reader, link) = (Arc::clone(self), Arc::clone(link));
        self.tasks.spawn(async move {
            let _landing = landing;
            if let Err(trouble) = reader.loader.replace(&link, id, &old).await {
                tracing::debug!(%trouble, "not refreshed");
            }
        });
    }
    // ANCHOR_END: refresh

    async fn bypass(&self, id: UserId) -> Result<Read, Error> {
        Ok(Read { user: self.loader.store.find(id).await?, source: Source::Bypass })
    }

    // ANCHOR: get_many
    /// These users, each as it is now or was at some moment since this was called.
    pub async fn get_many(self: &Arc<Self>, ids: &[UserId]) -> Result<Many, Error> {
        let ids: Vec<_> = ids.iter().copied().collect::<HashSet<_>>().into_iter().collect();
        if let Some(link) = self.trust.link().await {
            match self.many_through(&link, &ids).await {
                Ok(many) => return Ok(many),
                Err(Trouble::Other(error)) => return Err(error),
                Err(Trouble::Redis(away)) => self.trust.doubt(&link, &away),
            }
        }
        Ok(Many { users: self.loader.store.find_many(&ids).await?, hits: None })
    }

    async fn many_through(
        self: &Arc<Self>,
        link: &Arc<Link>,
        ids: &[UserId],
    ) -> Result<Many, Trouble> {
        let found = try_join_all(ids.iter().map(|id| self.look(link, *id))).await?;
        let (mut users, mut missing) = (Users::new(), Vec::new());
        for (id, read) in ids.iter().zip(found) {
            match read {
                Some(read) => drop(users.insert(*id, read.user)),
                None => missing.push(*id),
            }
        }
        let hits = users.len();
        if !missing.is_empty() {
            let (reader, link) = (Arc::clone(self), Arc::clone(link));
            // A task: a client that goes away must not leave a hundred leases behind, whose keys nobody can fill.
            let load = self.tasks.spawn(async move { reader.fill_many(&link, &missing).await });
            users.extend(load.await.map_err(Error::internal)??);
        }
        Ok(Many { users, hits: Some(hits) })
    }

    async fn fill_many(&self, link: &Link, ids: &[UserId]) -> Result<Users, Trouble> {
        let leases = try_join_all(ids.iter().map(async |&id| {
            let token = value::token();
            let added = link.add(id, &token, self.loader.lease).await?;
            // If somebody else has the lease, they fill the key. We do not wait for that.
            Ok::<_, Trouble>(matches!(added, Added::Yes).then_some((id, token)))
        }))
        .await?;
        let begun = Instant::now();
        let loaded = self.loader.store.find_many(ids).await;
        let load_time = begun.elapsed();
        try_join_all(leases.iter().flatten().map(async |(id, token)| match &loaded {
            Ok(users) => {
                let user = users.get(id).cloned().flatten();
                self.loader.put(link, *id, token, user, load_time).await.map(drop)
            }
            Err(_) => self.loader.give_back(link, *id, token).await,
        }))
        .await?;
        Ok(loaded?)
    }
    // ANCHOR_END: get_many
}
