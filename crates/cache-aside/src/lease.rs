//! How does an old value get into the cache after it was deleted there, and what keeps it out?
//!
//! The race of the textbook: a reader misses and reads the old value; a writer commits a new one and deletes the key;
//! the reader fills in what it has read. It stays for an hour.
//!
//! With a *lease* (R. Nishtala et al., "Scaling Memcache at Facebook", NSDI 2013): a reader that misses puts a lease
//! with a token of its own in the key's place, and may fill the key only as long as that lease is there. The writer's
//! delete deletes the lease too. As there is one lease for a key, there is also one loader, in all processes.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    link::{Added, Link, milliseconds},
    service::Service,
    trust::Trouble,
    user::UserId,
    value::{self, Content, Read, Source, Value},
};

/// The first pause between two looks at somebody else's lease. Each pause is twice as long as the last.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(25);

impl Service {
    // ANCHOR: lease
    /// Gets the right to fill the key, loads, and fills. Or finds what somebody else has filled in.
    pub async fn fill(&self, link: &Link, id: UserId) -> Result<Read, Trouble> {
        let token = value::token();
        let (deadline, mut pause) = (Instant::now() + self.patience, FIRST_PAUSE);
        loop {
            match link.add(id, &token, self.lease).await? {
                Added::Yes => break,
                // Redis refuses the key, so nothing can be filled in.
                Added::Refused => return self.load_only(id).await,
                Added::Found(Some(Content::Value(value))) => {
                    let left = value.left(link.now()).as_secs();
                    return Ok((value.user, Source::Hit(left)));
                }
                Added::Found(Some(Content::Lease)) if Instant::now() > deadline => {
                    return self.load_only(id).await;
                }
                Added::Found(Some(Content::Lease)) => {
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Added::Found(None) => link.forget(&[id]).await?,
            }
        }
        let filled = self.replace(link, id, &token).await;
        if let Err(Trouble::Other(_)) = filled {
            // Give the lease back, so that nobody waits for it.
            link.replace(id, &token, b"", self.lease).await?;
        }
        filled
    }

    /// Loads the user, and puts it in the place of the content with this token: our lease, or a value to be refreshed.
    /// If that content is gone, somebody may have changed the user since, and the loaded value may be old.
    pub async fn replace(&self, link: &Link, id: UserId, token: &str) -> Result<Read, Trouble> {
        let begun = Instant::now();
        let user = self.store.find(id).await?;
        let (load_time, life) = (begun.elapsed(), self.lives.draw(user.is_some()));
        let new = life.map(|life| {
            let expires_at = link.now() + milliseconds(life);
            Value { token: value::token(), user: user.clone(), expires_at, load_time }.encode()
        });
        // If it is not to be kept, nothing is put in the place of that content.
        let (new, life) = (new.unwrap_or_default(), life.unwrap_or_default());
        let stored = link.replace(id, token, &new, life).await? && !new.is_empty();
        Ok((user, Source::Miss { stored }))
    }
    // ANCHOR_END: lease

    /// Loads, and leaves the cache alone.
    pub async fn load_only(&self, id: UserId) -> Result<Read, Trouble> {
        Ok((self.store.find(id).await?, Source::Miss { stored: false }))
    }
}
