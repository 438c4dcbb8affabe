// caught by: condition::
/// Whether this user may be replaced, or created, under the conditions of the request.
pub fn may_write(headers: &HeaderMap, user: Option<&User>) -> Result<()> {
    let Some(user) = user else { return Ok(()) };
    if headers.typed_get::<IfNoneMatch>().is_some() {
        return Err(Error::CHANGED);
    }
    // The mistake: the header is one tag, compared as text. A list, `*` and the tag of the old version match nothing.
    let tag = format!("\"{}\"", user.version);
    match headers.get("if-match").and_then(|value| value.to_str().ok()) {
        None => Err(Error::NO_IF_MATCH),
        Some(value) if value == tag => Ok(()),
        Some(_) => Err(Error::CHANGED),
    }
}
