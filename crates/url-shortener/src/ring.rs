//! On which shard does a code live? On the one that owns its arc of the ring.

use sha2::{Digest, Sha256};

use crate::code::Code;

/// With this many points each, the shares of shards differ by about 6 % (one over the root).
const VIRTUAL_NODES: u32 = 256;

/// A consistent-hash ring (Karger et al., 1997) over shards 0 to n − 1.
///
/// Shards are known by their place in the list, so a new one is added at the end.
#[derive(Clone, Debug)]
pub struct Ring {
    /// Points on the ring, in order, and the shard of each.
    points: Vec<(u64, usize)>,
}

// ANCHOR: ring
impl Ring {
    /// A ring over this many shards.
    pub fn new(shards: usize) -> Self {
        Self::with_virtual_nodes(shards, VIRTUAL_NODES)
    }

    /// Each shard owns the arcs that end in its points. One point gives it one arc, of any length; with
    /// many points the lengths even out.
    pub fn with_virtual_nodes(shards: usize, virtual_nodes: u32) -> Self {
        let points_of = |shard| {
            (0..virtual_nodes)
                .map(move |node| (place(&format!("shard {shard} node {node}")), shard))
        };
        let mut points: Vec<_> = (0..shards).flat_map(points_of).collect();
        points.sort_unstable();
        Self { points }
    }

    // ANCHOR: shard_of
    /// The shard of the first point at or after the code's place, and past the end the first of all.
    pub fn shard_of(&self, code: &Code) -> usize {
        let place = place(code.as_str());
        let next = self.points.partition_point(|&(point, _)| point < place);
        self.points.get(next).or(self.points.first()).map_or(0, |&(_, shard)| shard)
    }
    // ANCHOR_END: shard_of
}
// ANCHOR_END: ring

/// A place on the ring. It is a part of where data lies, so it must never change: not the standard
/// library's hasher, which may; and not CRC32, which puts neighbours beside each other.
fn place(name: &str) -> u64 {
    let digest: [u8; 32] = Sha256::digest(name).into();
    digest[..8].iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
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

    proptest! {
        #[test]
        fn a_new_shard_takes_codes_and_the_old_ones_exchange_none(
            shards in 1_usize..8,
            number in 0..crate::code::CODES,
        ) {
            let code = Code::from_number(number);
            let (before, after) = (Ring::new(shards).shard_of(&code), Ring::new(shards + 1).shard_of(&code));
            prop_assert!(before < shards);
            prop_assert!(after == before || after == shards);
        }
    }
}
