//! Which indexes cost something and bring nothing?

use crate::store::Existing;

/// No query has used it since the statistics were reset.
pub const NEVER_USED: &str = "never used";
/// Another index begins with the same keys.
pub const COVERED: &str = "covered by another";
/// A build broke off. No query uses it, and every write pays for it.
pub const INVALID: &str = "invalid";

// ANCHOR: findings
/// What is wrong with this one, of all of them. An index that keeps a rule works also if no query uses it.
pub fn findings(index: &Existing, all: &[Existing]) -> Vec<&'static str> {
    let mut findings = Vec::new();
    if index.state == "invalid" {
        return vec![INVALID];
    }
    if index.scans == 0 && !index.unique {
        findings.push(NEVER_USED);
    }
    let covers = |other: &Existing| {
        let longer = other.keys.len() > index.keys.len();
        let first = other.keys.len() == index.keys.len() && other.name < index.name;
        other.state == "ready"
            && [&other.kind, &index.kind].into_iter().all(|kind| kind == "btree")
            && other.condition == index.condition
            && other.keys.starts_with(&index.keys)
            && (longer || first || other.unique)
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
            Existing { kind: "hash".to_owned(), ..index("hash", &["born"]) },
        ];
        let covered = all.iter().filter(|it| findings(it, &all).contains(&COVERED));
        let covered: Vec<_> = covered.map(|it| it.name.as_str()).collect();
        assert_eq!(covered, ["city", "city_again", "email_again"]);
    }

    #[test]
    fn an_index_that_nobody_uses_is_found_and_one_that_keeps_a_rule_is_not() {
        let unused = Existing { scans: 0, ..index("a", &["city"]) };
        assert_eq!(findings(&unused, &[]), [NEVER_USED]);
        assert!(findings(&Existing { unique: true, ..unused.clone() }, &[]).is_empty());
        let invalid = Existing { state: "invalid".to_owned(), ..unused };
        assert_eq!(findings(&invalid, &[]), [INVALID]);
    }
}
