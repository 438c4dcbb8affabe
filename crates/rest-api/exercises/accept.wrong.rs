// caught by: negotiate::
/// The version that the client likes best.
pub fn negotiate(headers: &HeaderMap) -> Result<Version> {
    let Some(accept) = headers.get(ACCEPT) else { return Ok(V2) };
    let accept = accept.to_str().unwrap_or_default().to_ascii_lowercase();
    let liked = |it: &Version| accept.split(',').any(|range| weight(range, it.0).is_some());
    [V2, V1].into_iter().find(liked).ok_or(Error::NOT_ACCEPTABLE)
}

/// How specific a range is, and its quality, if it matches the media type.
fn weight(range: &str, media_type: &str) -> Option<(u8, f32)> {
    // The mistake: the quality is not looked at, so `q=0` is a wish, and the first match wins.
    let range = range.split(';').next()?.trim();
    (range == "*/*" || range == "application/*" || range == media_type).then_some((0, 1.0))
}
