// caught by: request_id::
/// The id that the client chose.
pub fn given(headers: &HeaderMap) -> Option<HeaderValue> {
    // The mistake: of two values the first is taken, and whatever a header may hold is taken for an id.
    let id = headers.get(HEADER)?;
    let good = (1..=64).contains(&id.len());
    good.then(|| id.clone())
}
