// caught by: version::
/// Adds the versions of another node, and drops every version that another one replaces.
pub fn merge(ours: &mut Vec<Version>, theirs: &[Version]) {
    for version in theirs {
        if !ours.iter().any(|it| it.dot == version.dot) {
            ours.push(version.clone());
        }
    }
    // The mistake: a greater counter of the same node is taken for newer, as with plain version vectors on servers. Two
    // clients that write through one node without reading lose one of their writes.
    let newer = |dot: Dot, all: &[Version]| {
        all.iter().any(|it| it.past.has(dot) || it.dot.node == dot.node && it.dot > dot)
    };
    let all = ours.clone();
    ours.retain(|it| !newer(it.dot, &all));
    ours.sort_by_key(|it| it.dot);
}
