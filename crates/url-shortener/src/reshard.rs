//! Are these the databases that the links are in? And how does a link get to a new one?

use anyhow::ensure;
use futures_util::future::try_join_all;

use crate::{code::Code, ring::Shards, store::Store};

/// Links that are looked at, and moved, at a time.
const BATCH: i64 = 500;

// ANCHOR: ring_check
/// Checks that these shards are the ring that the databases know, or makes them so.
///
/// A start on other shards would hide links, and somebody else could then take their codes.
pub async fn open(shards: &Shards, reshard: bool) -> anyhow::Result<()> {
    let known = try_join_all(shards.all().iter().map(Store::ring)).await?;
    let ring: Vec<_> = known.iter().map(|(shard, ..)| *shard).collect();
    let is_unique = ring.iter().enumerate().all(|(n, shard)| !ring[..n].contains(shard));
    ensure!(is_unique, "one database is given as two shards");
    ensure!(
        known.iter().all(|(_, shards, _)| ring.starts_with(shards)),
        "these are not the shards that the links are in: give all of them in the old order, and new ones at the end",
    );
    if known.iter().all(|(_, shards, moving)| *shards == ring && !moving) {
        return Ok(());
    }
    let is_new = known.iter().all(|(_, shards, _)| shards.is_empty());
    ensure!(
        is_new || reshard,
        "a shard is new, or a move was cut off: start once with --reshard, and with no other process running",
    );
    let ring = &ring[..];
    let tell = |moving| shards.all().iter().map(move |store| store.set_ring(ring, moving));
    if !is_new {
        // The databases know of the move before it begins. If it is cut off, the next start has to finish it.
        try_join_all(tell(true)).await?;
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
async fn move_links(shards: &Shards) -> anyhow::Result<()> {
    let mut all_moved = true;
    for (here, from) in shards.all().iter().enumerate() {
        let mut codes = from.codes_after("", BATCH).await?;
        while let Some(last) = codes.last() {
            for (there, to) in shards.all().iter().enumerate() {
                let leaves = |code: &&Code| there != here && shards.number_of(code) == there;
                let leaving: Vec<_> = codes.iter().filter(leaves).collect();
                if leaving.is_empty() {
                    continue;
                }
                let copied = from.copy_links(&leaving, to).await?;
                from.copy_clicks(&copied, to).await?;
                from.delete_all(&copied).await?;
                all_moved &= copied.len() == leaving.len();
            }
            codes = from.codes_after(last.as_str(), BATCH).await?;
        }
    }
    ensure!(
        all_moved,
        "some links stay where nobody finds them: on their new shard, their codes have other owners",
    );
    Ok(())
}
// ANCHOR_END: reshard
