//! Does a value fit a schema of an OpenAPI document? And what could a client send that fits, or nearly?

use std::hash::{BuildHasher, RandomState};

use serde_json::{Value, json};

/// Numbers that are good enough to choose with (xorshift).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Other numbers in each run.
    pub fn new() -> Self {
        Self(RandomState::new().hash_one(()) | 1)
    }

    /// From 0 to below this.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or(0) % bound.max(1)
    }

    /// One of these.
    pub fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}

/// Follows a reference.
pub fn resolve<'a>(schema: &'a Value, document: &'a Value) -> &'a Value {
    match schema["$ref"].as_str().and_then(|it| it.strip_prefix('#')) {
        Some(pointer) => document.pointer(pointer).unwrap_or(&Value::Null),
        None => schema,
    }
}

/// What is wrong with this value, if something is. It knows the words that our document uses.
pub fn wrong(schema: &Value, document: &Value, value: &Value) -> Option<String> {
    let schema = resolve(schema, document);
    let list = |name: &str| schema[name].as_array().into_iter().flatten();
    if let Some(wrong) = list("allOf").find_map(|part| wrong(part, document, value)) {
        return Some(wrong);
    }
    let mut choices = list("oneOf").map(|one| wrong(one, document, value)).peekable();
    if choices.peek().is_some() && !choices.any(|wrong| wrong.is_none()) {
        return Some(format!("{value} is none of the choices"));
    }
    if schema["enum"].as_array().is_some_and(|choices| !choices.contains(value)) {
        return Some(format!("{value} is not in the list"));
    }
    let fits = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => false,
    };
    let kind_fits = match &schema["type"] {
        Value::String(kind) => fits(kind),
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).any(fits),
        _ => true,
    };
    if !kind_fits {
        return Some(format!("{value:.80} is no {}", schema["type"]));
    }
    if let Some(missing) =
        list("required").filter_map(Value::as_str).find(|name| value.get(name).is_none())
    {
        return Some(format!("{missing} is missing"));
    }
    let mut properties = schema["properties"].as_object().into_iter().flatten();
    let of_fields = properties.find_map(|(name, field)| wrong(field, document, value.get(name)?));
    let others = &schema["additionalProperties"];
    let of_others = || {
        let mut fields = value.as_object().filter(|_| others.is_object())?.values();
        fields.find_map(|field| wrong(others, document, field))
    };
    let items = || {
        let items = value.as_array().filter(|_| schema["items"].is_object())?;
        items.iter().find_map(|item| wrong(&schema["items"], document, item))
    };
    of_fields.or_else(of_others).or_else(items)
}

/// Something that fits the schema, mostly; now and then it is just beside it.
pub fn value(schema: &Value, document: &Value, random: &mut Random) -> Value {
    let schema = resolve(schema, document);
    if random.below(12) == 0 {
        return nonsense(random);
    }
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.clone(),
        kind => vec![kind.clone()],
    };
    let kind = random.of(&kinds).as_str().unwrap_or("object").to_owned();
    match kind.as_str() {
        "object" => {
            let mut object = json!({});
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                let required = schema["required"].as_array();
                let required = required.is_some_and(|all| all.iter().any(|it| it == name));
                if required && random.below(20) > 0 || random.below(2) == 0 {
                    object[name] = value(field, document, random);
                }
            }
            if random.below(20) == 0 {
                object["unknown"] = nonsense(random);
            }
            object
        }
        "array" => {
            let many = random.below(4);
            (0..many).map(|_| value(&schema["items"], document, random)).collect()
        }
        "integer" => {
            let bound = |name: &str, otherwise| schema[name].as_i64().unwrap_or(otherwise);
            let (least, most) = (bound("minimum", 0), bound("maximum", 100));
            json!(*random.of(&[least, most, least + 1, least - 1, most + 1]))
        }
        "boolean" => json!(random.below(2) == 0),
        "null" => Value::Null,
        _ if schema["format"] == "email" => {
            json!(format!("{:x}@example.org", RandomState::new().hash_one(())))
        }
        _ => {
            let most = usize::try_from(schema["maxLength"].as_u64().unwrap_or(20)).unwrap_or(20);
            let length = *random.of(&[1, 3, most, most + 1, 0]);
            json!(
                random
                    .of(&["a", "ü", "7", "x "])
                    .repeat(length)
                    .chars()
                    .take(length)
                    .collect::<String>()
            )
        }
    }
}

/// What no schema asks for.
pub fn nonsense(random: &mut Random) -> Value {
    random
        .of(&[
            Value::Null,
            json!(true),
            json!(-1),
            json!(1.5),
            json!(1e300),
            json!(u64::MAX),
            json!(""),
            json!("\0"),
            json!("'; drop table users; --"),
            json!("\u{2028}"),
            json!([]),
            json!([[[]]]),
            json!({}),
            json!({ "$ref": "#" }),
        ])
        .clone()
}
