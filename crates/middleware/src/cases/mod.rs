//! x
pub fn suite() -> conform::case::Suite {
    conform::case::Suite { calls: "", cases: vec![] }
}
