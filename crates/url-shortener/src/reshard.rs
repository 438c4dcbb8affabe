//! Are these the databases that the links are in? And how does a link get to a new one?

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join_all;

use crate::{error::Error, ring::Shards, store::Store};

/// Links that are looked at, and moved, at a time.
const BATCH: i64 = 500;
/// Rows of clicks that are copied at a time.
const PIECE: i64 = 1_000;

const OTHER_RING: &str = "these are not the shards that the links are in: give all of them in the old order, and new ones at the end";
const NOT_MOVED: &str = "a shard is new, or a move was cut off: start once with --reshard, and with no other process running";
const TAKEN: &str =
    "some links stay where nobody finds them: on their new shard, their codes have other owners";

// ANCHOR: ring_check
/// Checks that these shards are the ring that the databases know, or makes them so.
///
/// A start on other shards would hide links, and somebody else could then take their codes.
pub async fn open(shards: &Shards, reshard: bool) -> Result<(), Error> {
    let known = try_join_all(shards.all().iter().map(Store::ring)).await?;
    let ring: Vec<_> = known.iter().map(|(shard, ..)| *shard).collect();
    if ring.iter().collect::<BTreeSet<_>>().len() < ring.len() {
        return Err(Error::WrongShards("one database is given as two shards"));
    }
    if !known.iter().all(|(_, shards, _)| ring.starts_with(shards)) {
        return Err(Error::WrongShards(OTHER_RING));
    }
    if known.iter().all(|(_, shards, moving)| *shards == ring && !moving) {
        return Ok(());
    }
    let is_new = known.iter().all(|(_, shards, _)| shards.is_empty());
    if !is_new && !reshard {
        return Err(Error::WrongShards(NOT_MOVED));
    }
    // The databases know of the move before it begins. If it is cut off, the next start has to finish it.
    let ring = &ring[..];
    let tell = |moving| shards.all().iter().map(move |store| store.set_ring(ring, moving));
    try_join_all(tell(!is_new)).await?;
    if !is_new {
        move_links(shards).await?;
    }
    try_join_all(tell(false)).await?;
    Ok(())
}
// ANCHOR_END: ring_check

// ANCHOR: reshard
/// Moves every link to where the ring says that it belongs.
///
/// It copies first and deletes afterwards, and only what was copied. Wherever it is cut off, each link is in one place
/// or in both, and the next run finishes it. No other process may run meanwhile: a click that comes between the two
/// would be lost.
async fn move_links(shards: &Shards) -> Result<(), Error> {
    let mut all_moved = true;
    for (here, store) in shards.all().iter().enumerate() {
        let mut codes = store.codes_after("", BATCH).await?;
        while let Some(last) = codes.last().cloned() {
            let mut leaving: BTreeMap<usize, Vec<_>> = BTreeMap::new();
            for code in codes {
                let there = shards.number_of(&code);
                if there != here {
                    leaving.entry(there).or_default().push(code);
                }
            }
            for (there, codes) in leaving {
                let there = &shards.all()[there];
                let copied = store.copy_links(&codes, there).await?;
                let mut done = 0;
                while store.copy_clicks(&copied, (done, PIECE), there).await? == PIECE {
                    done += PIECE;
                }
                store.delete_all(&codes, &copied).await?;
                all_moved &= copied.len() == codes.len();
            }
            codes = store.codes_after(last.as_str(), BATCH).await?;
        }
    }
    if all_moved { Ok(()) } else { Err(Error::WrongShards(TAKEN)) }
}
// ANCHOR_END: reshard
