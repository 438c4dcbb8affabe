// caught by: page::
/// Parses a query string, for at most `most` invoices.
pub fn parse(query: &str, most: u16) -> Result<Self> {
    let mut page = Self { limit: 20, column: "created_at", ..Self::default() };
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "limit" => page.limit = value.parse().unwrap_or(20).clamp(1, most),
            "sort" => {
                page.descending = value.starts_with('-');
                // The mistake: what is wrong is mended in silence, and what is unknown is ignored.
                page.column = if value.contains("amount") { "amount_cents" } else { "created_at" };
            }
            "search" => page.search = Some(value.to_string()).filter(|text| is_line(text)),
            "after" => page.after = value.parse::<Uuid>().ok(),
            _ => return Err(Error::invalid(&*name, "is no parameter of this list")),
        }
    }
    Ok(page)
}
