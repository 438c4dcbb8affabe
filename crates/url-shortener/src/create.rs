//! How does a link come to own a code? It tries to insert itself, and the primary key decides.

use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::{
    alias::Alias,
    code::{Code, Codes, crc32_code, random_code},
    error::Error,
    long_url::LongUrl,
    permutation::Permutation,
    shards::Shards,
    store::Link,
};

/// So many codes are tried. Even with half of all codes in use this fails once in 65,536 times.
const ATTEMPTS: u32 = 16;
/// So many of them have a salt that the next client with the same URL finds again. Chance never needs
/// the third; somebody who makes URLs collide on purpose then costs others no more than the sharing.
const SHARED_SALTS: u32 = 8;

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct NewLink {
    /// Where it leads.
    pub url: LongUrl,
    /// Its code, if the client chose one.
    pub alias: Option<Alias>,
    /// How long it lives, if not for ever.
    pub expires_in_seconds: Option<i32>,
}

/// What a client gets.
#[derive(Clone, Debug)]
pub enum Created {
    /// A new link.
    New(Link),
    /// The link that is there for this URL.
    Existing(Link),
}

/// Makes links.
pub struct Creator {
    shards: Arc<Shards>,
    codes: Codes,
    /// Read from the first shard when it is first needed.
    permutation: OnceCell<Permutation>,
}

impl Creator {
    /// Makes links with such codes in these databases.
    pub fn new(shards: Arc<Shards>, codes: Codes) -> Self {
        Self { shards, codes, permutation: OnceCell::new() }
    }

    // ANCHOR: create_link
    /// Makes the link, or finds the one that is there for everybody.
    pub async fn create(&self, new: &NewLink) -> Result<Created, Error> {
        if let Some(alias) = &new.alias {
            return match self.claim(alias.code(), new).await? {
                Claim::Won(link) => Ok(Created::New(link)),
                Claim::Lost(_) => Err(Error::AliasTaken),
            };
        }
        for attempt in 0..ATTEMPTS {
            match self.claim(&self.candidate(new, attempt).await?, new).await? {
                Claim::Won(link) => return Ok(Created::New(link)),
                Claim::Lost(Some(owner))
                    if self.is_shared(new) && owner.shared && owner.url == new.url.as_str() =>
                {
                    return Ok(Created::Existing(owner));
                }
                // A collision: the next candidate, please.
                Claim::Lost(_) => {}
            }
        }
        Err(Error::NoFreeCode)
    }

    /// Insert first and look afterwards. The other way round, two clients would both see a free code.
    async fn claim(&self, code: &Code, new: &NewLink) -> Result<Claim, Error> {
        let store = self.shards.of(code);
        let insert =
            || store.insert(code, new.url.as_str(), self.is_shared(new), new.expires_in_seconds);
        if let Some(link) = insert().await? {
            return Ok(Claim::Won(link));
        }
        let owner = store.find(code).await?;
        if owner.as_ref().is_some_and(|owner| !owner.is_expired()) {
            return Ok(Claim::Lost(owner));
        }
        // Nobody's any more. Its clicks go with it, and whoever inserts first is the next owner.
        store.delete_if_expired(code).await?;
        Ok(insert().await?.map_or(Claim::Lost(None), Claim::Won))
    }
    // ANCHOR_END: create_link

    /// Only a plain link may be given to several clients, and only CRC-32 finds it again.
    fn is_shared(&self, new: &NewLink) -> bool {
        self.codes == Codes::Crc32 && new.alias.is_none() && new.expires_in_seconds.is_none()
    }

    async fn candidate(&self, new: &NewLink, attempt: u32) -> Result<Code, Error> {
        match self.codes {
            Codes::Crc32 => {
                // A link of one's own begins anywhere, or the hundredth for one URL would need a hundred tries.
                let salt = if self.is_shared(new) && attempt < SHARED_SALTS {
                    attempt
                } else {
                    getrandom::u32().map_err(Error::internal)?
                };
                Ok(crc32_code(new.url.as_str(), salt))
            }
            Codes::Sequence => {
                let number = self.shards.first().next_number().await?;
                Ok(Code::from_number(self.permutation().await?.apply(number)))
            }
            Codes::Random => random_code(),
        }
    }

    async fn permutation(&self) -> Result<&Permutation, Error> {
        self.permutation
            .get_or_try_init(async || {
                let mut key = [0; 16];
                getrandom::fill(&mut key).map_err(Error::internal)?;
                Ok(Permutation::new(self.shards.first().permutation_key(key).await?))
            })
            .await
    }
}

enum Claim {
    Won(Link),
    /// To the owner, unless it has gone in the meantime.
    Lost(Option<Link>),
}
