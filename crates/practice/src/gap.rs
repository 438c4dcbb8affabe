//! How is a gap cut from the real code? Between an anchor's marks every function keeps its signature and its
//! documentation, and its body becomes `todo!`.

use std::ops::Range;

use anyhow::{Context, ensure};
use syn::{
    Block, ImplItemFn, ItemFn,
    visit::{self, Visit},
};

/// The code with the gap.
pub fn cut(source: &str, anchor: &str, todo: &str) -> anyhow::Result<String> {
    let region = region(source, anchor)?;
    let mut bodies = Bodies { within: region, found: Vec::new() };
    bodies.visit_file(&syn::parse_file(source).context("it does not parse")?);
    ensure!(!bodies.found.is_empty(), "there is no function within the anchor {anchor}");
    let mut gapped = source.to_owned();
    let end = if source.contains("\r\n") { "\r\n" } else { "\n" };
    // From the end, so that the positions of earlier bodies stay valid.
    bodies.found.sort_by_key(|body| std::cmp::Reverse(body.start));
    for body in bodies.found {
        let line = source[..body.start].rfind('\n').map_or(0, |end| end + 1);
        let margin: String = source[line..].chars().take_while(|letter| *letter == ' ').collect();
        gapped.replace_range(body, &format!("{{{end}{margin}    todo!({todo:?}){end}{margin}}}"));
    }
    Ok(gapped)
}

/// The code with something else between the anchor's marks.
pub fn fill(source: &str, anchor: &str, with: &str) -> anyhow::Result<String> {
    let mut filled = source.to_owned();
    filled.replace_range(region(source, anchor)?, with);
    Ok(filled)
}

/// The range between the lines of the marks.
pub fn region(source: &str, anchor: &str) -> anyhow::Result<Range<usize>> {
    let line = |mark: &str| {
        let mut at = 0;
        for line in source.split_inclusive('\n') {
            if line.trim() == format!("// {mark}: {anchor}") {
                return Some(at..at + line.len());
            }
            at += line.len();
        }
        None
    };
    let start = line("ANCHOR").with_context(|| format!("there is no anchor {anchor}"))?.end;
    let end = line("ANCHOR_END").with_context(|| format!("the anchor {anchor} does not end"))?;
    ensure!(start <= end.start, "the anchor {anchor} ends before it begins");
    Ok(start..end.start)
}

/// Collects the outermost functions' bodies.
struct Bodies {
    within: Range<usize>,
    found: Vec<Range<usize>>,
}

impl Bodies {
    fn take(&mut self, block: &Block) {
        let braces = block.brace_token.span;
        let body = braces.open().byte_range().start..braces.close().byte_range().end;
        if self.within.start <= body.start && body.end <= self.within.end {
            self.found.push(body);
        }
    }
}

impl<'ast> Visit<'ast> for Bodies {
    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.take(&function.block);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        self.take(&function.block);
        visit::visit_signature(self, &function.sig);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r#"//! Üben.
use std::fmt;

impl Ring {
    // ANCHOR: shard_of
    /// The first point at or after the hash.
    pub fn shard_of(&self, code: &str) -> usize {
        fn hash(code: &str) -> u64 { 7 }
        let all = || { 1 };
        all()
    }
    // ANCHOR_END: shard_of

    fn other(&self) -> usize {
        2
    }
}
"#;

    #[test]
    fn the_signature_and_the_documentation_stay_and_the_body_goes() {
        let gapped = cut(SOURCE, "shard_of", "find \"it\"").unwrap();
        assert!(gapped.contains(
            "    /// The first point at or after the hash.\n    pub fn shard_of(&self, code: &str) -> usize {\n        todo!(\"find \\\"it\\\"\")\n    }\n    // ANCHOR_END"
        ), "{gapped}");
        assert!(gapped.contains("fn other(&self) -> usize {\n        2\n"), "{gapped}");
        assert!(syn::parse_file(&gapped).is_ok());
    }

    #[test]
    fn what_is_filled_in_stands_between_the_marks() {
        let body = &SOURCE[region(SOURCE, "shard_of").unwrap()];
        assert_eq!(fill(SOURCE, "shard_of", body).unwrap(), SOURCE);
        let filled = fill(SOURCE, "shard_of", "    // nothing\n").unwrap();
        assert!(filled.contains("ANCHOR: shard_of\n    // nothing\n    // ANCHOR_END"), "{filled}");
    }

    #[test]
    fn an_anchor_that_is_missing_or_holds_no_function_is_an_error() {
        assert!(cut(SOURCE, "zzz", "").unwrap_err().to_string().contains("zzz"));
        let source = "// ANCHOR: a\nconst A: u8 = 1;\n// ANCHOR_END: a\n";
        assert!(cut(source, "a", "").unwrap_err().to_string().contains("no function"));
        assert!(cut("// ANCHOR: a\nfn a() {}\n", "a", "").is_err());
    }
}
