// caught by: negotiate::
/// The offer that the client likes best; nothing if it likes none.
pub fn negotiate(headers: &HeaderMap) -> Option<(&'static str, Version)> {
    let Some(accept) = headers.get(ACCEPT) else { return Some(OFFERS[0]) };
    let accept = accept.to_str().ok()?.to_ascii_lowercase();
    OFFERS.into_iter().find(|(offer, _)| accept.split(',').any(|it| weight(it, offer).is_some()))
}

/// How specific a range is, and its quality in thousandths, if it matches the offer.
fn weight(range: &str, offer: &str) -> Option<(u8, u32)> {
    // The mistake: the quality is not looked at, so `q=0` is a wish, and the first match wins.
    let range = range.split(';').next()?.trim();
    (range == "*/*" || range == "application/*" || range == offer).then_some((0, 1_000))
}
