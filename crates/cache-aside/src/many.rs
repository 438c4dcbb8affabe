//! How are a hundred users read without a hundred round trips?
//!
//! One `MGET` for what Redis has, one query for the rest, and the rest is filled in with a lease each, as one is.
//! Commands on one connection are sent without waiting for each other, so those are one round trip as well.

use std::collections::{HashMap, HashSet};

use futures_util::future::try_join_all;
use tokio::time::Instant;

use crate::{
    error::Error,
    link::{Added, Link},
    read::Reader,
    trust::Trouble,
    user::{UserId, UserJson},
    value::{self, Content},
};

/// What was read.
#[derive(Debug)]
pub struct Many {
    /// By id; `None`: nobody has it.
    pub users: HashMap<UserId, Option<UserJson>>,
    /// How many of them Redis knew, if it was asked.
    pub hits: Option<usize>,
}

impl Reader {
    // ANCHOR: get_many
    /// These users, each as it is now or was at some moment since this was called.
    pub async fn get_many(&self, ids: &[UserId]) -> Result<Many, Error> {
        if let Some(link) = self.trust.link().await {
            match self.many_through(&link, ids).await {
                Ok(many) => return Ok(many),
                Err(Trouble::Other(error)) => return Err(error),
                Err(Trouble::Redis(away)) => self.trust.lose(&link, &away),
            }
        }
        Ok(Many { users: self.load_many(ids).await?, hits: None })
    }

    async fn many_through(&self, link: &Link, ids: &[UserId]) -> Result<Many, Trouble> {
        let keys: Vec<_> = ids.iter().map(|&id| link.key(id)).collect();
        let found = link.get_many(&keys).await?;
        let mut users = HashMap::new();
        for (&id, content) in ids.iter().zip(found) {
            if let Some(Content::Value(value)) = content.map(|it| value::decode(&it, link.life())) {
                users.insert(id, value.user);
            }
        }
        let hits = users.len();
        let missing: HashSet<_> =
            ids.iter().copied().filter(|id| !users.contains_key(id)).collect();
        let missing: Vec<_> = missing.into_iter().collect();
        if !missing.is_empty() {
            users.extend(self.fill_many(link, &missing).await?);
        }
        Ok(Many { users, hits: Some(hits) })
    }

    async fn fill_many(
        &self,
        link: &Link,
        ids: &[UserId],
    ) -> Result<HashMap<UserId, Option<UserJson>>, Trouble> {
        let leases = try_join_all(ids.iter().map(async |&id| {
            let lease = value::lease(link.life());
            let added = link.add(&link.key(id), &lease, self.loader.lease).await?;
            // Whoever holds the lease of one that we did not get fills it; we do not wait for that.
            Ok::<_, Trouble>(matches!(added, Added::Yes).then_some((id, lease)))
        }))
        .await?;
        let begun = Instant::now();
        let loaded = self.load_many(ids).await;
        let load_time = begun.elapsed();
        try_join_all(leases.into_iter().flatten().map(async |(id, lease)| {
            let (mut new, mut life) = (Vec::new(), self.loader.lease);
            if let Ok(users) = &loaded
                && let Some(user) = users.get(&id)
                && let Some(drawn) = self.loader.lives.draw(user.is_some())
            {
                new = self.loader.encode(link, user.clone(), drawn, load_time);
                life = drawn;
            }
            // With nothing to fill in, this gives the lease back.
            link.replace(&link.key(id), &lease, &new, life).await.map_err(Trouble::from)
        }))
        .await?;
        Ok(loaded?)
    }
    // ANCHOR_END: get_many

    async fn load_many(&self, ids: &[UserId]) -> Result<HashMap<UserId, Option<UserJson>>, Error> {
        let mut users: HashMap<_, _> = ids.iter().map(|&id| (id, None)).collect();
        for (id, user) in self.loader.gate.find_many(ids).await? {
            users.insert(id, Some(user));
        }
        Ok(users)
    }
}
