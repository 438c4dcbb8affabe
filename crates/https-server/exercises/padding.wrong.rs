// caught by: pages::
/// Fills the page with spaces up to a multiple of this many bytes; 0 leaves it as it is. TLS encrypts what is said, and
/// not how much.
pub fn pad(mut page: String, to: usize) -> String {
    // The mistake: everything becomes longer, and differs as before.
    let missing = page.len().checked_next_multiple_of(to).map_or(0, |_| to);
    page.extend(std::iter::repeat_n(' ', missing));
    page
}
