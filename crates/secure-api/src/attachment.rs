//! What is this file? What its bytes say, and neither its name nor its header.

use edge::text::is_line;

use crate::error::{Error, Result};

/// The largest file.
pub const MAX_FILE: usize = 2 * 1_024 * 1_024;

/// A file that is taken. It is kept in the database, where no web server finds it by a path.
#[derive(Debug)]
pub struct Attachment {
    /// As its owner calls it.
    pub name: String,
    /// By its content.
    pub media_type: &'static str,
    /// All of it.
    pub content: Vec<u8>,
}

impl Attachment {
    /// Parses an upload.
    pub fn parse(name: &str, content: &[u8]) -> Result<Self> {
        let (media_type, endings) = kind(content).ok_or(Error::FILE_TYPE)?;
        let ends = |end: &&str| name.to_lowercase().ends_with(*end);
        if !is_file_name(name) || !endings.iter().any(ends) {
            let message = "must be 1 to 100 letters, digits, blanks, '-', '_' and '.', with the ending of its type";
            return Err(Error::invalid("name", message));
        }
        Ok(Self { name: name.to_owned(), media_type, content: content.to_vec() })
    }
}

// ANCHOR: kind
/// The type of these bytes, with the endings of its files. No SVG and no HTML: they are programs to a browser.
fn kind(content: &[u8]) -> Option<(&'static str, &'static [&'static str])> {
    const KINDS: [(&[u8], &str, &[&str]); 3] = [
        (b"%PDF-", "application/pdf", &[".pdf"]),
        (b"\x89PNG\r\n\x1a\n", "image/png", &[".png"]),
        (b"\xff\xd8\xff", "image/jpeg", &[".jpg", ".jpeg"]),
    ];
    let known = KINDS.into_iter().find(|(magic, ..)| content.starts_with(magic));
    known.map(|(_, media_type, endings)| (media_type, endings))
}

/// Whether a name stays a name, on every system and in every header: no `/`, no `\`, no quotation mark, and no dot at the
/// beginning.
fn is_file_name(name: &str) -> bool {
    let usual = |c: char| c.is_alphanumeric() || " -_.".contains(c);
    let length = (1..=100).contains(&name.chars().count());
    length
        && is_line(name)
        && name.chars().all(usual)
        && !name.starts_with('.')
        && !name.contains("..")
}
// ANCHOR_END: kind

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\nrest";

    fn taken(name: &str, content: &[u8]) -> Option<&'static str> {
        Attachment::parse(name, content).ok().map(|it| it.media_type)
    }

    #[test]
    fn the_content_says_what_it_is() {
        assert_eq!(taken("scan.png", PNG), Some("image/png"));
        assert_eq!(taken("Scan 2.JPEG", b"\xff\xd8\xff\xe0"), Some("image/jpeg"));
        assert_eq!(taken("a.pdf", b"%PDF-1.7"), Some("application/pdf"));
        for content in
            [&b""[..], b"<svg onload=alert(1)>", b"<html>", b"MZ", b"PK\x03\x04", b" %PDF-"]
        {
            assert_eq!(taken("a.pdf", content), None, "{content:?}");
        }
    }

    #[test]
    fn a_name_is_no_path_and_no_header() {
        for name in [
            "",
            "a",
            "a.pdf",
            ".png",
            "../a.png",
            "a/b.png",
            "a\\b.png",
            "a..png",
            "a\".png",
            "a\r\n.png",
            "a\0.png",
            "a;x.png",
            "a.png.html",
        ] {
            assert_eq!(taken(name, PNG), None, "{name:?}");
        }
        assert_eq!(taken(&format!("{}.png", "a".repeat(97)), PNG), None);
        assert_eq!(taken("Rechnung März.png", PNG), Some("image/png"));
    }
}
