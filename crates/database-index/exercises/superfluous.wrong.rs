// caught by: finding::
/// What is wrong with this one, of all of them. An index that keeps a rule works also if no query uses it.
pub fn findings(index: &Existing, all: &[Existing]) -> Vec<&'static str> {
    let mut findings = Vec::new();
    if index.state == "invalid" {
        return vec![INVALID];
    }
    // The mistake: a unique index that no query uses is called unused, and its rule would go with it.
    if index.scans == 0 {
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
