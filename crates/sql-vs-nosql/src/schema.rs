//! Who reads what an older program has written? With tables, a migration changes it once. With documents, every reader
//! has to know every version that was ever written.
//!
//! Version 1 knew one `phone`. Version 2, today's, has a list `phones`.

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// The fields of a customer or a product.
pub type Fields = Map<String, Value>;

// ANCHOR: versions
/// A customer as today's program wants it, whichever version wrote it.
pub fn today(mut fields: Fields) -> Result<Fields> {
    match (fields.remove("phone"), fields.contains_key("phones")) {
        (Some(_), true) => return Err(Error::invalid("phone", "is now in the list `phones`")),
        (Some(phone), false) => fields.insert("phones".to_owned(), json!([phone])),
        (None, false) => fields.insert("phones".to_owned(), json!([])),
        (None, true) => None,
    };
    Ok(fields)
}

/// A customer for a reader that knows only this version.
pub fn as_of(version: u8, mut fields: Fields) -> Fields {
    if version == 1
        && let Some(Value::Array(phones)) = fields.remove("phones")
    {
        let first = phones.into_iter().next();
        fields.extend(first.map(|phone| ("phone".to_owned(), phone)));
    }
    fields
}
// ANCHOR_END: versions

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(value: &Value) -> Fields {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn every_version_is_read_as_todays() {
        for (written, read) in [
            (json!({"phone": "1"}), json!({"phones": ["1"]})),
            (json!({"phones": ["1", "2"]}), json!({"phones": ["1", "2"]})),
            (json!({}), json!({"phones": []})),
        ] {
            assert_eq!(Value::from(today(fields(&written)).unwrap()), read);
        }
        assert!(today(fields(&json!({"phone": "1", "phones": []}))).is_err());
    }

    #[test]
    fn an_old_reader_gets_the_first_of_the_list() {
        for (kept, read) in [
            (json!({"phones": ["1", "2"], "a": 1}), json!({"phone": "1", "a": 1})),
            (json!({"phones": []}), json!({})),
        ] {
            assert_eq!(Value::from(as_of(1, fields(&kept))), read);
            assert_eq!(Value::from(as_of(2, fields(&kept))), kept);
        }
    }
}
