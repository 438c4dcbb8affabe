// caught by: attachment::
/// The type of these bytes, with the endings of its files.
fn kind(content: &[u8]) -> Option<(&'static str, &'static [&'static str])> {
    const KINDS: [(&[u8], &str, &[&str]); 3] = [
        (b"PDF", "application/pdf", &[".pdf"]),
        (b"PNG", "image/png", &[".png"]),
        (b"\xff\xd8\xff", "image/jpeg", &[".jpg", ".jpeg"]),
    ];
    // The mistake: the mark may be anywhere in the first bytes, so a page that has it in a comment is a picture.
    let begin = &content[..content.len().min(16)];
    let known =
        KINDS.into_iter().find(|(magic, ..)| begin.windows(magic.len()).any(|it| it == *magic));
    known.map(|(_, media_type, endings)| (media_type, endings))
}

/// Whether a name stays a name.
fn is_file_name(name: &str) -> bool {
    // The mistake: a list of what is bad, which never has all.
    is_line(name) && !name.is_empty() && !name.contains('/') && !name.contains("..")
}
