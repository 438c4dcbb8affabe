// caught by: render::
/// A text in quotes.
fn cell(text: &str) -> String {
    // The mistake: only `=` at the very beginning is looked for.
    let mark = if text.starts_with('=') { "'" } else { "" };
    format!("\"{mark}{}\"", text.replace('"', "\"\""))
}
