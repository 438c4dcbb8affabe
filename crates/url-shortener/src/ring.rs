//! On which shard does a code live? On the one that owns its arc of the ring.

use sha2::{Digest, Sha256};

use crate::{
    code::Code,
    error::Error,
    store::{Link, Store},
};

/// With this many points for each shard, the shares of the shards differ by about 6 % (one divided by the root).
pub const VIRTUAL_NODES: u32 = 256;

/// A consistent-hash ring (Karger et al., 1997) over shards 0 to n − 1.
#[derive(Clone, Debug)]
pub struct Ring {
    /// Points on the ring, in order, and the shard of each.
    points: Vec<(u64, usize)>,
}

// ANCHOR: ring
impl Ring {
    /// Each shard owns the arcs that end in its points. With one point it has one arc, of any length; with many points
    /// the lengths even out.
    pub fn new(shards: usize, virtual_nodes: u32) -> Self {
        let mut points = Vec::new();
        for shard in 0..shards {
            let name = |node| format!("shard {shard} node {node}");
            points.extend((0..virtual_nodes).map(|node| (place(&name(node)), shard)));
        }
        points.sort_unstable();
        Self { points }
    }

    // ANCHOR: shard_of
    /// The shard of the first point at or after the code's place. After the last point comes the first.
    pub fn shard_of(&self, code: &Code) -> usize {
        let place = place(code.as_str());
        let next = self.points.partition_point(|&(point, _)| point < place);
        self.points.get(next).or(self.points.first()).map_or(0, |&(_, shard)| shard)
    }
    // ANCHOR_END: shard_of
}
// ANCHOR_END: ring

/// A place on the ring. It decides where data lies, so it must never change. The standard library's hasher may change,
/// and CRC32 puts neighbours beside each other.
fn place(name: &str) -> u64 {
    let digest: [u8; 32] = Sha256::digest(name).into();
    digest[..8].iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// The databases, in the order of the ring. The order matters: a new shard is added at the end.
#[derive(Debug)]
pub struct Shards {
    ring: Ring,
    stores: Vec<Store>,
}

impl Shards {
    /// Connects to each database with its first query. The error is a malformed URL.
    pub fn new(urls: &[String]) -> Result<Self, sqlx::Error> {
        let stores = urls.iter().map(|url| Store::new(url)).collect::<Result<_, _>>()?;
        Ok(Self { ring: Ring::new(urls.len(), VIRTUAL_NODES), stores })
    }

    /// The number of the shard that has this code.
    pub fn number_of(&self, code: &Code) -> usize {
        self.ring.shard_of(code)
    }

    /// The shard that has this code.
    pub fn of(&self, code: &Code) -> &Store {
        &self.stores[self.number_of(code)]
    }

    /// All shards, by number.
    pub fn all(&self) -> &[Store] {
        &self.stores
    }

    /// The link, if it leads anywhere.
    pub async fn link(&self, code: &Code) -> Result<Link, Error> {
        match self.of(code).find(code).await? {
            None => Err(Error::NotFound),
            Some(link) if link.is_expired() => Err(Error::Gone),
            Some(link) => Ok(link),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn places_never_change() {
        // SHA-256("abc") begins with ba7816bf 8f01cfea (FIPS 180-2, appendix B.1).
        assert_eq!(place("abc"), 0xba78_16bf_8f01_cfea);
    }

    #[test]
    fn after_the_last_point_comes_the_first() {
        // Every code lies after both.
        let ring = Ring { points: vec![(1, 1), (2, 0)] };
        assert_eq!(ring.shard_of(&Code::from_number(0)), 1);
    }

    proptest! {
        #[test]
        fn a_new_shard_takes_codes_and_the_old_ones_exchange_none(
            shards in 1_usize..8,
            number in 0..crate::code::CODES,
        ) {
            let code = Code::from_number(number);
            let shard_of = |shards| Ring::new(shards, VIRTUAL_NODES).shard_of(&code);
            let (before, after) = (shard_of(shards), shard_of(shards + 1));
            prop_assert!(before < shards);
            prop_assert!(after == before || after == shards);
        }
    }
}
