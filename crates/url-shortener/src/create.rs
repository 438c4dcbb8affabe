//! How does a link come to own a code? It tries to insert itself, and the primary key decides.

use std::{collections::HashMap, sync::Arc};

use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    access::EditToken,
    code::{Code, crc32_code, random_code},
    error::Error,
    long_url::LongUrl,
    ring::Shards,
    store::{Link, NewLink, Store, TIMEOUT},
};

/// Give up after this many codes. Even with half of all codes in use this happens once in 65,536 times.
const ATTEMPTS: u32 = 16;
/// A shared link has one of this many codes, so that a second client with the same URL finds it. With half of CRC32's
/// codes in use, all eight are taken once in 256 times. Then, or if somebody makes URLs collide, the code is random: the
/// link works, and is not shared.
const SHARED_CODES: u32 = 8;
/// Creates in one statement, and creates that wait for the next. When the queue is full, a create waits for a place in
/// it, and gets 503 when its time is over.
const BATCH: usize = 256;
/// Batches on their way to one shard at once. With one, a few clients would wait for each other's round trips; with
/// many, there would be nothing to share.
const INSERTERS: usize = 4;

/// What a client gets.
pub enum Created {
    /// A new link, with its token unless it is shared.
    New(Link, Option<EditToken>),
    /// The shared link that is there for this URL.
    Existing(Link),
}

/// Makes links in these databases.
pub struct Creator {
    pub(crate) shards: Arc<Shards>,
    /// One for each shard.
    pub(crate) queues: Vec<Queue>,
}

/// Links that wait for their insert, each with a channel for the outcome, which is `None` if the code has an owner.
pub type Queue = mpsc::Sender<Waiting>;
type Waiting = (NewLink, oneshot::Sender<Result<Option<Link>, Error>>);

impl Creator {
    /// Starts to insert what is queued for this database.
    pub fn start(store: &Store, tasks: &TaskTracker, stop: &CancellationToken) -> Queue {
        let (queue, waiting) = mpsc::channel(BATCH);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..INSERTERS {
            let inserts = insert_together(store.clone(), Arc::clone(&waiting));
            tasks.spawn(stop.clone().run_until_cancelled_owned(inserts));
        }
        queue
    }

    // ANCHOR: create_link
    /// Makes the link, with this alias and this many seconds to live if they are given; or finds the URL's shared link.
    pub async fn create(
        &self,
        url: &LongUrl,
        alias: Option<&Code>,
        ttl: Option<i64>,
    ) -> Result<Created, Error> {
        // Only a plain link can be given to several clients, and only its checksum finds it again. Nobody may change
        // it, since others have it too: it has no token.
        let shared = alias.is_none() && ttl.is_none();
        let token = if shared { None } else { Some(EditToken::generate()?) };
        let edit_token = token.as_ref().map(EditToken::hash);
        let can_share =
            |owner: &Link| shared && owner.edit_token.is_none() && owner.url == url.as_str();
        let mut collisions = 0;
        for _ in 0..ATTEMPTS {
            let code = match alias {
                Some(alias) => alias.clone(),
                None if shared && collisions < SHARED_CODES => crc32_code(url.as_str(), collisions),
                None => random_code()?,
            };
            let (id, store) = (Uuid::new_v4(), self.shards.of(&code));
            // Insert first and look afterwards. The other way round, two clients would both see a free code.
            let new = NewLink { code: code.clone(), id, url: url.clone(), edit_token, ttl };
            if let Some(link) = self.insert(new).await? {
                return Ok(Created::New(link, token));
            }
            match store.find(&code).await? {
                // An expired link's code is free again. If several clients want it, the next insert decides.
                Some(owner) if owner.is_expired() => drop(store.delete(&owner).await?),
                None => {}
                Some(_) if alias.is_some() => return Err(Error::AliasTaken),
                Some(owner) if can_share(&owner) => return Ok(Created::Existing(owner)),
                // A collision: try the next code.
                Some(_) => collisions += 1,
            }
        }
        Err(Error::NoFreeCode)
    }
    // ANCHOR_END: create_link

    /// Inserts the link together with others; `None` if its code has an owner. After a time-out, nobody knows whether
    /// it was inserted.
    async fn insert(&self, link: NewLink) -> Result<Option<Link>, Error> {
        let queue = &self.queues[self.shards.number_of(&link.code)];
        let inserted = async {
            let (outcome, answer) = oneshot::channel();
            queue.send((link, outcome)).await.ok()?;
            answer.await.ok()
        };
        timeout(TIMEOUT, inserted).await.ok().flatten().unwrap_or(Err(Error::DatabaseAway))
    }
}

// ANCHOR: insert_together
/// Inserts all creates that wait, in one statement and one commit. Meanwhile the next ones gather. Under load, many
/// creates share a round trip and a flush of the log to disk; without load, no create waits for company.
async fn insert_together(store: Store, queue: Arc<Mutex<mpsc::Receiver<Waiting>>>) {
    let mut batch = Vec::with_capacity(BATCH);
    // The lock is held while this task waits, because the other tasks would wait for the same creates.
    while queue.lock().await.recv_many(&mut batch, BATCH).await > 0 {
        // A client that has given up gets no link.
        batch.retain(|(_, outcome): &Waiting| !outcome.is_closed());
        let links: Vec<_> = batch.iter().map(|(link, _)| link).collect();
        let inserted = store.insert(&links).await;
        let mut inserted = inserted
            .map(|links| links.into_iter().map(|link| (link.id, link)).collect::<HashMap<_, _>>());
        for (link, outcome) in batch.drain(..) {
            let own = inserted.as_mut().map(|links| links.remove(&link.id));
            // Nobody listens if the client has given up.
            let _ = outcome.send(own.map_err(|error| error.clone()));
        }
    }
}
// ANCHOR_END: insert_together
