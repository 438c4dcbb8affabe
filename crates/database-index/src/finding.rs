//! Which indexes cost something and bring nothing?

use serde::Serialize;

use crate::store::Existing;

/// What is wrong with an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Finding {
    /// No query has used it since the statistics were reset.
    #[serde(rename = "never used")]
    NeverUsed,
    /// Another index begins with the same keys.
    #[serde(rename = "covered by another")]
    Covered,
    /// A build broke off. No query uses it, and every write pays for it.
    #[serde(rename = "invalid")]
    Invalid,
}

// ANCHOR: findings
/// What is wrong with this one, of all of them. An index that keeps a rule works also if no query uses it.
pub fn findings(index: &Existing, all: &[Existing]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if index.building {
        return findings;
    }
    if !index.valid {
        return vec![Finding::Invalid];
    }
    if index.scans == 0 && !index.unique {
        findings.push(Finding::NeverUsed);
    }
    let covers = |other: &&Existing| {
        let longer = other.keys.len() > index.keys.len();
        let first = other.keys.len() == index.keys.len() && other.name < index.name;
        other.valid
            && [&other.kind, &index.kind].into_iter().all(|kind| kind == "btree")
            && other.condition == index.condition
            && other.keys.starts_with(&index.keys)
            && (longer || first || other.unique)
            && other.name != index.name
    };
    if !index.unique && all.iter().any(|other| covers(&other)) {
        findings.push(Finding::Covered);
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
            valid: true,
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
        let covered = all.iter().filter(|it| findings(it, &all).contains(&Finding::Covered));
        let covered: Vec<_> = covered.map(|it| it.name.as_str()).collect();
        assert_eq!(covered, ["city", "city_again", "email_again"]);
    }

    #[test]
    fn an_index_that_nobody_uses_is_found_and_one_that_keeps_a_rule_is_not() {
        let unused = Existing { scans: 0, ..index("a", &["city"]) };
        assert_eq!(findings(&unused, &[]), [Finding::NeverUsed]);
        assert_eq!(findings(&Existing { unique: true, ..unused.clone() }, &[]), []);
        let invalid = Existing { valid: false, ..unused };
        assert_eq!(findings(&invalid, &[]), [Finding::Invalid]);
        assert_eq!(findings(&Existing { building: true, ..invalid }, &[]), []);
    }
}
