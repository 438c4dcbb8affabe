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
    store::{Link, NewRow, Store, TIMEOUT},
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

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct NewLink {
    /// Where it leads.
    pub url: LongUrl,
    /// Its code, if the client chose one.
    pub alias: Option<Code>,
    /// How long it lives, if not for ever.
    pub expires_in_seconds: Option<i32>,
}

/// What a client gets.
pub enum Created {
    /// A new link, with its token unless it is shared.
    New(Link, Option<EditToken>),
    /// The shared link that is there for this URL.
    Existing(Link),
}

/// Makes links.
pub struct Creator {
    shards: Arc<Shards>,
    codes: Codes,
    /// One for each shard.
    queues: Vec<mpsc::Sender<Waiting>>,
}

/// A create that waits for its insert.
struct Waiting {
    row: NewRow,
    outcome: oneshot::Sender<Result<Option<Link>, Error>>,
}

impl Creator {
    /// Makes links with such codes in these databases, until it is told to stop.
    pub fn start(
        shards: Arc<Shards>,
        codes: Codes,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let start = |store: &Store| {
            let (queue, waiting) = mpsc::channel(BATCH);
            let waiting = Arc::new(Mutex::new(waiting));
            for _ in 0..INSERTERS {
                let inserts = insert_together(store.clone(), Arc::clone(&waiting));
                tasks.spawn(stop.clone().run_until_cancelled_owned(inserts));
            }
            queue
        };
        let queues = shards.all().iter().map(start).collect();
        Self { shards, codes, queues }
    }

    // ANCHOR: create_link
    /// Makes the link, or finds the shared one for this URL.
    pub async fn create(&self, new: &NewLink) -> Result<Created, Error> {
        // Only a plain link can be given to several clients, and only its checksum finds it again. Nobody may change
        // it, since others have it too: it has no token.
        let plain = new.alias.is_none() && new.expires_in_seconds.is_none();
        let shared = plain && self.codes == Codes::Crc32;
        let token = if shared { None } else { Some(EditToken::generate()?) };
        for attempt in 0..ATTEMPTS {
            let code = match &new.alias {
                Some(alias) => alias.clone(),
                None => self.candidate(new, shared, attempt)?,
            };
            let row = NewRow {
                code,
                id: Uuid::new_v4(),
                url: new.url.as_str().to_owned(),
                edit_token: token.as_ref().map(EditToken::hash),
                expires_in_seconds: new.expires_in_seconds,
            };
            match self.claim(row).await? {
                Claim::Won(link) => return Ok(Created::New(link, token)),
                Claim::Lost(_) if new.alias.is_some() => return Err(Error::AliasTaken),
                Claim::Lost(Some(owner))
                    if shared && owner.edit_token.is_none() && owner.url == new.url.as_str() =>
                {
                    return Ok(Created::Existing(owner));
                }
                // A collision: try the next code.
                Claim::Lost(_) => {}
            }
        }
        Err(Error::NoFreeCode)
    }

    /// Insert first and look afterwards. The other way round, two clients would both see a free code.
    async fn claim(&self, row: NewRow) -> Result<Claim, Error> {
        if let Some(link) = self.insert(row.clone()).await? {
            return Ok(Claim::Won(link));
        }
        let store = self.shards.of(&row.code);
        match store.find(&row.code).await? {
            Some(owner) if !owner.is_expired() => return Ok(Claim::Lost(Some(owner))),
            // Its code is free again. If several want it, the next insert decides.
            Some(expired) => drop(store.delete(&expired).await?),
            None => {}
        }
        Ok(self.insert(row).await?.map_or(Claim::Lost(None), Claim::Won))
    }
    // ANCHOR_END: create_link

    fn candidate(&self, new: &NewLink, shared: bool, attempt: u32) -> Result<Code, Error> {
        if self.codes == Codes::Random {
            return random_code();
        }
        // A link of its own starts with a random salt, or the hundredth for one URL would need a hundred tries.
        let fixed = (shared && attempt < SHARED_SALTS).then_some(attempt);
        let salt = fixed.map_or_else(getrandom::u32, Ok).map_err(Error::internal)?;
        Ok(crc32_code(new.url.as_str(), salt))
    }

    /// Inserts the row together with others; `None` if its code has an owner. When the time is over, nobody knows.
    async fn insert(&self, row: NewRow) -> Result<Option<Link>, Error> {
        let queue = &self.queues[self.shards.number_of(&row.code)];
        let inserted = async {
            let (outcome, answer) = oneshot::channel();
            queue.send(Waiting { row, outcome }).await.ok()?;
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
        batch.retain(|waiting: &Waiting| !waiting.outcome.is_closed());
        let rows: Vec<_> = batch.iter().map(|waiting| &waiting.row).collect();
        let inserted = store.insert(&rows).await;
        let mut inserted = inserted
            .map(|links| links.into_iter().map(|link| (link.id, link)).collect::<HashMap<_, _>>());
        for Waiting { row, outcome } in batch.drain(..) {
            let own = inserted.as_mut().map(|links| links.remove(&row.id));
            // Nobody listens if the client has given up.
            let _ = outcome.send(own.map_err(|error| error.clone()));
        }
    }
}
// ANCHOR_END: insert_together

enum Claim {
    Won(Link),
    /// To the owner, unless it has gone in the meantime.
    Lost(Option<Link>),
}
