// caught by: schema::
/// A customer as today's program wants it, whichever version wrote it.
pub fn today(mut fields: Fields) -> Result<Fields> {
    // The mistake: what the old program wrote stays where it is, and the new field is empty.
    if !fields.contains_key("phones") {
        fields.insert("phones".to_owned(), json!([]));
    }
    Ok(fields)
}

/// A customer for a reader that knows only this version.
pub fn as_of(version: u8, mut fields: Fields) -> Fields {
    if version == 1
        && let Some(Value::Array(phones)) = fields.remove("phones")
        && let Some(phone) = phones.into_iter().next()
    {
        fields.insert("phone".to_owned(), phone);
    }
    fields
}
