//! What does a PATCH make of a user? JSON Merge Patch (RFC 7396) and JSON Patch (RFC 6902), within bounds.

use edge::{FieldError, json::parse};
use json_patch::PatchOperation;
use serde_json::{Value, json};

use crate::error::Error;
use crate::user::{NewUser, User, UserInput};

/// Operations in one JSON Patch.
const MOST_OPERATIONS: usize = 100;
/// Bytes of the document between two operations: several times the largest user.
const LARGEST: usize = 16 * 1_024;

// ANCHOR: patch
/// The user as the patch wants it. All of it is checked, as if it had come in a PUT.
pub fn apply(media_type: &str, patch: &[u8], user: &User) -> Result<NewUser, Error> {
    let User { id, name, email, tags, .. } = user;
    let mut document = json!({ "id": id, "name": name, "email": email, "tags": tags });
    match media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        // What is null is taken away, and an array is replaced as a whole.
        "application/merge-patch+json" => json_patch::merge(&mut document, &parse(patch)?),
        "application/json-patch+json" => in_steps(&mut document, &parse::<Vec<_>>(patch)?)?,
        _ => return Err(Error::PatchType),
    }
    let patched_id = document.as_object_mut().and_then(|fields| fields.remove("id"));
    if patched_id != Some(json!(id)) {
        return Err(Error::Invalid(vec![FieldError::new("id", "cannot be changed")]));
    }
    parse::<UserInput>(document.to_string().as_bytes())?.parse()
}

/// One operation after the other, since a limit on their number is not enough: `copy` of the whole document into itself
/// doubles it, so fifty operations in four kilobytes would fill any memory.
fn in_steps(document: &mut Value, patch: &[PatchOperation]) -> Result<(), Error> {
    let refused = |message: &str| Error::Invalid(vec![FieldError::new("", message)]);
    if patch.len() > MOST_OPERATIONS {
        return Err(refused("a patch has at most 100 operations"));
    }
    for operation in patch {
        json_patch::patch(document, std::slice::from_ref(operation)).map_err(|error| {
            match operation {
                PatchOperation::Test(_) => Error::TestFailed,
                _ => refused(&error.to_string()),
            }
        })?;
        if document.to_string().len() > LARGEST {
            return Err(refused("the document becomes too large"));
        }
    }
    Ok(())
}
// ANCHOR_END: patch

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;

    const MERGE: &str = "application/merge-patch+json";
    const PATCH: &str = "Application/JSON-Patch+json; charset=utf-8";

    fn patched(media_type: &str, patch: &str) -> Result<NewUser, u16> {
        let now = OffsetDateTime::UNIX_EPOCH;
        let (name, email, tags) = ("Ada".into(), "ada@example.org".into(), vec!["a".into()]);
        let user = User {
            id: Uuid::nil(),
            name,
            email,
            tags,
            version: 1,
            created_at: now,
            updated_at: now,
        };
        apply(media_type, patch.as_bytes(), &user).map_err(|error| error.status().as_u16())
    }

    fn tags(media_type: &str, patch: &str) -> Vec<String> {
        patched(media_type, patch).unwrap().tags
    }

    #[test]
    fn each_kind_does_what_its_rfc_says() {
        assert_eq!(patched(MERGE, r#"{"name":"Bob"}"#).unwrap().name, "Bob");
        assert_eq!(tags(MERGE, r#"{"tags":["b"]}"#), ["b"]);
        assert_eq!(tags(MERGE, r#"{"tags":null}"#), [""; 0]);
        assert_eq!(tags(PATCH, r#"[{"op":"add","path":"/tags/-","value":"b"}]"#), ["a", "b"]);
        assert_eq!(tags(PATCH, r#"[{"op":"remove","path":"/tags/0"}]"#), [""; 0]);
        assert_eq!(tags(PATCH, "[]"), ["a"]);
    }

    #[test]
    fn what_makes_no_user_is_refused() {
        let many =
            format!("[{}]", vec![r#"{"op":"test","path":"/name","value":"Ada"}"#; 101].join(","));
        let deep = format!("{}1{}", r#"{"name":"#.repeat(10_000), "}".repeat(10_000));
        for (media_type, patch, status) in [
            (MERGE, r#"{"id":"x"}"#, 422),
            (MERGE, r#"{"name":null}"#, 422),
            (MERGE, r#"{"created_at":"2026-01-01T00:00:00Z"}"#, 422),
            (MERGE, "[]", 422),
            (MERGE, "{", 400),
            (MERGE, r#"{"name":"a","name":"b"}"#, 400),
            (MERGE, &deep, 400),
            (PATCH, r#"[{"op":"replace","path":"/id","value":"x"}]"#, 422),
            (PATCH, r#"[{"op":"move","from":"/id","path":"/name"}]"#, 422),
            (PATCH, r#"[{"op":"remove","path":""}]"#, 422),
            (PATCH, r#"[{"op":"replace","path":"/nothing","value":1}]"#, 422),
            (PATCH, r#"[{"op":"test","path":"/name","value":"Bob"}]"#, 409),
            (PATCH, r#"[{"op":"become","path":"/name"}]"#, 422),
            (PATCH, &many, 422),
            ("application/json", "{}", 415),
            ("", "{}", 415),
        ] {
            assert_eq!(patched(media_type, patch).err(), Some(status), "{media_type} {patch:.80}");
        }
    }

    #[test]
    fn a_patch_that_doubles_the_document_again_and_again_is_stopped() {
        let bomb =
            format!("[{}]", vec![r#"{"op":"copy","from":"/tags","path":"/tags/-"}"#; 60].join(","));
        assert_eq!(patched(PATCH, &bomb).err(), Some(422));
    }
}
