//! Are these the databases that the links are in? And how does a link get to a new one?

use anyhow::ensure;
use futures_util::future::try_join_all;

use crate::{code::Code, ring::Shards, store::Store};

// ANCHOR: ring_check
/// Checks that these shards are the ring that the databases remember. If they are not, moves the links and lets the
/// databases remember the new ring, or fails.
///
/// A start on other shards would hide links, and somebody else could then take their codes.
pub async fn open(shards: &Shards, reshard: bool) -> anyhow::Result<()> {
    let known = try_join_all(shards.all().iter().map(Store::ring)).await?;
    let ring = &known.iter().map(|(shard, ..)| *shard).collect::<Vec<_>>()[..];
    let is_unique = ring.iter().enumerate().all(|(n, shard)| !ring[..n].contains(shard));
    ensure!(is_unique, "two --shard options name one database: give `serve` each database once");
    ensure!(
        known.iter().all(|(_, shards, _)| ring.starts_with(shards)),
        "these are not the shards that hold the links: give `serve` all old shards in the old order, and new ones at the end",
    );
    if known.iter().all(|(_, shards, moving)| shards == ring && !moving) {
        return Ok(());
    }
    let is_new = known.iter().all(|(_, shards, _)| shards.is_empty());
    ensure!(
        is_new || reshard,
        "a shard is new, or a move was cut off: stop all other processes, and run `serve` once with --reshard",
    );
    let tell = |moving| shards.all().iter().map(move |store| store.set_ring(ring, moving));
    if !is_new {
        // The databases note the move before it begins. If it is cut off, the next start has to finish it.
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
/// It copies first and deletes afterwards, and it deletes only what was copied. Wherever it is cut off, each link is in
/// one place or in both, and the next run finishes the move. No other process may run meanwhile: a click that comes
/// between the copy and the delete would be lost.
async fn move_links(shards: &Shards) -> anyhow::Result<()> {
    let mut all_moved = true;
    for (here, from) in shards.all().iter().enumerate() {
        let mut codes = from.codes_after("").await?;
        while let Some(last) = codes.last() {
            for (there, to) in shards.all().iter().enumerate() {
                let leaves = |code: &&Code| there != here && shards.number_of(code) == there;
                let leaving: Vec<_> = codes.iter().filter(leaves).collect();
                let copied = from.copy(&leaving, to).await?;
                from.delete_all(&copied).await?;
                all_moved &= copied.len() == leaving.len();
            }
            codes = from.codes_after(last.as_str()).await?;
        }
    }
    ensure!(
        all_moved,
        "links were left behind, since other links have their codes: delete one of each two, and run `serve` with --reshard",
    );
    Ok(())
}
// ANCHOR_END: reshard
