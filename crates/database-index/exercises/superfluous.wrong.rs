// caught by: finding::
/// What is wrong with this one, of all of them. An index that keeps a rule works also if no query uses it, and so does one in
/// which deletions look whether somebody refers to the row.
pub fn findings(index: &Existing, all: &[Existing]) -> Vec<&'static str> {
    let mut findings = Vec::new();
    if index.state == "invalid" {
        return vec![INVALID];
    }
    // The mistake: an index that keeps a rule is called unused where no query uses it, and its rule would go with it.
    if index.state == "ready" && index.scans == 0 {
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
