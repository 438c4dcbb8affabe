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
    code::{Code, Codes, crc32_code, random_code},
    error::Error,
    long_url::LongUrl,
    ring::Shards,
    store::{Link, NewLink, Store, TIMEOUT},
};

/// Give up after this many codes. Even with half of all codes in use this happens once in 65,536 times.
const ATTEMPTS: u32 = 16;
/// The first eight salts are fixed, so a second client with the same URL finds the same link. Random collisions never
/// need more than three; an attacker who makes URLs collide only loses the sharing.
const SHARED_SALTS: u32 = 8;
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

/// Makes links with such codes in these databases.
pub struct Creator {
    pub(crate) shards: Arc<Shards>,
    pub(crate) codes: Codes,
    /// One for each shard.
    pub(crate) queues: Vec<Queue>,
}

/// Links that wait for their insert, and who waits for the outcome: `None` if the code has an owner.
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
    /// Makes the link, with this alias and for so many seconds if they are given; or finds the shared one for this URL.
    pub async fn create(
        &self,
        url: &LongUrl,
        alias: Option<&Code>,
        ttl: Option<i64>,
    ) -> Result<Created, Error> {
        // Only a plain link can be given to several clients, and only its checksum finds it again. Nobody may change
        // it, since others have it too: it has no token.
        let shared = self.codes == Codes::Crc32 && alias.is_none() && ttl.is_none();
        let token = if shared { None } else { Some(EditToken::generate()?) };
        let edit_token = token.as_ref().map(EditToken::hash);
        let can_share =
            |owner: &Link| shared && owner.edit_token.is_none() && owner.url == url.as_str();
        let mut collisions = 0;
        for _ in 0..ATTEMPTS {
            let code = match alias {
                Some(alias) => alias.clone(),
                None => self.candidate(url, shared, collisions)?,
            };
            let (id, store) = (Uuid::new_v4(), self.shards.of(&code));
            // Insert first and look afterwards. The other way round, two clients would both see a free code.
            let new = NewLink { code: code.clone(), id, url: url.clone(), edit_token, ttl };
            if let Some(link) = self.insert(new).await? {
                return Ok(Created::New(link, token));
            }
            match store.find(&code).await? {
                // Its code is free again. If several want it, the next insert decides.
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

    fn candidate(&self, url: &LongUrl, shared: bool, collisions: u32) -> Result<Code, Error> {
        if self.codes == Codes::Random {
            return random_code();
        }
        // A link of its own starts with a random salt, or the hundredth for one URL would need a hundred tries.
        let fixed = (shared && collisions < SHARED_SALTS).then_some(collisions);
        let salt = fixed.map_or_else(getrandom::u32, Ok).map_err(Error::internal)?;
        Ok(crc32_code(url.as_str(), salt))
    }

    /// Inserts the link together with others; `None` if its code has an owner. When the time is over, nobody knows.
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
/// Inserts whatever waits, in one statement and one commit; meanwhile the next gather. Under load, a round trip and a
/// flush of the log to disk are shared by many; without load, nobody waits for company.
async fn insert_together(store: Store, queue: Arc<Mutex<mpsc::Receiver<Waiting>>>) {
    let mut batch = Vec::with_capacity(BATCH);
    // Locked while it waits: the others would wait for the same creates.
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
