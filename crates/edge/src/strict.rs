//! How is JSON read without guessing what was meant?
//!
//! serde's derived code accepts an array for a struct, by the order of its fields: `["ann","bob",2500]` would be a
//! transfer. And a `serde_json::Value` keeps the last of two equal keys, while another program may keep the first.
//! Here both are malformed, at any depth.
//!
//! So a body is read twice: into a `Value` whose keys are unique, and from there into the type that the handler wants.
//! Bodies are short. An enum is a string; an enum whose variants have fields needs `#[serde(tag = …)]`. serde buffers
//! such enums and flattened fields before it reads them, so this code does not see arrays within them.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeOwned, Error as _, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
        Visitor,
        value::{MapDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};
use serde_json::{Map, Number, Value};
use serde_path_to_error::{Path, Segment};

/// Why a body cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not JSON or not an object, has an array in place of an object, or has a duplicate key.
    Malformed(String),
    /// A field is missing, unknown, or of a wrong type.
    Field {
        /// Where it is: `email`, `items[0].sku`.
        field: String,
        /// What is wrong.
        message: String,
    },
}

/// Parses the value from these bytes.
pub fn from_slice<T: DeserializeOwned>(json: &[u8]) -> Result<T, Fault> {
    let value: Unique =
        serde_json::from_slice(json).map_err(|error| Fault::Malformed(error.to_string()))?;
    let is_object = value.0.is_object();
    serde_path_to_error::deserialize(Strict(value.0)).map_err(|error| {
        let place = place(error.path());
        match error.into_inner() {
            Wrong::Array => {
                let place = if place.is_empty() { "it" } else { &place };
                Fault::Malformed(format!("{place} must be an object, not an array"))
            }
            Wrong::Missing(name) => {
                let field =
                    if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") };
                Fault::Field { field, message: "is missing".to_owned() }
            }
            Wrong::Other(message) if place.is_empty() && !is_object => Fault::Malformed(message),
            Wrong::Other(message) => Fault::Field { field: place, message },
        }
    })
}

/// The path as clients write it: `items[0].sku`.
fn place(path: &Path) -> String {
    let mut place = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => place += &format!("[{index}]"),
            Segment::Map { key } if place.is_empty() => place += key,
            Segment::Map { key } => place += &format!(".{key}"),
            // A variant is the value of a field, not a field.
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    place
}

/// JSON without duplicate keys.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Self)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, bool: bool) -> Result<Value, E> {
        Ok(bool.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            array.push(item);
        }
        Ok(array.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format!("the key {key:?} is there twice")));
            }
            let Unique(value) = fields.next_value()?;
            object.insert(key, value);
        }
        Ok(object.into())
    }
}

/// What is wrong with a value.
#[derive(Debug)]
enum Wrong {
    /// It is an array, and should be an object.
    Array,
    /// It lacks this field.
    Missing(&'static str),
    Other(String),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Array => f.write_str("an array in an object's place"),
            Self::Missing(field) => write!(f, "{field} is missing"),
            Self::Other(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Wrong {}

impl serde::de::Error for Wrong {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Other(message.to_string())
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Missing(field)
    }
}

/// A deserializer that reads a value of the wanted type from parsed JSON.
struct Strict(Value);

impl Strict {
    /// The value, unless it is an array: an object is wanted here.
    fn object(self) -> Result<Self, Wrong> {
        if self.0.is_array() { Err(Wrong::Array) } else { Ok(self) }
    }
}

impl<'de> Deserializer<'de> for Strict {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(bool) => visitor.visit_bool(bool),
            Value::Number(number) => visit_number(&number, visitor),
            Value::String(text) => visitor.visit_string(text),
            Value::Array(items) => {
                let mut items = SeqDeserializer::new(items.into_iter().map(Strict));
                let value = visitor.visit_seq(&mut items)?;
                items.end()?;
                Ok(value)
            }
            Value::Object(fields) => {
                let fields = fields.into_iter().map(|(key, value)| (key, Strict(value)));
                let mut fields = MapDeserializer::new(fields);
                let value = visitor.visit_map(&mut fields)?;
                fields.end()?;
                Ok(value)
            }
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.object()?.deserialize_any(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.object()?.deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        match self.0 {
            Value::String(name) => visitor.visit_enum(name.into_deserializer()),
            other => Err(Wrong::invalid_type(unexpected(&other), &OneOf(variants))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct identifier ignored_any
    }
}

impl IntoDeserializer<'_, Wrong> for Strict {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

fn visit_number<'de, V: Visitor<'de>>(number: &Number, visitor: V) -> Result<V::Value, Wrong> {
    if let Some(number) = number.as_u64() {
        visitor.visit_u64(number)
    } else if let Some(number) = number.as_i64() {
        visitor.visit_i64(number)
    } else {
        visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN))
    }
}

fn unexpected(value: &Value) -> Unexpected<'_> {
    match value {
        Value::Null => Unexpected::Unit,
        Value::Bool(bool) => Unexpected::Bool(*bool),
        Value::Number(_) => Unexpected::Other("number"),
        Value::String(text) => Unexpected::Str(text),
        Value::Array(_) => Unexpected::Seq,
        Value::Object(_) => Unexpected::Map,
    }
}

struct OneOf(&'static [&'static str]);

impl Expected for OneOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "one of {}", self.0.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, expecting = "an order")]
    struct Order {
        from: String,
        cents: i64,
        channel: Option<Channel>,
        #[serde(default)]
        lines: Vec<Line>,
        address: Option<Address>,
        #[serde(default)]
        notes: HashMap<String, f64>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Channel {
        Push,
        Websocket,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Line {
        sku: Sku,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Sku(String);

    #[derive(Debug, PartialEq, Deserialize)]
    struct Address {
        city: String,
        lines: [u8; 2],
    }

    fn read(json: &str) -> Result<Order, Fault> {
        from_slice(json.as_bytes())
    }

    /// The field that the error names, for an order with these members.
    fn field(members: &str) -> String {
        match read(&format!(r#"{{"from":"a","cents":1,{members}}}"#)) {
            Err(Fault::Field { field, .. }) => field,
            other => panic!("{members}: {other:?}"),
        }
    }

    fn is_malformed(json: &str) -> bool {
        matches!(read(json), Err(Fault::Malformed(_)))
    }

    #[test]
    fn a_good_body_is_what_it_is() {
        let body = r#"{"from":"a","cents":-1,"channel":"push","lines":[{"sku":"x"}],
            "address":{"city":"b","lines":[1,2]},"notes":{"tax":0.5}}"#;
        let order = Order {
            from: "a".to_owned(),
            cents: -1,
            channel: Some(Channel::Push),
            lines: vec![Line { sku: Sku("x".to_owned()) }],
            address: Some(Address { city: "b".to_owned(), lines: [1, 2] }),
            notes: HashMap::from([("tax".to_owned(), 0.5)]),
        };
        assert_eq!(read(body), Ok(order));
        let null = read(r#"{"from":"a","cents":9223372036854775807,"channel":null}"#).unwrap();
        assert_eq!((null.cents, null.channel), (i64::MAX, None));
    }

    #[test]
    fn an_array_is_no_object_however_deep() {
        for json in [
            r#"["a",1]"#,
            r#"["a",1,null,[],null,{}]"#,
            "[]",
            r#"{"from":"a","cents":1,"lines":[["x"]]}"#,
            r#"{"from":"a","cents":1,"lines":[{"sku":"x"},["x"]]}"#,
            r#"{"from":"a","cents":1,"address":["b",[1,2]]}"#,
            r#"{"from":"a","cents":1,"notes":[]}"#,
        ] {
            assert!(is_malformed(json), "{json}: {:?}", read(json));
        }
        for (json, place) in [("[]", "it"), (r#"{"from":"a","cents":1,"lines":[[]]}"#, "lines[0]")]
        {
            let message = format!("{place} must be an object, not an array");
            assert_eq!(read(json), Err(Fault::Malformed(message)));
        }
    }

    #[test]
    fn a_key_that_is_there_twice_is_malformed_however_deep() {
        for json in [
            r#"{"from":"a","from":"a","cents":1}"#,
            r#"{"from":"a","cents":1,"fr\u006fm":"b"}"#,
            r#"{"from":"a","cents":1,"address":{"city":"b","city":"c","lines":[1,2]}}"#,
            r#"{"from":"a","cents":1,"notes":{"tax":1,"tax":2}}"#,
        ] {
            assert!(is_malformed(json), "{json}: {:?}", read(json));
        }
    }

    #[test]
    fn what_is_no_json_is_malformed() {
        let deep = "[".repeat(10_000);
        let deeper = format!("{}{}", r#"{"a":"#.repeat(10_000), "}".repeat(10_000));
        for json in
            ["", "{", "nonsense", r#"{"from":"a"} {}"#, r#"{"from":"\ud83e"}"#, &deep, &deeper]
        {
            assert!(is_malformed(json), "{json:.40}");
        }
        assert!(matches!(from_slice::<Value>(b"\"\xff\""), Err(Fault::Malformed(_))));
    }

    #[test]
    fn what_is_no_object_at_all_is_malformed() {
        for json in ["null", "7", "true", r#""text""#] {
            assert!(is_malformed(json), "{json}");
        }
    }

    #[test]
    fn a_field_of_a_wrong_type_is_named() {
        for (json, field) in [
            (r#"{"from":7,"cents":1}"#, "from"),
            (r#"{"from":null,"cents":1}"#, "from"),
            (r#"{"from":[],"cents":1}"#, "from"),
            (r#"{"from":"a","cents":1.5}"#, "cents"),
            (r#"{"from":"a","cents":9223372036854775808}"#, "cents"),
            (r#"{"from":"a","cents":"1"}"#, "cents"),
        ] {
            match read(json) {
                Err(Fault::Field { field: named, .. }) => assert_eq!(named, field, "{json}"),
                other => panic!("{json}: {other:?}"),
            }
        }
        for channel in ["7", "true", "[]", r#""pigeon""#, r#"{"websocket":null}"#, r#"["push"]"#] {
            assert_eq!(field(&format!(r#""channel":{channel}"#)), "channel");
        }
        assert_eq!(field(r#""lines":7"#), "lines");
        assert_eq!(field(r#""lines":{}"#), "lines");
        assert_eq!(field(r#""lines":[7]"#), "lines[0]");
        assert_eq!(field(r#""lines":[{"sku":"x"},{"sku":7}]"#), "lines[1].sku");
        assert_eq!(field(r#""address":"b""#), "address");
        assert_eq!(field(r#""address":{"city":7}"#), "address.city");
        assert_eq!(field(r#""address":{"city":"b","lines":[1]}"#), "address.lines");
        assert_eq!(field(r#""address":{"city":"b","lines":[1,"2"]}"#), "address.lines[1]");
        assert_eq!(field(r#""notes":{"tax":"1"}"#), "notes.tax");
    }

    #[test]
    fn a_field_that_is_missing_or_unknown_is_named() {
        let missing = |field: &str| {
            Err(Fault::Field { field: field.to_owned(), message: "is missing".to_owned() })
        };
        assert_eq!(read("{}"), missing("from"));
        assert_eq!(read(r#"{"from":"a"}"#), missing("cents"));
        assert_eq!(field(r#""address":{}"#), "address.city");
        assert_eq!(field(r#""lines":[{}]"#), "lines[0].sku");
        assert_eq!(field(r#""form":"b""#), "form");
    }
}
