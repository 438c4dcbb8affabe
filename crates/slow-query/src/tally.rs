//! Are two results the same? Their rows are counted, and a digest is made of them.

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

/// What the rows of a result add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// How many there are.
    pub rows: u64,
    /// Bytes that are sent to the caller, of all columns.
    pub bytes: u64,
    /// Equal for equal rows.
    #[serde(serialize_with = "hex")]
    digest: u128,
}

impl Tally {
    // ANCHOR: add
    /// Adds a row. A value is preceded by its length, so that `a`, `bc` and `ab`, `c` differ, and NULL is no empty text. If
    /// the query orders its rows, their order counts too; otherwise the same rows in another order are the same result.
    pub fn add<'a>(&mut self, ordered: bool, values: impl Iterator<Item = Option<&'a [u8]>>) {
        let mut row = Sha256::new();
        if ordered {
            row.update(self.digest.to_be_bytes());
        }
        for value in values {
            let length = value.map_or(u64::MAX, |value| value.len() as u64);
            row.update(length.to_be_bytes());
            row.update(value.unwrap_or_default());
        }
        let mut first = [0; 16];
        first.copy_from_slice(&row.finalize()[..16]);
        let row = u128::from_be_bytes(first);
        // A sum, and no exclusive or: two equal rows would cancel each other out.
        self.digest = if ordered { row } else { self.digest.wrapping_add(row) };
        self.rows += 1;
    }
    // ANCHOR_END: add

    /// Whether the rows are the same. The caller may have asked for fewer columns, so bytes do not count.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.rows, self.digest) == (other.rows, other.digest)
    }
}

fn hex<S: Serializer>(digest: &u128, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{digest:032x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(ordered: bool, rows: &[&[Option<&str>]]) -> Tally {
        let mut tally = Tally::default();
        for row in rows {
            tally.add(ordered, row.iter().map(|value| value.map(str::as_bytes)));
        }
        tally
    }

    #[test]
    fn order_counts_only_where_the_query_orders() {
        let (ab, ba): ([&[_]; 2], [&[_]; 2]) =
            ([&[Some("a")], &[Some("b")]], [&[Some("b")], &[Some("a")]]);
        assert!(tally(false, &ab).is_same(&tally(false, &ba)));
        assert!(!tally(true, &ab).is_same(&tally(true, &ba)));
    }

    #[test]
    fn what_looks_alike_is_not_the_same() {
        let one: &[_] = &[Some("a"), Some("bc")];
        for ordered in [false, true] {
            for other in [
                vec![&[Some("ab"), Some("c")][..]],
                vec![&[Some("abc")][..]],
                vec![&[Some("abc"), None][..]],
                vec![&[Some("abc"), Some("")][..]],
                vec![],
                vec![one, one],
            ] {
                assert!(!tally(ordered, &[one]).is_same(&tally(ordered, &other)), "{other:?}");
            }
            // Each twice: an exclusive or would make nothing of either.
            let two: &[_] = &[Some("x")];
            assert!(!tally(ordered, &[one, one]).is_same(&tally(ordered, &[two, two])));
            // Twice is not none.
            assert!(!tally(ordered, &[one, one]).is_same(&tally(ordered, &[])));
        }
    }
}
