//! Is the whiteboard version what one writes in the interview? One page, which stands alone.

use std::{fs, path::Path};

/// What fits on a whiteboard, and into half an hour.
const LINES: usize = 150;

/// What belongs to the answer, or to this workspace.
const NOT_THERE: [&str; 5] = ["crate::", "super::", "lab::", "edge::", "conform::"];

#[test]
fn a_whiteboard_version_is_one_page_and_stands_alone() {
    for answer in guide::answers() {
        let path = Path::new(answer.folder).join("src/whiteboard.rs");
        assert_eq!(path.exists(), answer.serve.has_whiteboard(), "{}", answer.name);
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let lines = text.lines().count();
        assert!(lines <= LINES, "{}: whiteboard.rs has {lines} lines, of {LINES}", answer.name);
        for word in NOT_THERE {
            assert!(!text.contains(word), "{}: whiteboard.rs uses {word}", answer.name);
        }
    }
}
