//! Which indexes cost something and bring nothing?

use crate::store::Existing;

/// No query has used it since the statistics were reset.
pub const NEVER_USED: &str = "never used";
/// Another index begins with the same keys, and has all that this one includes.
pub const COVERED: &str = "covered by another";
/// A build broke off. No query uses it, and every write pays for it.
pub const INVALID: &str = "invalid";

// ANCHOR: findings
/// What is wrong with this one, of all of them. An index that keeps a rule works also if no query uses it, and so does one in
/// which deletions look whether somebody refers to the row.
pub fn findings(index: &Existing, all: &[Existing]) -> Vec<&'static str> {
    let mut findings = Vec::new();
    if index.state == "invalid" {
        return vec![INVALID];
    }
    if index.state == "ready" && index.scans == 0 && !index.needed {
        findings.push(NEVER_USED);
    }
    let covers = |other: &Existing| {
        let size = |it: &Existing| (it.keys.len(), it.include.len());
        let first = size(other) == size(index) && other.name < index.name;
        let has = |it: &String| other.keys.contains(it) || other.include.contains(it);
        other.state == "ready"
            && [&other.kind, &index.kind].into_iter().all(|kind| kind == "btree")
            && other.condition == index.condition
            && other.keys.starts_with(&index.keys)
            && index.include.iter().all(has)
            && (size(other) > size(index) || first || other.unique)
            && other.name != index.name
    };
    if !index.unique && all.iter().any(covers) {
        findings.push(COVERED);
    }
    findings
}
// ANCHOR_END: findings

#[cfg(test)]
mod tests {
    use super::*;

    fn index(name: &str, keys: &[&str]) -> Existing {
        Existing {
            name: name.to_owned(),
            kind: "btree".to_owned(),
            keys: keys.iter().map(|&key| key.to_owned()).collect(),
            state: "ready".to_owned(),
            scans: 1,
            ..Existing::default()
        }
    }

    #[test]
    fn an_index_whose_keys_begin_another_is_covered() {
        let all = [
            index("city", &["city"]),
            index("city_again", &["city"]),
            index("city_born", &["city", "born"]),
            index("born", &["born"]),
            Existing { condition: Some("x".to_owned()), ..index("part", &["born", "city"]) },
            Existing { unique: true, ..index("email", &["email"]) },
            index("email_again", &["email"]),
            // A query of the name, by the status, is answered by the index alone.
            Existing { include: vec!["name".to_owned()], ..index("status", &["status"]) },
            index("status_again", &["status"]),
            index("status_born", &["status", "born"]),
            Existing { include: vec!["name".to_owned()], ..index("notes", &["notes"]) },
            index("notes_name", &["notes", "name"]),
            Existing { kind: "hash".to_owned(), ..index("hash", &["born"]) },
        ];
        let covered = all.iter().filter(|it| findings(it, &all).contains(&COVERED));
        let covered: Vec<_> = covered.map(|it| it.name.as_str()).collect();
        assert_eq!(covered, ["city", "city_again", "email_again", "status_again", "notes"]);
    }

    #[test]
    fn an_index_that_nobody_uses_is_found_and_one_that_is_needed_all_the_same_is_not() {
        let unused = Existing { scans: 0, ..index("a", &["city"]) };
        assert_eq!(findings(&unused, &[]), [NEVER_USED]);
        assert!(findings(&Existing { needed: true, ..unused.clone() }, &[]).is_empty());
        let building = Existing { state: "building".to_owned(), ..unused.clone() };
        assert!(findings(&building, &[]).is_empty());
        let invalid = Existing { state: "invalid".to_owned(), ..unused };
        assert_eq!(findings(&invalid, &[]), [INVALID]);
    }
}
