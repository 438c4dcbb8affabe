// caught by: deadline::
/// When the answer has to be there.
pub fn deadline(headers: &HeaderMap, longest: Duration) -> Result<Instant> {
    let now = Instant::now();
    // The mistake: what cannot be read is taken for no deadline, and so is a second one.
    let at = only(headers, HEADER).and_then(|at| OffsetDateTime::parse(at, &Rfc3339).ok());
    let Some(at) = at else { return Ok(now + longest) };
    let left = at - OffsetDateTime::now_utc();
    let left = Duration::try_from(left).map_err(|_| Error::TOO_LATE)?;
    Ok(now + left.min(longest))
}
