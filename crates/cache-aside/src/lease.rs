//! How does an old value get into the cache after it was deleted there, and what keeps it out?
//!
//! The race of the textbook: a reader misses and reads the old value; a writer commits a new one and deletes
//! the key; the reader fills in what it has read. It stays for an hour.
//!
//! With a *lease* (R. Nishtala et al., "Scaling Memcache at Facebook", NSDI 2013): who misses puts a lease with
//! a token of its own in the key's place, and may fill it only as long as that lease is there. The writer's
//! delete deletes the lease too. As there is one lease for a key, there is also one loader, in all processes.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    absence::Lives,
    gate::Gate,
    link::{Added, Link},
    source::{Read, Source},
    trust::Trouble,
    user::{UserId, UserJson},
    value::{self, Content, Value},
};

/// Between two looks at somebody else's lease.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(25);

/// Loads users, and fills the cache with them.
#[derive(Debug)]
pub struct Loader {
    /// The way to the database.
    pub gate: Arc<Gate>,
    /// How long what is loaded may stay.
    pub lives: Lives,
    /// How long the right to fill lasts. Longer than a load takes, or a slow one is not stored.
    pub lease: Duration,
    /// How long to wait for somebody else's load. Its loader may be dead, or cut off from Redis.
    pub patience: Duration,
}

impl Loader {
    // ANCHOR: lease
    /// Gets the right to fill the key, loads, and fills. Or finds what somebody else has filled in.
    pub async fn fill(&self, link: &Link, id: UserId) -> Result<Read, Trouble> {
        let (key, lease) = (link.key(id), value::lease(link.life()));
        let (deadline, mut pause) = (Instant::now() + self.patience, FIRST_PAUSE);
        loop {
            match link.add(&key, &lease, self.lease).await? {
                Added::Yes => return self.fill_leased(link, id, &lease).await,
                // No room: there is nothing to fill.
                Added::Refused => return self.load_only(id).await,
                Added::Found(found) => match value::decode(&found, link.life()) {
                    Content::Value(value) => return Ok(Read::hit(value, link)),
                    Content::Lease if Instant::now() > deadline => return self.load_only(id).await,
                    Content::Lease => {
                        sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                    Content::Other => {
                        if link.replace(&key, &found, &lease, self.lease).await? {
                            return self.fill_leased(link, id, &lease).await;
                        }
                    }
                },
            }
        }
    }

    async fn fill_leased(&self, link: &Link, id: UserId, lease: &[u8]) -> Result<Read, Trouble> {
        let filled = self.replace(link, id, lease).await;
        if let Err(Trouble::Other(_)) = filled {
            // So that nobody waits for us.
            link.replace(&link.key(id), lease, b"", self.lease).await?;
        }
        filled
    }

    /// Loads, and puts it in the place of `old`: our lease, or a value that is to be refreshed. If that is
    /// there no more, somebody has changed the user since, and what was loaded may be old.
    pub async fn replace(&self, link: &Link, id: UserId, old: &[u8]) -> Result<Read, Trouble> {
        let begun = Instant::now();
        let (key, user) = (link.key(id), self.gate.find(id).await?);
        let stored = if let Some(life) = self.lives.draw(user.is_some()) {
            let new = self.encode(link, user.clone(), life, begun.elapsed());
            link.replace(&key, old, &new, life).await?
        } else {
            // Not to be kept: the lease goes, or others would wait for it.
            link.replace(&key, old, b"", self.lease).await?;
            false
        };
        Ok(Read { user, source: Source::Miss { stored } })
    }
    // ANCHOR_END: lease

    // ANCHOR: textbook
    /// What the textbook does: loads, and puts it there whatever has happened since.
    pub async fn fill_blindly(&self, link: &Link, id: UserId) -> Result<Read, Trouble> {
        let begun = Instant::now();
        let user = self.gate.find(id).await?;
        let stored = match self.lives.draw(user.is_some()) {
            Some(life) => {
                let new = self.encode(link, user.clone(), life, begun.elapsed());
                link.set(&link.key(id), &new, life).await?
            }
            None => false,
        };
        Ok(Read { user, source: Source::Miss { stored } })
    }
    // ANCHOR_END: textbook

    /// Loads, and leaves the cache alone.
    pub async fn load_only(&self, id: UserId) -> Result<Read, Trouble> {
        Ok(Read { user: self.gate.find(id).await?, source: Source::Miss { stored: false } })
    }

    /// The bytes to put there.
    pub fn encode(
        &self,
        link: &Link,
        user: Option<UserJson>,
        life: Duration,
        load_time: Duration,
    ) -> Vec<u8> {
        let expires_at = link.now() + u64::try_from(life.as_millis()).unwrap_or(u64::MAX / 2);
        Value { user, expires_at, load_time }.encode(link.life())
    }
}
