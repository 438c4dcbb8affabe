//! A shard was added, and the ring says where each link belongs. How does it get there?

use std::collections::BTreeMap;

use crate::{error::Error, shards::Shards};

/// Links looked at, and moved, at a time.
const BATCH: u32 = 500;

// ANCHOR: reshard
/// Moves every link that is not where the ring says to where it belongs; returns how many those were.
///
/// Copied first and deleted afterwards: wherever this is interrupted, each link is in one place or in
/// both, and the next run finishes it. Not meant for a service that is running: a click that comes between
/// the two is lost, and a link is not found from the moment the ring grows until it has been moved.
pub async fn reshard(shards: &Shards) -> Result<u64, Error> {
    let mut moved = 0;
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
                shards.all()[there].unpack(&store.pack(&codes).await?).await?;
                store.delete_all(&codes).await?;
                moved += codes.len() as u64;
            }
            codes = store.codes_after(last.as_str(), BATCH).await?;
        }
    }
    Ok(moved)
}
// ANCHOR_END: reshard
