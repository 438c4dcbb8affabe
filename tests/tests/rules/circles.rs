//! Do two modules import each other? Then neither can be read, tested or moved without the other.
//!
//! Modules are compared with their neighbours below the same parent, each together with its submodules: `store::clicks
//! → cache` and `cache → store` make a circle of `store` and `cache`. Imports between a module and its own submodules
//! do not count.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{
    modules::{Crate, Mention, ModulePath, Place},
    workspace::crates,
};

/// For the modules below one parent: which module names which, and where it first does so.
type Graph = BTreeMap<String, BTreeMap<String, String>>;

#[test]
fn no_two_modules_import_each_other() {
    let mut circles = String::new();
    for one in crates().unwrap() {
        for (parent, graph) in graphs(&one) {
            for knot in knots(&graph) {
                let place = [std::slice::from_ref(&one.name), &parent[..]].concat().join("::");
                let names = knot.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
                circles += &format!("{place}: {names}\n{}\n", shortest_circle(&graph, &knot));
            }
        }
    }
    assert!(circles.is_empty(), "these modules import each other:\n\n{circles}");
}

/// For each parent, which of its submodules name each other.
fn graphs(one: &Crate) -> BTreeMap<ModulePath, Graph> {
    let mut graphs: BTreeMap<ModulePath, Graph> = BTreeMap::new();
    for Mention { from, to, at } in one.mentions() {
        let Place::Module(to) = to else { continue };
        let common = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
        if let (Some(child), Some(other)) = (from.get(common), to.get(common)) {
            let graph = graphs.entry(from[..common].to_vec()).or_default();
            graph.entry(child.clone()).or_default().entry(other.clone()).or_insert(at);
        }
    }
    graphs
}

/// The largest sets of modules in which each module leads to all others.
fn knots(graph: &Graph) -> Vec<BTreeSet<String>> {
    let mut knots = BTreeSet::new();
    for start in graph.keys() {
        let there = reached(graph, start);
        let knot: BTreeSet<_> =
            there.into_iter().filter(|other| reached(graph, other).contains(start)).collect();
        if knot.len() > 1 {
            knots.insert(knot);
        }
    }
    knots.into_iter().collect()
}

/// Every module that this one names, and those that they name, and so on.
fn reached(graph: &Graph, start: &str) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut open = vec![start.to_owned()];
    while let Some(next) = open.pop() {
        for other in graph.get(&next).into_iter().flat_map(BTreeMap::keys) {
            if reached.insert(other.clone()) {
                open.push(other.clone());
            }
        }
    }
    reached
}

/// The shortest way round within a knot, a line for each step.
fn shortest_circle(graph: &Graph, knot: &BTreeSet<String>) -> String {
    let from_each = knot.iter().filter_map(|start| way_back(graph, start));
    let shortest = from_each.min_by_key(Vec::len).unwrap_or_default();
    let steps = shortest.windows(2).map(|step| {
        let at = &graph[&step[0]][&step[1]];
        format!("    {} names {} in {at}\n", step[0], step[1])
    });
    steps.collect()
}

/// The shortest way from a module back to itself, breadth first.
fn way_back(graph: &Graph, start: &String) -> Option<Vec<String>> {
    let mut ways = VecDeque::from([vec![start.clone()]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for next in graph.get(way.last()?).into_iter().flat_map(BTreeMap::keys) {
            let longer = [way.clone(), vec![next.clone()]].concat();
            if next == start {
                return Some(longer);
            }
            if seen.insert(next.clone()) {
                ways.push_back(longer);
            }
        }
    }
    None
}

#[test]
fn a_circle_is_found_behind_re_exports_submodules_and_macro_calls() {
    let folder = tempfile::tempdir().unwrap();
    for (file, source) in [
        ("lib.rs", "mod a; mod b; mod c; mod d; pub use a::inner::A;"),
        // A test module may use what it likes; a module and its submodule may use each other.
        ("a.rs", "mod inner; use crate::b::B; #[cfg(test)] mod tests { use crate::d::D; }"),
        ("a/inner.rs", "use super::Other; pub struct A;"),
        ("b.rs", "pub struct B; fn f() { println!(\"{}\", crate::c::text()); }"),
        ("c/mod.rs", "use crate::A; pub fn text() -> A { A }"),
        ("d.rs", "use super::{a, b::{self as bee, B as Bee}}; use std::fmt; pub struct D;"),
    ] {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, source).unwrap();
    }
    let one = Crate::read("toy", &folder.path().join("lib.rs")).unwrap();
    let graphs = graphs(&one);
    let [(parent, graph)] = Vec::from_iter(&graphs)[..] else { panic!("{graphs:?}") };
    assert!(parent.is_empty());
    let knots = knots(graph);
    assert_eq!(knots, [["a", "b", "c"].map(str::to_owned).into()]);
    let shown = shortest_circle(graph, &knots[0]);
    for step in ["a names b in", "b names c in", "c names a in"] {
        assert!(shown.contains(step), "{shown}");
    }
    assert_eq!(graph["d"].keys().collect::<Vec<_>>(), ["a", "b"]);
}
